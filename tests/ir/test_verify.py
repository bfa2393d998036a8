"""The verifier finds every kind of broken rule, and all of them at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.errors import InvalidIRError
from birc.compiler.ir.graph import Constant, Fate, Graph, Node, Value
from birc.compiler.ir.types import TensorType
from birc.compiler.ir.verify import verify_graph
from birc.runtime.dtypes import dtype

F32 = dtype("f32")
VECTOR = TensorType(F32, (4,))
CLIP = {"minimum": 0.0, "maximum": 6.0}


def valid() -> Graph:
    """exp, then clip, in a group with a constant factor."""
    editor = GraphEditor(Graph("net", (Value("x", VECTOR),), (), ()), "build")
    powers = editor.add("exp", ["x"], stem="powers", sources=["exp1"])
    factor = editor.add_constant(np.float32(2).reshape(()), "factor")
    scaled = editor.add("mul", [powers, factor], stem="scaled", sources=["mul1"])
    editor.outputs = [editor.add("clip", [scaled], CLIP, stem="held", sources=["clip1"])]
    graph = editor.finish()
    editor = GraphEditor(graph, "fuse")
    editor.group([graph.nodes[1], graph.nodes[2]], "vector")
    return editor.finish()


def change_node(place: int, **changes: object) -> Callable[[Graph], Graph]:
    def change(graph: Graph) -> Graph:
        nodes = list(graph.nodes)
        nodes[place] = nodes[place].replace(**changes)
        return graph.replace(nodes=tuple(nodes))

    return change


def change_body(**changes: object) -> Callable[[Graph], Graph]:
    def change(graph: Graph) -> Graph:
        body = graph.nodes[1].body
        assert body is not None
        return change_node(1, body=body.replace(**changes))(graph)

    return change


EXP, GROUP = 0, 1
BROKEN: list[tuple[str, Callable[[Graph], Graph], str]] = [
    ("undefined", change_node(EXP, inputs=("nobody",)), "%powers reads %nobody, which is not defined"),
    (
        "late",
        lambda graph: graph.replace(nodes=graph.nodes[::-1]),
        "%held reads %powers before it is defined",
    ),
    ("twice", lambda graph: graph.replace(nodes=(*graph.nodes, graph.nodes[0])), "%powers is defined twice"),
    (
        "constant and input",
        lambda graph: graph.replace(constants={**graph.constants, "x": Constant.splat(1, VECTOR)}),
        "%x is defined twice",
    ),
    ("nameless", change_node(EXP, outputs=(Value("", VECTOR),)), "an output has no name"),
    ("unknown op", change_node(EXP, op="power"), "%powers is of the unknown op 'power'"),
    ("arity", change_node(EXP, inputs=("x", "x")), "%powers: exp takes the inputs (x), not 2"),
    ("absent", change_node(EXP, inputs=("",)), "%powers: exp needs its input x"),
    ("attribute", change_node(EXP, attributes={"alpha": 1.0}), "%powers: exp has no attribute alpha"),
    ("body", lambda graph: change_node(EXP, body=graph.nodes[1].body)(graph), "%powers has a body"),
    (
        "type",
        change_node(EXP, outputs=(Value("powers", TensorType(F32, (5,))),)),
        "%powers is f32[5], exp gives f32[4]",
    ),
    (
        "type rule",
        lambda graph: graph.replace(inputs=(Value("x", TensorType(dtype("i32"), (4,))),)),
        "%powers: exp takes float elements",
    ),
    ("outputs", change_node(EXP, outputs=(Value("powers", VECTOR), Value("p2", VECTOR))), "exp gives 1"),
    ("output", lambda graph: graph.replace(outputs=("nothing",)), "output %nothing is not defined"),
    ("kind", change_node(GROUP, attributes={}), "%held: a group has a string attribute kind"),
    ("no body", change_node(GROUP, body=None), "%held: a group has a body"),
    ("group inputs", change_node(GROUP, inputs=("powers",)), "%held gives 1 inputs, its body takes 2"),
    (
        "group input type",
        change_node(GROUP, inputs=("factor", "powers")),
        "input %powers : f32[4] of the body of %held is given f32[]",
    ),
    ("group output", change_body(outputs=("scaled", "held")), "%held has 1 outputs, group gives 2"),
    (
        "group constants",
        change_body(constants={"c": Constant.splat(1, VECTOR)}),
        "the body of %held has constants of its own: c",
    ),
    ("group fates", change_body(fates=(Fate("a", "removed", "p"),)), "the body of %held has fates"),
    ("inside", change_body(nodes=()), "in the body of %held: output %held is not defined"),
    (
        "alive and gone",
        lambda graph: graph.replace(fates=(Fate("exp1", "removed", "p"),)),
        "source 'exp1' has a node and the fate removed",
    ),
    (
        "two fates",
        lambda graph: graph.replace(fates=(Fate("a", "removed", "p"), Fate("a", "folded", "p"))),
        "source 'a' has two fates",
    ),
]


def test_valid_graph_passes() -> None:
    verify_graph(valid())


def test_layouts_are_free() -> None:
    type = TensorType(F32, (2, 3))
    node = Node("neg", ("x",), (Value("y", type.with_layout((1, 0))),))
    verify_graph(Graph("net", (Value("x", type),), ("y",), (node,)))


@pytest.mark.parametrize(
    ("breaking", "message"), [(item[1], item[2]) for item in BROKEN], ids=[item[0] for item in BROKEN]
)
def test_each_broken_rule_is_found(breaking: Callable[[Graph], Graph], message: str) -> None:
    with pytest.raises(InvalidIRError) as caught:
        verify_graph(breaking(valid()))
    assert any(message in problem for problem in caught.value.problems), caught.value.problems
    assert message in caught.value.report


def test_all_problems_are_told_at_once_with_their_neighbours() -> None:
    graph = valid()
    for breaking in (
        change_node(EXP, inputs=("nobody",)),
        change_node(GROUP, attributes={}),
        lambda graph: graph.replace(outputs=("held", "nothing")),
    ):
        graph = breaking(graph)
    with pytest.raises(InvalidIRError) as caught:
        verify_graph(graph)
    error = caught.value
    assert len(error.problems) == 3
    assert error.exit_code == 1
    assert str(error).startswith("graph 'net', node %powers: %powers reads %nobody")
    assert str(error).endswith("and 2 more problems")
    marked = [line for line in error.report.splitlines() if line.startswith("->")]
    assert [line.split()[1] for line in marked] == ["%powers", "%held"]
    assert any(line.startswith("   %held") for line in error.report.splitlines())
