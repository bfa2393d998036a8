"""Running graphs with the numpy meanings."""

from __future__ import annotations

import numpy as np
import pytest

from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import Graph, Node, Value
from birc.compiler.ir.interpreter import evaluate_node, run_graph
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError, UsageError

F32 = dtype("f32")
I64 = dtype("i64")


def mlp() -> Graph:
    """relu(x w) + relu(x w) of a symbolic batch."""
    editor = GraphEditor(Graph("mlp", (Value("x", TensorType(F32, ("N", 2))),), (), ()), "build")
    w = editor.add_constant(np.array([[1, -1], [2, 1]], np.float32), "w")
    hidden = editor.add("relu", [editor.add("matmul", ["x", w])])
    editor.outputs = [editor.add("add", [hidden, hidden], stem="y"), hidden]
    return editor.finish()


def test_values_and_repeated_outputs() -> None:
    x = np.array([[1, 2], [-3, 0], [0, 1]], np.float32)
    hidden = np.maximum(x @ np.array([[1, -1], [2, 1]], np.float32), 0)
    results = run_graph(mlp(), {"x": x})
    assert list(results) == ["y", "relu"]
    np.testing.assert_array_equal(results["relu"], hidden)
    np.testing.assert_array_equal(results["y"], 2 * hidden)


def test_inputs_and_constants_can_be_outputs() -> None:
    graph = mlp().replace(outputs=("x", "w", "w"))
    x = np.ones((1, 2), np.float32)
    results = run_graph(graph, {"x": x})
    assert results["x"] is x
    assert results["w"] is graph.constants["w"].data


def test_observer_sees_every_node_in_order() -> None:
    seen: list[str] = []
    run_graph(mlp(), {"x": np.ones((1, 2), np.float32)}, lambda node, results: seen.append(node.op))
    assert seen == ["matmul", "relu", "add"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "missing inputs: x .*the inputs are x"),
        ({"x": np.ones((1, 2), np.float32), "z": 1}, "unknown inputs: z"),
        ({"x": np.ones((1, 2))}, r"input x: is float64\[1, 2\], not f32\[N,2\]"),
        ({"x": np.ones((1, 3), np.float32)}, r"is float32\[1, 3\]"),
        ({"x": np.ones(2, np.float32)}, r"is float32\[2\]"),
    ],
)
def test_wrong_inputs_are_refused(inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_graph(mlp(), inputs)


def test_a_symbol_has_one_size() -> None:
    type = TensorType(F32, ("N",))
    node = Node("add", ("a", "b"), (Value("c", type),))
    graph = Graph("sum", (Value("a", type), Value("b", type)), ("c",), (node,))
    run_graph(graph, {"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)})
    with pytest.raises(UsageError, match="input b"):
        run_graph(graph, {"a": np.ones(3, np.float32), "b": np.ones(1, np.float32)})


def test_failure_on_data_names_the_node() -> None:
    node = Node("gather", ("x", "i"), (Value("y", TensorType(F32, (1,))),), {"axis": 0}, sources=("embedding",))
    with pytest.raises(BadModelError, match=r"node %y \(from embedding\): gather fails on its data: index 9"):
        evaluate_node(node, [np.ones(3, np.float32), np.array([9])])
