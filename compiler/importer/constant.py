"""Lowering of ops whose result is known at import: constants, shapes, ranges."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.tensors import element_type, element_type_name, tensor_array
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import DType, from_numpy
from birc.runtime.errors import BadModelError


def _constant(node: OnnxNode, build: GraphBuilder) -> Results:
    """The value is in one of several attributes, by its kind."""
    given = node.attributes
    if isinstance(given.get("value"), onnx.TensorProto):
        return build.constant(_attribute_array(node, "value"))
    for name, numpy_type in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if name in given:
            return build.constant(np.asarray(given[name], numpy_type))
    raise CannotLower(f"a constant given as {', '.join(given) or 'nothing'} is not a dense tensor of numbers")


def _attribute_array(node: OnnxNode, name: str) -> np.ndarray:
    tensor = node.attributes[name]
    if not isinstance(tensor, onnx.TensorProto):
        raise BadModelError(f"attribute {name!r} of {node.op_type} must be a tensor", where=node.where)
    _device_type(tensor.data_type)
    return tensor_array(tensor, None)


def _device_type(onnx_type: int) -> DType:
    found = element_type(onnx_type)
    if found is None:
        raise CannotLower(f"element type {element_type_name(onnx_type)} is not on the device")
    return found


def _constant_of_shape(node: OnnxNode, build: GraphBuilder) -> Results:
    shape = build.required_constant(node.input(0), "shape")
    fill = _attribute_array(node, "value").reshape(()) if node.has("value") else np.zeros((), np.float32)
    wanted = TensorType(from_numpy(fill.dtype), tuple(int(size) for size in shape))
    return build.splat(fill, wanted)


def _shape(node: OnnxNode, build: GraphBuilder) -> Results:
    shape = build.shape(node.input(0))
    start, end = node.int_attribute("start", 0), node.int_attribute("end", len(shape))
    return build.constant(np.array(shape[start:end], np.int64))


def _size(node: OnnxNode, build: GraphBuilder) -> Results:
    return build.constant(np.array(build.type_of(node.input(0)).num_elements, np.int64))


def _range(node: OnnxNode, build: GraphBuilder) -> Results:
    start, limit, delta = (
        build.required_constant(node.input(place), name).reshape(())
        for place, name in enumerate(("start", "limit", "delta"))
    )
    if delta == 0:
        raise BadModelError("the step of Range is 0", where=node.where)
    count = max(int(np.ceil((limit - start) / delta)), 0)
    return build.constant((start + np.arange(count).astype(start.dtype) * delta).astype(start.dtype))


def _eye_like(node: OnnxNode, build: GraphBuilder) -> Results:
    like = build.type_of(node.input(0))
    kind = _device_type(node.int_attribute("dtype", 0)) if node.has("dtype") else like.dtype
    rows, columns = like.sizes
    return build.constant(np.eye(rows, columns, node.int_attribute("k", 0)).astype(kind.numpy))


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Constant", _constant),
    OpType("ConstantOfShape", _constant_of_shape),
    OpType("EyeLike", _eye_like),
    OpType("Range", _range),
    OpType("Shape", _shape),
    OpType("Size", _size),
)
