"""Running passes: what a pass breaks is found at once and told with the pass's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs

from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.errors import TypeRuleError
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.passes.base import Pass, PassResult, finish_edit, run_pass, run_passes
from birc.compiler.passes.eliminate_dead import EliminateDead
from birc.compiler.passes.rules import Rewriter, Rule, apply_rules
from birc.runtime.errors import InternalError


@dataclass(frozen=True)
class Doing(Pass):
    """Does what it is told."""

    name: ClassVar[str] = "doing"
    action: Callable[[Graph], PassResult]

    def run(self, graph: Graph) -> PassResult:
        return self.action(graph)


def simple() -> Graph:
    make = GraphMaker()
    return make.graph(make("neg", make("exp", make.input(2, 3))))


def fail(action: Callable[[Graph], PassResult], *words: str) -> None:
    with pytest.raises(InternalError) as caught:
        run_passes(simple(), (Doing(action),))
    for word in ("Doing", *words):
        assert word in str(caught.value)


def test_broken_graph_names_pass_and_node() -> None:
    def drop_first(graph: Graph) -> PassResult:
        return PassResult(graph.replace(nodes=graph.nodes[1:]), True)

    fail(drop_first, "broke the graph", "%v1", "v0")


def test_changed_without_saying_so() -> None:
    fail(lambda graph: PassResult(graph.replace(name="other"), False), "did not change")
    fail(lambda graph: PassResult(graph, True), "changed")


def test_renamed_output() -> None:
    fail(lambda graph: PassResult(graph.replace(outputs=("v0",)), True), "renamed outputs")


def test_changed_inputs() -> None:
    def add_input(graph: Graph) -> PassResult:
        make = GraphMaker()
        make.input(1)
        make.input(1)
        return PassResult(graph.replace(inputs=(*graph.inputs, make.graph().inputs[1])), True)

    fail(add_input, "changed the inputs")


def test_error_inside_a_pass() -> None:
    def refuse(graph: Graph) -> PassResult:
        raise TypeRuleError("shapes do not match", where="%v0")

    fail(refuse, "failed", "shapes do not match", "%v0")


def test_callback_sees_every_pass() -> None:
    seen: list[tuple[str, bool]] = []
    graph = simple()
    result = run_passes(
        graph,
        (EliminateDead(), EliminateDead()),
        lambda step, before, after: seen.append((step.name, after.changed)),
    )
    assert seen == [("eliminate_dead", False)] * 2
    assert result is graph


def aliased(*outputs: str) -> Graph:
    """Two identity reshapes: of an input and of a node."""
    make = GraphMaker()
    x = make.input(2, 3)
    made = make("exp", x)
    make("reshape", x, shape=(2, 3))
    make("reshape", made, shape=(2, 3))
    make("reshape", make.constant(np.ones((2, 3))), shape=(2, 3))
    return make.graph(*outputs)


@pytest.mark.parametrize(
    "outputs", [("v1",), ("v2",), ("v3",), ("v0", "v2"), ("v2", "v1", "v0"), ("v3", "v3"), ("v2", "v2")]
)
def test_outputs_keep_their_names_through_replacement(outputs: tuple[str, ...]) -> None:
    graph = aliased(*outputs)
    editor = GraphEditor(graph, "test")
    for node in graph.nodes[1:]:
        editor.replace(node, node.inputs[0])

    def replaced(graph: Graph) -> PassResult:
        return PassResult(finish_edit(editor, graph), True)

    result = run_pass(Doing(replaced), graph)
    assert result.graph.outputs == outputs
    inputs = random_inputs(graph)
    for name, actual in run_graph(result.graph, inputs).items():
        np.testing.assert_array_equal(actual, run_graph(graph, inputs)[name])


def test_rules_that_run_in_circles_are_named() -> None:
    def swap(rewriter: Rewriter, node: object) -> str | None:
        """a + b = b + a"""
        root = rewriter.producer(rewriter.editor.outputs[0], "add")
        return rewriter.emit("add", root.inputs[::-1], replaces=(root,)) if root is not None else None

    make = GraphMaker()
    graph = make.graph(make("add", make.input(3), make.input(3)))
    with pytest.raises(InternalError, match=r"do not come to an end: swap"):
        apply_rules(graph, (Rule("swap", "add", swap),), "test")


def test_rule_that_adds_and_then_refuses_is_a_bug() -> None:
    def half_done(rewriter: Rewriter, node: object) -> str | None:
        """nothing"""
        root = rewriter.producer(rewriter.editor.outputs[0], "add")
        if root is not None:
            rewriter.emit("add", root.inputs, replaces=(root,))
        return None

    make = GraphMaker()
    graph = make.graph(make("add", make.input(3), make.input(3)))
    with pytest.raises(InternalError, match="half-done"):
        apply_rules(graph, (Rule("half-done", "add", half_done),), "test")
