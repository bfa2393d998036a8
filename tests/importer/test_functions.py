"""Functions of models: recursion, depth, size; attributes that refer to those of the caller."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import helper, parser

from birc.compiler.importer.bodies import captured_names
from birc.compiler.importer.functions import check_functions, local_functions
from birc.compiler.importer.importer import import_model
from birc.compiler.ir.interpreter import run_graph
from birc.runtime.errors import BadModelError, UnsupportedError

OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("l", 1)]
X = np.array([-1.5, 2.5], np.float32)


def function(name: str, callees: Sequence[str], inside: bool = False) -> onnx.FunctionProto:
    """A function that calls others one after the other, perhaps from the branch of an If, and negates."""
    names = ["a", *(f"v{place}" for place in range(len(callees)))]
    calls = [
        helper.make_node(callee, [names[place]], [names[place + 1]], domain="l") for place, callee in enumerate(callees)
    ]
    if inside:
        branch = helper.make_graph(calls, "branch", [], [onnx.ValueInfoProto(name=names[-1])])
        condition = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", 9, (), [1]))
        calls = [condition, helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch)]
        names.append("w")
    return helper.make_function("l", name, ["a"], ["b"], [*calls, helper.make_node("Neg", names[-1:], ["b"])], OPSETS)


def model(*functions: onnx.FunctionProto) -> onnx.ModelProto:
    node = helper.make_node("f0", ["x"], ["y"], domain="l")
    types = [helper.make_tensor_value_info(name, 1, [2]) for name in "xy"]
    graph = helper.make_graph([node], "calls", types[:1], types[1:])
    return helper.make_model(graph, functions=functions, opset_imports=OPSETS, ir_version=8)


def check(made: onnx.ModelProto) -> None:
    check_functions(local_functions(made), made.graph)


@pytest.mark.parametrize(
    ("functions", "cycle"),
    [
        ([function("f0", ["f0"])], "f0 -> f0"),
        ([function("f0", ["f1"]), function("f1", ["f2", "f2"]), function("f2", ["f1", "f0"])], "f1 -> f2 -> f1"),
        ([function("f0", ["f1"]), function("f1", ["f0"], inside=True)], "f0 -> f1 -> f0"),
    ],
)
def test_recursion_is_refused(functions: list[onnx.FunctionProto], cycle: str) -> None:
    with pytest.raises(BadModelError, match=f"calls itself: {cycle}") as caught:
        check(model(*functions))
    assert caught.value.exit_code == 3
    with pytest.raises(BadModelError):
        import_model(model(*functions))


def test_calls_may_be_deep_up_to_a_limit() -> None:
    chain = [function(f"f{place}", [f"f{place + 1}"]) for place in range(60)]
    graph = import_model(model(*chain, function("f60", [])))
    np.testing.assert_array_equal(run_graph(graph, {"x": X})["y"], -X)


def test_calls_that_are_too_deep_are_refused() -> None:
    chain = [function(f"f{place}", [f"f{place + 1}"]) for place in range(10_000)]
    with pytest.raises(UnsupportedError, match="calls others more than 64 deep"):
        check(model(*chain, function("f10000", [])))


def test_functions_that_stand_for_too_many_nodes_are_refused() -> None:
    doubling = [function(f"f{place}", [f"f{place + 1}"] * 2) for place in range(40)]
    with pytest.raises(UnsupportedError, match="stand for 2199023255551 nodes, at most 100000"):
        import_model(model(*doubling, function("f40", [])))


def test_graphs_inside_of_each_other_have_a_limit() -> None:
    made = onnx.ModelProto()
    graph = made.graph
    for _ in range(3_000):
        attribute = graph.node.add(op_type="If").attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        graph = attribute.g
    graph.node.add(op_type="Neg")
    with pytest.raises(UnsupportedError, match="graphs inside of nodes are more than 64 deep"):
        check(made)


NESTED = """
    <ir_version: 10, opset_import: ["" : 18, "local" : 1]>
    calls (float[2] x, bool c) => (float[2] y, float[2] z) {
        y = local.outer <scale = 3.0> (x, c)
        z = local.outer (x, c)
    }
    <domain: "local", opset_import: ["" : 18, "local" : 1]>
    outer <scale: float = 2.0> (v, c) => (r) {
        r = If (c) <
            then_branch = g1 () => (float[2] t) { k = Constant <value_float: float = @scale> () t = Mul(v, k) },
            else_branch = g2 () => (float[2] e) { e = local.inner <factor: float = @scale> (v) }
        >
    }
    <domain: "local", opset_import: ["" : 18]>
    inner <factor: float> (v) => (r) { k = Constant <value_float: float = @factor> () r = Sub(v, k) }
"""


@pytest.mark.parametrize("taken", [False, True])
def test_graphs_inside_of_functions_see_their_attributes(taken: bool) -> None:
    actual = run_graph(import_model(parser.parse_model(NESTED)), {"x": X, "c": np.array(taken)})
    for name, scale in (("y", 3), ("z", 2)):
        np.testing.assert_array_equal(actual[name], X * scale if taken else X - scale)


def test_captured_names_are_those_that_inner_graphs_read_and_do_not_define() -> None:
    made = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        outer (float[2] x, float[2] w, int64 m, bool c) => (float[2] y) {
            y = Loop (m, c, x) <body = b (int64 i, bool d, float[2] v) => (bool e, float[2] u) <float k = {2.0}> {
                e = Identity(c)
                p = Mul(v, k)
                u = If (d) <
                    then_branch = g1 () => (float[2] t) { t = Add(p, w) },
                    else_branch = g2 () => (float[2] f) { p2 = Neg(x) f = Add(p2, q) }
                >
            }>
        }
    """)
    assert captured_names(made.graph.node[0]) == ("c", "w", "x", "q")
