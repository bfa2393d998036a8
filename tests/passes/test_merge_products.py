"""Products of one tensor that are split into heads: which become one, and that the values stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs, sources_of
from machines import with_quick_link
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


ERRORS = {"model": 2e-3, "fp32": 2e-5, "bf16": 2e-2}


@pytest.mark.parametrize(
    ("element", "precision", "bias"),
    [
        *(
            ("f32", precision, bias)
            for precision, bias in (("model", True), ("fp32", False), ("fp32", True), ("bf16", True))
        ),
        *(("f16", "model", False), ("bf16", "model", True)),
    ],
)
def test_values_on_two_dies(element: str, precision: str, bias: bool) -> None:
    """Each die has the columns of its heads, of all branches together, whatever products are rounded to."""
    make = GraphMaker()
    x = make.input(2, 5, 6, element=element)
    outputs = []
    for features in FEATURES:
        y = make("matmul", x, weights_of(make, element, 6, HEADS * features))
        if bias:
            y = make("add", y, weights_of(make, element, HEADS * features))
        outputs.append(make("transpose", make("reshape", y, shape=(2, 5, HEADS, features)), perm=(0, 2, 1, 3)))
    graph = make.graph(make("mul", outputs[0], outputs[2]), make("exp", outputs[1]))
    case = compile_graph(graph, with_quick_link("br100"), precision)
    assert sum(kernel.contraction is not None for kernel in case.kernels) == 2
    case.verify()
    inputs = random_inputs(graph)
    error = max(ERRORS[precision], {"f32": 0.0, "f16": 2e-3, "bf16": 2e-2}[element])
    values = case.values(inputs)
    for name, expected in run_graph(graph, inputs).items():
        wide = expected.astype(np.float64)
        np.testing.assert_allclose(values[name].astype(np.float64), wide, rtol=0, atol=error * np.abs(wide).max())


def weights_of(make: GraphMaker, element: str, *shape: int) -> str:
    drawn = np.random.default_rng([len(element), *shape]).uniform(-1, 1, shape)
    return make.constant(drawn, element)


@pytest.mark.parametrize("precision", ERRORS)
def test_attention_on_two_dies(precision: str) -> None:
    """Query, key and value of an attention of eight heads: each die has four, and a part of the weights."""
    make = GraphMaker()
    x = make.input(16, 64)
    query, key, value = (
        make("transpose", make("reshape", make("matmul", x, make.random(64, 64)), shape=(16, 8, 8)), perm=(1, 0, 2))
        for _ in range(3)
    )
    scores = make("mul", make("matmul", query, make("transpose", key, perm=(0, 2, 1))), make.constant(0.01))
    mixed = make("transpose", make("matmul", make("softmax", scores, axis=2), value), perm=(1, 0, 2))
    graph = make.graph(make("reshape", mixed, shape=(16, 64)))
    case = compile_graph(graph, with_quick_link("br100"), precision)
    (buffer,) = [buffer for buffer in case.plan.buffers if buffer.role == "constant"]
    assert len(buffer.part_offsets) == 2
    case.verify()
    inputs = random_inputs(graph)
    for values in (case.step(inputs, "random", 1), case.values(inputs)):
        for name, expected in run_graph(graph, inputs).items():
            np.testing.assert_allclose(values[name], expected, rtol=0, atol=ERRORS[precision] * np.abs(expected).max())


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
