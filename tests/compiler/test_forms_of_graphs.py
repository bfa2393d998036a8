"""Which form of a graph the driver takes where one choice spoils another: the fastest of all, by what plans take."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, cast

import pytest
from graph_maker import GraphMaker

from birc.compiler.driver import Compilation
from birc.compiler.fitting import Outcome
from birc.compiler.ir.graph import Graph
from birc.compiler.passes.base import Pass
from birc.compiler.plan_search import Found
from birc.runtime.machine import load_machine

Form = tuple[bool, bool]
"""Whether the depth of products is divided, and whether norms are folded."""


def block() -> Graph:
    """A product whose depth can be divided, and behind it a norm that can be folded into the next product."""
    make = GraphMaker()
    stream = make("add", make("matmul", make.input(64, 96), make.random(96, 40)), make.input(64, 40))
    norm = make("layer_norm", stream, make.random(40), make.random(40), axis=1, epsilon=1e-5)
    return make.graph(make("matmul", norm, make.random(40, 200)), stream)


class KnownLatencies:
    """In the place of a search: what each form takes."""

    def __init__(self, cycles: dict[Form, int]) -> None:
        self.cycles = cycles

    def found(self, passes: Sequence[Pass]) -> Found:
        names = {one.name for one in passes}
        latency = self.cycles["divide_depth" in names, "fold_norms" in names]
        return Found(cast(Any, None), cast(Any, None), Outcome(latency, Fraction(0)))

    def latency(self, passes: Sequence[Pass]) -> int:
        outcome = self.found(passes).outcome
        return outcome.latency_cycles if outcome is not None else 0

    def best_way(self, _: Graph, ways: Sequence[Sequence[Pass]]) -> tuple[Sequence[Pass], Found]:
        way = min(ways, key=self.latency)
        return way, self.found(way)

    def faster_way(
        self, _: Graph, best: tuple[Sequence[Pass], Found | None], other: Sequence[Pass]
    ) -> tuple[Sequence[Pass], Found]:
        way = other if self.latency(other) < self.latency(best[0]) else best[0]
        return way, self.found(way)


@pytest.mark.parametrize(
    ("cycles", "form"),
    [
        ((100, 90, 110, 120), (False, True)),
        ((100, 110, 90, 80), (True, True)),
        ((100, 110, 90, 95), (True, False)),
        ((100, 80, 90, 95), (False, True)),  # divided it is faster than plain, and slower than folded
        ((100, 110, 120, 130), (False, False)),
    ],
)
def test_the_fastest_form_is_taken(cycles: tuple[int, ...], form: Form) -> None:
    """The cycles are those of the plain, the folded, the divided, and the divided and folded form."""
    forms = [(False, False), (False, True), (True, False), (True, True)]
    compilation = Compilation(load_machine("br100"), "bf16")
    compilation.search = cast(Any, KnownLatencies(dict(zip(forms, cycles, strict=True))))
    passes, _ = compilation._fusion(block())
    names = {one.name for one in passes}
    assert ("divide_depth" in names, "fold_norms" in names) == form
