"""The passes that bring a graph into the forms and layouts that the device works on, in their order."""

from __future__ import annotations

from typing import Final

from birc.compiler.ir.graph import Graph
from birc.compiler.passes.base import OnPass, Pass, run_passes
from birc.compiler.passes.choose_layouts import ChooseLayouts
from birc.compiler.passes.compute_as_stored import ComputeAsStored
from birc.compiler.passes.cut_long_axes import CutLongAxes
from birc.compiler.passes.eliminate_common import EliminateCommon
from birc.compiler.passes.integer_products import IntegerProducts
from birc.compiler.passes.reduce_images import ReduceImages

LEGALIZE: Final[tuple[Pass, ...]] = (
    IntegerProducts(),
    CutLongAxes(),
    EliminateCommon(),
    ChooseLayouts(),
    ReduceImages(),
    ComputeAsStored(),
)


def legalize_passes(longest: int) -> tuple[Pass, ...]:
    """The passes for descriptors whose dimensions have at most `longest` elements."""
    return tuple(CutLongAxes(longest) if isinstance(step, CutLongAxes) else step for step in LEGALIZE)


def legalize(graph: Graph, on_pass: OnPass | None = None) -> Graph:
    """Products of integers become ones that the device sums exactly, images lie channels last."""
    return run_passes(graph, LEGALIZE, on_pass)
