"""What codegen makes of a plan: the program, and what is to be known of it beside its encoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from birc.codegen.regions import part_of
from birc.compiler.ir.plan import View
from birc.runtime.conversion import memory_type
from birc.runtime.package_sources import RunSource
from birc.runtime.program import Program


@dataclass(frozen=True, slots=True)
class Generated:
    """The program, and for every `run` command in order its source.

    `elements` are the element types of the program's constants by key, `parts` those that are parts of the plan's.
    """

    program: Program
    runs: tuple[RunSource, ...]
    elements: Mapping[str, str]
    parts: Mapping[str, View]

    def with_parts(self, data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays of the plan's constants, and those that are parts of them."""
        return {**data, **{key: part_of(data[view.buffer], view) for key, view in self.parts.items()}}

    def weights(self, data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The contents of the program's constants, in the types that memory holds."""
        arrays = self.with_parts(data)
        return {
            key: np.asarray(arrays[key]).astype(memory_type(element), copy=False)
            for key, element in self.elements.items()
        }
