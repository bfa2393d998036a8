"""Sums of pointwise convolutions: which become one, that the values stay, and what stays apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs, sources_of

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.verify import verify_graph
from birc.compiler.passes.stack_products import StackProducts


@dataclass(frozen=True)
class Branch:
    """A convolution of some channels, of an image so large that all branches give the same pixels."""

    channels: int = 5
    step: int = 1
    kernel: int = 1
    pad: int = 0
    group: int = 1
    bias: bool = True
    constant: bool = True

    def __call__(self, make: GraphMaker) -> str:
        size = (6 - 1) * self.step + self.kernel - 2 * self.pad
        x = make.input(2, self.channels, size, size)
        shape = (8, self.channels // self.group, self.kernel, self.kernel)
        weights = make.random(*shape) if self.constant else make.input(*shape)
        plain: dict[str, Any] = {"stride": (self.step,) * 2, "pads": (self.pad,) * 4, "dilation": (1, 1)}
        return make("conv2d", x, weights, *([make.random(8)] if self.bias else []), group=self.group, **plain)


def summed(*branches: Branch, after: Callable[[GraphMaker, str], str] = lambda _, y: y) -> Graph:
    make = GraphMaker()
    one, other = (branch(make) for branch in branches)
    return make.graph(after(make, make("add", one, other)))


def stacked(graph: Graph) -> Graph:
    """What the pass makes of a graph."""
    result = StackProducts().run(graph)
    verify_graph(result.graph)
    assert not StackProducts().run(result.graph).changed
    return result.graph


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


PLAIN = Branch()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (PLAIN, Branch(7), ["concat", "conv2d"]),
        (PLAIN, Branch(7, step=2), ["slice", "concat", "conv2d"]),
        (Branch(step=3), Branch(3, step=2), ["slice", "slice", "concat", "conv2d"]),
        (Branch(bias=False), PLAIN, ["concat", "conv2d"]),
        (Branch(bias=False), Branch(2, bias=False), ["concat", "conv2d"]),
    ],
)
def test_two_pointwise_convolutions_become_one(one: Branch, other: Branch, expected: list[str]) -> None:
    graph = summed(one, other, after=lambda make, y: make("relu", y))
    result = stacked(graph)
    assert ops(result) == [*expected, "relu"]
    assert {*sources_of(result)[0]} == {*sources_of(graph)[0]}
    inputs = random_inputs(graph)
    ((before, after),) = zip(*(run_graph(g, inputs).values() for g in (graph, result)), strict=True)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [Branch(kernel=3, pad=1), Branch(8, group=2), Branch(constant=False)],
    ids=["3 x 3", "grouped", "computed weights"],
)
def test_other_convolutions_stay(other: Branch) -> None:
    graph = summed(PLAIN, other)
    assert ops(stacked(graph)) == ops(graph)


def test_a_border_stays() -> None:
    graph = summed(replace(PLAIN, pad=1), PLAIN)
    assert ops(stacked(graph)) == ops(graph)


def test_what_others_read_stays() -> None:
    make = GraphMaker()
    one, other = PLAIN(make), PLAIN(make)
    total = make("add", one, other)
    read_again = make.graph(make("mul", total, other))
    assert ops(stacked(read_again)) == ops(read_again)
    given_out = make.graph(total, one)
    assert ops(stacked(given_out)) == ops(given_out)


def test_sums_of_other_things_stay() -> None:
    make = GraphMaker()
    one = PLAIN(make)
    graph = make.graph(make("add", one, make("relu", PLAIN(make))), make("add", PLAIN(make), make.random(8, 1, 1)))
    assert ops(stacked(graph)) == ops(graph)
