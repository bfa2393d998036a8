"""Editing graphs: uses follow, names stay unique, and no ONNX node name is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import graphs

from birc.compiler.ir.edit import GraphEditor, make_node
from birc.compiler.ir.errors import InvalidIRError, TypeRuleError
from birc.compiler.ir.graph import Fate, Graph, Node, Value
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.printer import print_graph
from birc.compiler.ir.topology import find_cycle, is_convex, is_ordered, topological_order
from birc.compiler.ir.types import TensorType
from birc.compiler.ir.verify import verify_graph
from birc.runtime.dtypes import dtype

F32 = dtype("f32")
VECTOR = TensorType(F32, (4,))


def chain() -> Graph:
    """relu(exp(neg(x))) and, beside it, the sum of exp and relu."""
    editor = GraphEditor(Graph("net", (Value("x", VECTOR),), (), ()), "build")
    a = editor.add("neg", ["x"], stem="a", sources=["neg1"])
    b = editor.add("exp", [a], stem="b", sources=["exp1"])
    c = editor.add("relu", [b], stem="c", sources=["relu1"])
    editor.outputs = [c, editor.add("add", [b, c], stem="d", sources=["add1"])]
    return editor.finish()


def named(graph: Graph, name: str) -> Node:
    node = graph.producer(name)
    assert node is not None
    return node


def test_unchanged_graph_stays_the_same() -> None:
    assert print_graph(GraphEditor(chain(), "nothing").finish()) == print_graph(chain())


def test_replace_moves_all_uses_and_records_the_fate() -> None:
    graph = chain()
    editor = GraphEditor(graph, "pass")
    editor.replace(named(graph, "c"), "b")
    result = editor.finish()
    verify_graph(result)
    assert result.outputs == ("b", "d")
    assert named(result, "d").inputs == ("b", "b")
    assert result.fates == (Fate("relu1", "merged", "pass", "b"),)


def test_new_nodes_come_before_their_anchor_and_carry_sources_on() -> None:
    graph = chain()
    relu = named(graph, "c")
    editor = GraphEditor(graph, "pass")
    clip = editor.add("clip", ["b"], {"minimum": 0.0, "maximum": 1.0}, before=relu, sources=relu.sources)
    first = editor.add("abs", ["b"], before=editor.producer(clip), stem="b")
    editor.update(editor.producer(clip), inputs=(first,))  # type: ignore[arg-type]
    editor.replace(relu, clip)
    result = editor.finish()
    verify_graph(result)
    assert [node.name for node in result.nodes] == ["a", "b", "b.1", "clip", "d"]
    assert result.fates == ()


def test_nodes_are_put_in_order_of_execution() -> None:
    graph = chain()
    editor = GraphEditor(graph, "pass")
    late = editor.add("abs", ["x"])
    editor.replace_uses("a", late)
    result = editor.finish()
    verify_graph(result)
    assert [node.name for node in result.nodes] == ["a", "abs", "b", "c", "d"]


def test_silently_lost_sources_count_as_removed() -> None:
    graph = chain()
    editor = GraphEditor(graph, "pass")
    editor.update(named(graph, "a"), sources=())
    assert editor.finish().fates == (Fate("neg1", "removed", "pass"),)


def test_used_nodes_cannot_be_dropped() -> None:
    editor = GraphEditor(chain(), "pass")
    for name in ("b", "c"):
        with pytest.raises(InvalidIRError, match=f"%{name} is still used"):
            editor.drop(name)


def test_values_of_other_types_cannot_stand_in() -> None:
    editor = GraphEditor(chain(), "pass")
    other = editor.add_constant(np.zeros(5, np.float32))
    with pytest.raises(InvalidIRError, match=r"cannot stand for %b : f32\[4\]"):
        editor.replace_uses("b", other)


def test_outputs_cannot_be_renamed_nor_names_taken() -> None:
    graph = chain()
    editor = GraphEditor(graph, "pass")
    with pytest.raises(InvalidIRError, match="rename the outputs"):
        editor.update(named(graph, "a"), outputs=(Value("other", VECTOR),))
    with pytest.raises(InvalidIRError, match="already a value"):
        editor.insert(named(graph, "a"))
    with pytest.raises(InvalidIRError, match="no value %nobody"):
        editor.type_of("nobody")


def test_folding_puts_constants() -> None:
    graph = chain()
    editor = GraphEditor(graph, "fold")
    editor.fold(named(graph, "a"), [np.ones(4, np.float32)])
    result = editor.finish()
    verify_graph(result)
    assert named(result, "b").inputs == ("a.folded",)
    assert result.fates == (Fate("neg1", "folded", "fold", "a.folded"),)


def test_unused_nodes_and_constants_go() -> None:
    graph = chain()
    editor = GraphEditor(graph, "dead")
    editor.add_constant(np.zeros(3, np.float32), "unused")
    editor.outputs = ["b"]
    assert editor.drop_unused() == 2
    result = editor.finish()
    assert [node.name for node in result.nodes] == ["a", "b"]
    assert result.constants == {}
    assert {fate.source for fate in result.fates} == {"relu1", "add1"}


def test_cycles_are_named() -> None:
    graph = chain()
    editor = GraphEditor(graph, "pass")
    editor.update(named(graph, "b"), inputs=("d",))
    with pytest.raises(InvalidIRError, match=r"need each other: .*%b"):
        editor.finish()
    assert set(find_cycle(editor.nodes)) <= {"b", "c", "d"}
    assert find_cycle(graph.nodes) == ()


def test_convexity() -> None:
    graph = chain()
    a, b, c, d = graph.nodes
    assert is_convex(graph.nodes, [b, c, d])
    assert is_convex(graph.nodes, [a, b])
    assert not is_convex(graph.nodes, [b, d])
    assert not is_convex(graph.nodes, [a, c])


def test_make_node_checks_and_fills_in() -> None:
    with pytest.raises(TypeRuleError, match="attribute minimum is missing"):
        make_node("clip", ("x",), (VECTOR,), ("y",))
    node = make_node("neg", ("x",), (VECTOR,), ("y",), sources=("a", "b", "a"))
    assert node.outputs == (Value("y", VECTOR),)
    assert node.sources == ("a", "b")


@given(graphs(), st.data())
@settings(max_examples=60, deadline=None)
def test_grouping_any_tail_keeps_the_values(graph: Graph, data: st.DataObject) -> None:
    """The last nodes of a graph are always convex: nothing comes back into them."""
    chosen = graph.nodes[data.draw(st.integers(0, len(graph.nodes) - 1)) :]
    used = [node for node in chosen if any(graph.users(v.name) or v.name in graph.outputs for v in node.outputs)]
    if not any(value.name in graph.outputs for node in used for value in node.outputs):
        return
    editor = GraphEditor(graph, "fuse")
    editor.group(chosen, "any")
    result = editor.finish()
    verify_graph(result)
    inputs = {value.name: np.ones(value.type.sizes, np.float32) for value in graph.inputs}
    before, after = run_graph(graph, inputs), run_graph(result, inputs)
    for name in graph.outputs:
        np.testing.assert_array_equal(before[name], after[name])
    sources = {source for node in graph.nodes for source in node.sources}
    assert sources == {source for node in result.nodes for source in node.sources}


@given(graphs(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_any_order_of_nodes_is_put_right(graph: Graph, random: object) -> None:
    nodes = list(graph.nodes)
    random.shuffle(nodes)  # type: ignore[attr-defined]
    ordered = topological_order(nodes)
    assert is_ordered(ordered)
    verify_graph(graph.replace(nodes=ordered))
