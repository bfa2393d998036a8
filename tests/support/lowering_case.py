"""One ONNX node as a test of its lowering: the model, its inputs, and what they are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

F32 = np.float32
I64 = np.int64


@dataclass(frozen=True)
class Case:
    """One node: arrays are graph inputs, `known` ones are initialisers by position.

    `oracle` is who says what is right: onnxruntime, or onnx's own reference where onnxruntime lacks the operator.
    `shapes` are those that the model declares for its results, where inference cannot find them; `kinds` likewise the
    types, FP32 unless told.
    """

    op: str
    inputs: tuple[np.ndarray | None, ...]
    opset: int = 18
    outputs: int = 1
    known: tuple[int, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    domain: str = ""
    oracle: str = "onnxruntime"
    tolerance: float = 2e-5
    shapes: tuple[tuple[int, ...], ...] = ()
    domain_version: int = 1
    kinds: tuple[Any, ...] = ()

    def model(self) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
        names = [f"i{place}" if array is not None else "" for place, array in enumerate(self.inputs)]
        results = [f"o{place}" for place in range(self.outputs)]
        node = helper.make_node(self.op, names, results, name="the_node", domain=self.domain, **self.attributes)
        given = {
            name: array
            for place, (name, array) in enumerate(zip(names, self.inputs, strict=True))
            if array is not None and place not in self.known
        }
        constants = [numpy_helper.from_array(self.inputs[place], names[place]) for place in self.known]
        declared = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in given.items()
        ]
        graph = helper.make_graph(
            [node], "one_node", declared, [onnx.ValueInfoProto(name=name) for name in results], constants
        )
        opsets = [helper.make_opsetid("", self.opset)]
        if self.domain:
            opsets.append(helper.make_opsetid(self.domain, self.domain_version))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        for output, found in zip(model.graph.output, inferred.graph.output, strict=True):
            known_type = found.type.HasField("tensor_type")
            output.CopyFrom(found if known_type else _float_output(output.name))
        for output, kind in zip(model.graph.output, self.kinds, strict=False):
            output.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        for output, shape in zip(model.graph.output, self.shapes, strict=False):
            kind = output.type.tensor_type.elem_type
            output.CopyFrom(helper.make_tensor_value_info(output.name, kind, shape))
        return model, given


def _float_output(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)


def f32(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return np.random.default_rng(list(shape)).uniform(low, high, shape).astype(F32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, I64)


def flags(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).integers(0, 2, shape).astype(np.bool_)


def case(op: str, *inputs: np.ndarray | None, known: tuple[int, ...] = (), opset: int = 18, outputs: int = 1,
         domain: str = "", oracle: str = "onnxruntime", tolerance: float = 2e-5,
         shapes: tuple[tuple[int, ...], ...] = (), kinds: tuple[Any, ...] = (),
         **attributes: Any) -> Case:  # fmt: skip
    return Case(op, inputs, opset, outputs, known, attributes, domain, oracle, tolerance, shapes, kinds=kinds)
