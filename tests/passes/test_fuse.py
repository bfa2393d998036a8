"""Fusion: what may share a kernel, what may not, and that it changes no value."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs, sources_of
from hypothesis import given, settings
from random_graphs import graphs

from birc.compiler.ir.graph import GROUP, Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.verify import verify_graph
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.fuse import LARGEST_GROUP, Fuse
from birc.compiler.passes.lower.lower import MOVEMENTS, VIEWS, is_element_wise_op
from birc.runtime.dtypes import dtype

CONV = {"stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1), "group": 1}


def groups(graph: Graph) -> list[list[str]]:
    """The ops of every kernel, in order; views are none."""
    fused = run_passes(graph, (Fuse(),))
    verify_graph(fused)
    return [
        [member.op for member in node.body.nodes] if node.body is not None else [node.op]
        for node in fused.nodes
        if node.op not in VIEWS
    ]


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


def test_value_with_two_readers_is_stored() -> None:
    make = GraphMaker()
    x = make("exp", make.input(4, 4))
    assert groups(make.graph(make("neg", x), make("relu", x))) == [["exp"], ["neg"], ["relu"]]


def test_output_is_stored() -> None:
    make = GraphMaker()
    x = make("exp", make.input(4, 4))
    assert groups(make.graph(x, make("neg", x))) == [["exp"], ["neg"]]


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
