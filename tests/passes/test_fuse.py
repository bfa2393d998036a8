"""Fusion: what may share a kernel, what may not, and that it changes no value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fused_groups import groups
from graph_maker import GraphMaker, random_inputs, sources_of
from hypothesis import given, settings
from random_graphs import graphs

from birc.compiler.ir.graph import GROUP, Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.verify import verify_graph
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.fuse import LARGEST_GROUP, MOST_BEFORE_SOFTMAX, Fuse, fuse_for
from birc.compiler.passes.lower.lower import MOVEMENTS, VIEWS, is_element_wise_op
from birc.runtime.dtypes import dtype
from birc.runtime.machine import load_machine

CONV = {"stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1), "group": 1}


def test_chain_becomes_one_kernel() -> None:
    make = GraphMaker()
    x = make.input(4, 4)
    assert groups(make.graph(make("neg", make("exp", make("relu", x))))) == [["relu", "exp", "neg"]]


def test_convolution_takes_batch_norm_leftovers_and_residual() -> None:
    make = GraphMaker()
    x = make.input(1, 4, 5, 5)
    first = make("conv2d", x, make.random(4, 4, 3, 3), **CONV)
    second = make("conv2d", make("relu", first), make.random(4, 4, 3, 3), **CONV)
    scaled = make("mul", second, make.random(4, 1, 1))
    result = make("relu", make("add", scaled, x))
    assert groups(make.graph(result)) == [["conv2d", "relu"], ["conv2d", "mul", "add", "relu"]]


@pytest.mark.parametrize("through_view", [False, True])
@pytest.mark.parametrize("branch_first", [False, True])
def test_sum_of_a_branch_joins_the_end_of_the_longer_way(branch_first: bool, through_view: bool) -> None:
    """The product beside the chain waits for nothing, so that it can run while the chain does."""
    make = GraphMaker()
    x = make.input(4, 4)
    beside = make("matmul", x, make.random(4, 4)) if branch_first else ""
    inner = make("relu", make("matmul", x, make.random(4, 4)))
    seen = make("transpose", inner, perm=(1, 0)) if through_view else inner
    long = make("matmul", seen, make.random(4, 4))
    beside = beside or make("matmul", x, make.random(4, 4))
    graph = make.graph(make("relu", make("add", long, beside)))
    fused = run_passes(graph, (Fuse(),)).nodes
    ops = {node.name: [member.op for member in node.body.nodes] for node in fused if node.body is not None}
    assert list(ops.values()) == [["matmul", "relu"], ["matmul", "add", "relu"]]
    last = next(node for node in fused if node.name == list(ops)[1])
    assert seen in last.inputs


def test_sum_of_two_products_joins_the_later_one() -> None:
    make = GraphMaker()
    a, b = make.input(4, 4), make.input(4, 4)
    total = make("add", make("matmul", a, b), make("matmul", b, a))
    assert groups(make.graph(total)) == [["matmul"], ["matmul", "add"]]


def test_norms_take_what_comes_before_and_after() -> None:
    make = GraphMaker()
    x = make.input(4, 8)
    scaled = make("add", make("mul", x, make.constant(0.5)), make.input(4, 8))
    assert groups(make.graph(make("neg", make("softmax", scaled, axis=1)))) == [["mul", "add", "softmax", "neg"]]


def test_value_of_an_anchor_with_two_readers_is_read_from_memory() -> None:
    make = GraphMaker()
    x = make("matmul", make.input(4, 4), make.random(4, 4))
    assert groups(make.graph(make("neg", x), make("relu", x))) == [["matmul"], ["neg"], ["relu"]]


def test_output_of_an_anchor_is_read_from_memory() -> None:
    make = GraphMaker()
    x = make("softmax", make.input(4, 4), axis=1)
    assert groups(make.graph(x, make("neg", x))) == [["softmax"], ["neg"]]


def test_broadcast_of_a_result_is_not_fused() -> None:
    make = GraphMaker()
    x = make("exp", make.input(1, 4))
    assert groups(make.graph(make("add", x, make.input(3, 4)))) == [["exp"], ["add"]]


def test_nothing_follows_a_reduction() -> None:
    make = GraphMaker()
    total = make("reduce_sum", make("exp", make.input(3, 4)), axes=(1,), keepdims=1)
    assert groups(make.graph(make("log", total))) == [["exp", "reduce_sum"], ["log"]]


def test_views_and_movements_stay_outside() -> None:
    make = GraphMaker()
    x = make("relu", make.input(3, 4))
    moved = make("transpose", x, perm=(1, 0))
    padded = make("pad", make("neg", moved), pads=(0, 0, 1, 1), value=0.0)
    assert groups(make.graph(make("exp", padded))) == [["relu"], ["neg"], ["pad"], ["exp"]]


@pytest.mark.parametrize(("element", "together"), [("i8", False), ("i32", True), ("i64", True), ("f16", True)])
def test_integers_that_wrap_when_stored_end_a_group(element: str, together: bool) -> None:
    make = GraphMaker()
    x = make.input(4, element=element)
    total = make("add", x, make.constant(100, element))
    assert (len(groups(make.graph(make("neg", total)))) == 1) == together


def test_long_chain_is_cut() -> None:
    make = GraphMaker()
    x = make.input(4, 4)
    for _ in range(2 * LARGEST_GROUP + 1):
        x = make("neg", x)
    assert [len(ops) for ops in groups(make.graph(x))] == [LARGEST_GROUP, LARGEST_GROUP, 1]


@settings(max_examples=150, deadline=None)
@given(graph=graphs(max_nodes=12))
def test_random_graph_keeps_its_values(graph: Graph) -> None:
    fused = run_passes(graph, (Fuse(),))
    verify_graph(fused)
    inputs = random_inputs(graph)
    expected = run_graph(graph, inputs)
    for name, actual in run_graph(fused, inputs).items():
        np.testing.assert_array_equal(actual, expected[name])
    alive, gone = sources_of(fused)
    assert sorted((*alive, *gone)) == sorted(source for node in graph.nodes for source in node.sources)
    for node in fused.nodes:
        if node.op == GROUP and node.body is not None:
            anchors = [member for member in node.body.nodes if not is_element_wise_op(member.op)]
            assert len(anchors) <= 1
            assert not {member.op for member in node.body.nodes} & (VIEWS | MOVEMENTS.keys())


def test_what_makes_the_other_operand_of_one_tensor_comes_along() -> None:
    make = GraphMaker()
    x, y, z = make.input(4, 4), make.input(4, 4), make.input(4, 4)
    product = make("relu", make("matmul", x, y))
    assert groups(make.graph(make("add", product, make("exp", make("neg", z))))) == [
        ["matmul", "relu", "neg", "exp", "add"]
    ]


def test_what_reads_two_tensors_for_the_other_operand_stays_apart() -> None:
    make = GraphMaker()
    x, y, z = make.input(4, 4), make.input(4, 4), make.input(4, 4)
    product = make("matmul", x, y)
    assert groups(make.graph(make("add", product, make("mul", y, z)))) == [["mul"], ["matmul", "add"]]


def test_quantised_values_may_be_used_before_they_are_stored() -> None:
    make = GraphMaker()
    scale, zero = make.constant(0.5), make.constant(3, "u8")
    whole = make("quantize", make.input(4, 4), scale, zero, to=dtype("u8"))
    assert groups(make.graph(make("relu", make("dequantize", whole, scale, zero)))) == [
        ["quantize", "dequantize", "relu"]
    ]


def kinds(graph: Graph, fuse: Fuse) -> list[str]:
    """The anchors of every kernel, in order."""
    fused = fuse.run(graph).graph
    verify_graph(fused)
    return [str(node.attributes.get("kind", node.op)) for node in fused.nodes if node.op not in VIEWS]


WHOLE_ROWS = Fuse(tile_columns=64, row_tiles=16, operand_bytes=1 << 18)
Build = Callable[[GraphMaker, str], str]


def over_columns(make: GraphMaker, scores: str) -> str:
    return make("softmax", make("mul", scores, make.constant(0.5)), axis=2)


def over_rows(make: GraphMaker, scores: str) -> str:
    return make("softmax", scores, axis=1)


def read_elsewhere(make: GraphMaker, scores: str) -> str:
    return make("add", make("softmax", scores, axis=2), make("relu", scores))


def read_twice(make: GraphMaker, scores: str) -> str:
    return make("mul", make("softmax", scores, axis=2), scores)


def through_a_view(make: GraphMaker, scores: str) -> str:
    return make("softmax", make("transpose", scores, perm=(0, 2, 1)), axis=2)


def as_logarithm(make: GraphMaker, scores: str) -> str:
    return make("log_softmax", scores, axis=2)


def after_many(make: GraphMaker, scores: str) -> str:
    for _ in range(MOST_BEFORE_SOFTMAX):
        scores = make("neg", scores)
    return make("softmax", scores, axis=2)


def after_as_many_as_may_be(make: GraphMaker, scores: str) -> str:
    for _ in range(MOST_BEFORE_SOFTMAX - 1):
        scores = make("neg", scores)
    return make("softmax", scores, axis=2)


def after_another(make: GraphMaker, scores: str) -> str:
    return make("softmax", make("softmax", scores, axis=2), axis=2)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (over_columns, ["matmul+softmax"]),
        (after_as_many_as_may_be, ["matmul+softmax"]),
        (after_another, ["matmul+softmax", "softmax"]),
        (over_rows, ["matmul", "softmax"]),
        (read_elsewhere, ["matmul", "softmax"]),
        (read_twice, ["matmul", "softmax"]),
        (through_a_view, ["matmul", "softmax"]),
        (as_logarithm, ["matmul", "log_softmax"]),
        (after_many, ["matmul", "softmax"]),
    ],
    ids=lambda entry: entry.__name__ if callable(entry) else "",
)
def test_a_softmax_over_the_columns_joins_its_product(build: Build, expected: list[str]) -> None:
    make = GraphMaker()
    scores = make("matmul", make.input(2, 5, 16), make.input(2, 16, 192))
    assert kinds(make.graph(build(make, scores)), WHOLE_ROWS) == expected


def test_scores_that_are_given_out_are_stored() -> None:
    make = GraphMaker()
    scores = make("matmul", make.input(5, 16), make.input(16, 192))
    assert kinds(make.graph(make("softmax", scores, axis=1), scores), WHOLE_ROWS) == ["matmul", "softmax"]


@pytest.mark.parametrize("columns", range(1, 400, 7))
def test_a_softmax_joins_where_tiles_fill_a_row(columns: int) -> None:
    make = GraphMaker()
    scores = make("matmul", make.input(5, 16), make.input(16, columns))
    tiles = math.ceil(columns / 64)
    joins = columns % tiles == 0
    graph = make.graph(make("softmax", scores, axis=1))
    assert kinds(graph, WHOLE_ROWS) == (["matmul+softmax"] if joins else ["matmul", "softmax"])


@pytest.mark.parametrize(
    ("fuse", "joins"),
    [
        (WHOLE_ROWS, True),
        (replace(WHOLE_ROWS, row_tiles=3), True),
        (replace(WHOLE_ROWS, row_tiles=2), False),
        (replace(WHOLE_ROWS, operand_bytes=3 * 64 * (16 + 64) * 4), True),
        (replace(WHOLE_ROWS, operand_bytes=3 * 64 * (16 + 64) * 4 - 1), False),
        (replace(WHOLE_ROWS, operand_bytes=3 * 64 * (16 + 64) * 4, element_bytes=12), False),
        (fuse_for(load_machine("br100"), "bf16"), True),
        (fuse_for(load_machine("tiny"), "model"), False),
        (Fuse(), False),
    ],
)
def test_a_softmax_joins_where_registers_and_input_buffers_hold_a_row(fuse: Fuse, joins: bool) -> None:
    make = GraphMaker()
    scores = make("matmul", make.input(5, 16), make.input(16, 192))
    graph = make.graph(make("softmax", scores, axis=1))
    assert kinds(graph, fuse) == (["matmul+softmax"] if joins else ["matmul", "softmax"])


def test_rows_may_have_no_elements() -> None:
    make = GraphMaker()
    scores = make("matmul", make.input(5, 16), make.input(16, 0))
    assert "+".join(kinds(make.graph(make("softmax", scores, axis=1)), WHOLE_ROWS)) == "matmul+softmax"
