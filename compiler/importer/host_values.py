"""Values that exist on the host alone, or whose shape is not known before they are computed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from birc.compiler.importer.host_call import one_node_model
from birc.compiler.importer.inference import inferred_values
from birc.compiler.importer.tensors import element_type, element_type_name, tensor_proto
from birc.compiler.ir.types import TensorType
from birc.runtime.variant import BoundaryTensor

_LARGEST_KNOWN_ELEMENTS = 4096


def boundary_tensor(name: str, type: onnx.TypeProto | TensorType | None) -> BoundaryTensor:
    """How the manifest of a package describes a value that is never on the device."""
    if isinstance(type, TensorType):
        shape = tuple(size if isinstance(size, int) else None for size in type.shape)
        return BoundaryTensor(name, type.dtype.name, shape, None)
    return BoundaryTensor(name, type_name(type), _shape(type), None)


def type_name(type: onnx.TypeProto | None) -> str:
    """`f32`, `string`, `seq(f32)`, `optional(seq(f32))`, `unknown()`: without the shape."""
    kind = type.WhichOneof("value") if type is not None else None
    if type is None or kind is None:
        return "unknown()"
    if kind == "tensor_type":
        found = element_type(type.tensor_type.elem_type)
        return element_type_name(type.tensor_type.elem_type) if found is None else found.name
    if kind == "sequence_type":
        return f"seq({type_name(type.sequence_type.elem_type)})"
    if kind == "optional_type":
        return f"optional({type_name(type.optional_type.elem_type)})"
    return f"{kind.removesuffix('_type')}()"


def _shape(type: onnx.TypeProto | None) -> tuple[int | None, ...] | None:
    if type is None or not type.HasField("tensor_type") or not type.tensor_type.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in type.tensor_type.shape.dim)


def inferred_types(
    proto: onnx.NodeProto,
    opsets: Mapping[str, int],
    types: Mapping[str, onnx.TypeProto],
    constants: Mapping[str, np.ndarray],
    functions: list[onnx.FunctionProto],
) -> dict[str, onnx.TypeProto]:
    """The types of the results of one node by onnx's shape inference, as far as it finds them.

    `types` are those of what it reads; `constants` those of them whose data is known. Raises `Refused` when it finds
    that the operands contradict the operator.
    """
    inputs = [onnx.ValueInfoProto(name=name, type=type) for name, type in types.items()]
    known = [tensor_proto(name, data) for name, data in constants.items() if data.size <= _LARGEST_KNOWN_ELEMENTS]
    model = one_node_model(proto, inputs, known, opsets, functions)
    is_known = all(name in types for name in proto.input if name)
    has_graphs = any(attribute.HasField("g") or attribute.graphs for attribute in proto.attribute)
    is_strict = is_known and not has_graphs and not proto.domain
    written = set(proto.output)
    found = (entry for entry in inferred_values(model, is_strict=is_strict) if entry.name in written)
    return {entry.name: entry.type for entry in found if entry.type.WhichOneof("value")}
