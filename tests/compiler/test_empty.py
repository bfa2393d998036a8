"""Tensors without elements: at the boundary, among the operands, as the only result; against onnx's reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from birc.compiler import compile_model
from birc.runtime import load

FULL = np.arange(6, dtype=np.float32).reshape(2, 3)
NONE = np.zeros((0, 3), np.float32)
DEEP = np.zeros((4, 0), np.float32)
NODES: Mapping[str, tuple[Sequence[onnx.NodeProto], Mapping[str, np.ndarray]]] = {
    "part of a concat": ([helper.make_node("Concat", ["x", "e"], ["y"], axis=0)], {"x": FULL, "e": NONE}),
    "beside a result": (
        [helper.make_node("Add", ["e", "e"], ["y"]), helper.make_node("Relu", ["x"], ["z"])],
        {"x": FULL, "e": NONE},
    ),
    "the only result": ([helper.make_node("Add", ["e", "e"], ["y"])], {"e": NONE}),
    "given out as it comes": ([helper.make_node("Identity", ["e"], ["y"])], {"e": NONE}),
    "sum of nothing": ([helper.make_node("ReduceSum", ["e"], ["y"], keepdims=0)], {"e": NONE}),
    "product over nothing": ([helper.make_node("MatMul", ["a", "e"], ["y"])], {"a": DEEP, "e": NONE}),
    "only its type counts": (
        [helper.make_node("CastLike", ["x", "like"], ["y"])],
        {"x": FULL, "like": np.zeros(0, ml_dtypes.int4)},
    ),
}


def _model(nodes: Sequence[onnx.NodeProto], given: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in given.items()
    ]
    results = [name for node in nodes for name in node.output]
    graph = helper.make_graph(nodes, "empty", inputs, [onnx.ValueInfoProto(name=name) for name in results])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for output, found in zip(model.graph.output, inferred.graph.output, strict=True):
        output.CopyFrom(found)
    return model


@pytest.mark.parametrize("name", NODES)
def test_what_has_no_elements_lies_nowhere(name: str) -> None:
    nodes, given = NODES[name]
    model = _model(nodes, given)
    package = compile_model(model)
    assert package is not None
    session = load(package)
    actual = session.run(given)
    expected = ReferenceEvaluator(model).run(None, dict(given))
    for output, wanted in zip(model.graph.output, expected, strict=True):
        assert actual[output.name].dtype == wanted.dtype
        np.testing.assert_array_equal(actual[output.name], wanted)
    assert session.profile().latency_us >= 0
