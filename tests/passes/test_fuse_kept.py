"""Groups that store values between their nodes, which others read: who joins them, and what they compute."""

from __future__ import annotations

import numpy as np
import pytest
from fused_groups import groups
from graph_maker import GraphMaker, random_inputs
from pipeline import compile_graph

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.passes.fuse import LARGEST_GROUP


def recurrence(rounds: int, size: int = 4) -> Graph:
    """Every state is scaled and shifted for the next one, and read by a product."""
    make = GraphMaker()
    state, weights, given = make.input(size, 8), make.random(8, 3), []
    for _ in range(rounds):
        state = make("add", make("mul", state, make.input(size, 8)), make.input(size, 8))
        given.append(make("matmul", state, weights))
    return make.graph(*given, state)


def residual(rows: int, columns: int) -> Graph:
    """The sum of a residual block: the norm of the next block reads it, and the sum behind that."""
    make = GraphMaker()
    total = make("add", make.input(rows, columns), make.input(rows, columns))
    norm = make("layer_norm", total, make.random(columns), make.random(columns), axis=1, epsilon=1e-5)
    moved = make("transpose", norm, perm=(1, 0))
    again = make("transpose", make("pad", moved, pads=(0, 0, 0, 0), value=0.0), perm=(1, 0))
    return make.graph(make("add", total, again), norm)


def siblings() -> Graph:
    make = GraphMaker()
    x = make("exp", make.input(3, 4))
    return make.graph(make("neg", x), make("relu", make("mul", x, make.input(3, 4))), x)


def test_readers_of_one_value_and_the_value_are_one_kernel() -> None:
    assert groups(siblings()) == [["exp", "neg", "mul", "relu"]]


def test_states_of_a_recurrence_are_stored_on_the_way() -> None:
    rounds = LARGEST_GROUP // 2 + 1
    kernels = [ops for ops in groups(recurrence(rounds)) if ops != ["matmul"]]
    assert kernels == [["mul", "add"] * (rounds - 1), ["mul", "add"]]


def test_a_norm_joins_the_sum_that_others_read() -> None:
    assert groups(residual(4, 8)) == [["add", "layer_norm"], ["pad"], ["add"]]


def test_a_reduction_reads_what_others_read_from_memory() -> None:
    make = GraphMaker()
    x = make("exp", make.input(3, 4))
    total = make("reduce_sum", x, axes=(1,), keepdims=1)
    assert groups(make.graph(x, total)) == [["exp"], ["reduce_sum"]]


def variance() -> Graph:
    """Deviations that others read, too, and the mean of their squares."""
    make = GraphMaker()
    deviation = make("sub", make.input(3, 4), make.input(3, 1))
    return make.graph(deviation, make("reduce_mean", make("mul", deviation, deviation), axes=(1,), keepdims=1))


def test_a_reduction_reads_what_follows_a_stored_value_from_memory() -> None:
    assert groups(variance()) == [["sub", "mul"], ["reduce_mean"]]


def test_what_waits_for_a_reader_stays_apart() -> None:
    """Together they would need what is made of their own result."""
    make = GraphMaker()
    x = make("exp", make.input(4, 4))
    product = make("matmul", x, make.random(4, 4))
    graph = make.graph(make("neg", make("add", x, make("transpose", product, perm=(1, 0)))))
    assert groups(graph) == [["exp"], ["matmul"], ["add", "neg"]]


def test_nobody_waits_for_a_longer_way() -> None:
    make = GraphMaker()
    x, y = (
        make("exp", make.input(4, 4)),
        make("transpose", make("matmul", make.input(4, 4), make.random(4, 4)), perm=(1, 0)),
    )
    longer = make("transpose", make("relu", y), perm=(1, 0))
    assert groups(make.graph(x, make("mul", x, longer))) == [["exp"], ["matmul"], ["relu"], ["mul"]]


def test_a_value_and_a_view_of_it_are_read_from_memory() -> None:
    make = GraphMaker()
    x = make("exp", make.input(4, 4))
    assert groups(make.graph(make("add", x, make("transpose", x, perm=(1, 0))))) == [["exp"], ["add"]]


@pytest.mark.parametrize("order", ["sequential", "random"])
@pytest.mark.parametrize(
    "graph",
    [siblings(), variance(), recurrence(3), recurrence(15, 70), residual(5, 40), residual(3, 4099)],
    ids=["siblings", "variance", "short", "long", "norm", "rows longer than a tile"],
)
def test_values_are_those_of_single_kernels(graph: Graph, order: str) -> None:
    inputs = random_inputs(graph)
    expected = run_graph(graph, inputs)
    for fuse in (True, False):
        compiled = compile_graph(graph, fuse=fuse)
        compiled.verify()
        actual = compiled.step(inputs, "random" if order == "random" else "sequential")
        for name, reference in expected.items():
            scale = float(np.abs(reference).max()) + 1.0
            np.testing.assert_allclose(actual[name], reference, atol=2e-3 * scale)


def test_states_lie_where_the_concatenation_of_all_wants_them() -> None:
    make = GraphMaker()
    state, states = make.input(1, 6, 8), []
    for _ in range(4):
        state = make("add", make("tanh", state), make.input(1, 6, 8))
        states.append(state)
    graph = make.graph(make("concat", *states, axis=0))
    compiled = compile_graph(graph)
    compiled.verify()
    assert len({kernel.name for kernel in compiled.kernels}) == 1
    inputs = random_inputs(graph)
    (expected,) = run_graph(graph, inputs).values()
    (actual,) = compiled.step(inputs).values()
    np.testing.assert_allclose(actual, expected, atol=1e-5)
