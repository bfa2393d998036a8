"""Products of one tensor that are split into heads: which become one, and that the values stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs, sources_of
from pipeline import compile_graph

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.verify import verify_graph
from birc.compiler.passes.merge_products import MergeProducts

FEATURES = (3, 2, 3)
HEADS = 4


def branch(make: GraphMaker, x: str, features: int, bias: bool, heads: int = HEADS) -> str:
    """x @ weights (+ bias), split into heads."""
    y = make("matmul", x, make.random(6, heads * features))
    if bias:
        y = make("add", y, make.random(heads * features))
    return make("reshape", y, shape=(2, 5, heads, features))


def merged(graph: Graph) -> Graph:
    """What the pass makes of a graph."""
    result = MergeProducts().run(graph)
    verify_graph(result.graph)
    assert not MergeProducts().run(result.graph).changed
    return result.graph


def products(graph: Graph) -> int:
    """The number of products."""
    return sum(node.op == "matmul" for node in graph.nodes)


@pytest.mark.parametrize("bias", [False, True])
def test_branches_with_the_same_heads_become_one_product(bias: bool) -> None:
    make = GraphMaker()
    x = make.input(2, 5, 6)
    graph = make.graph(*(branch(make, x, features, bias) for features in FEATURES))
    result = merged(graph)
    assert products(result) == 1
    assert {*sources_of(result)[0]} == {*sources_of(graph)[0]}
    inputs = random_inputs(graph)
    expected, actual = (list(run_graph(g, inputs).values()) for g in (graph, result))
    for one, other in zip(expected, actual, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-6)


def test_each_die_computes_whole_heads() -> None:
    make = GraphMaker()
    x = make.input(2, 5, 6)
    query, key = (branch(make, x, 3, bias=True) for _ in range(2))
    graph = make.graph(make("mul", query, key))
    compiled = compile_graph(graph, "tiny")
    inputs = random_inputs(graph)
    (expected,), (actual,) = run_graph(graph, inputs).values(), compiled.values(inputs).values()
    np.testing.assert_allclose(actual, expected, rtol=2e-3, atol=2e-3)


def with_other_heads(make: GraphMaker, x: str) -> tuple[str, ...]:
    return branch(make, x, 3, bias=False), branch(make, x, 6, bias=False, heads=2)


def of_other_tensors(make: GraphMaker, x: str) -> tuple[str, ...]:
    return branch(make, x, 3, bias=False), branch(make, make.input(2, 5, 6), 3, bias=False)


def read_elsewhere(make: GraphMaker, x: str) -> tuple[str, ...]:
    y, z = (make("matmul", x, make.random(6, 12)) for _ in range(2))
    return (*(make("reshape", v, shape=(2, 5, 4, 3)) for v in (y, z)), make("relu", y), make("relu", z))


def activated(make: GraphMaker, x: str) -> tuple[str, ...]:
    return tuple(
        make("reshape", make("relu", make("matmul", x, make.random(6, 12))), shape=(2, 5, 4, 3)) for _ in range(2)
    )


def by_tensors(make: GraphMaker, x: str) -> tuple[str, ...]:
    return tuple(make("reshape", make("matmul", x, make.input(6, 12)), shape=(2, 5, 4, 3)) for _ in range(2))


@pytest.mark.parametrize(
    "build", [with_other_heads, of_other_tensors, read_elsewhere, activated, by_tensors], ids=lambda b: b.__name__
)
def test_others_stay_apart(build: Callable[[GraphMaker, str], tuple[str, ...]]) -> None:
    make = GraphMaker()
    graph = make.graph(*build(make, make.input(2, 5, 6)))
    assert not MergeProducts().run(graph).changed
