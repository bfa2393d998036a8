"""What a model declares of its values, completed by ONNX's own shape inference."""

from __future__ import annotations

import onnx

from birc.compiler.importer.isolation import Ended, isolated
from birc.compiler.importer.read import ReadModel
from birc.compiler.importer.tensors import static_type
from birc.compiler.ir.graph import Value
from birc.compiler.ir.types import TensorType

_INFERRED_BYTES = 2**30  # shape inference serialises the model, which protobuf limits to 2 GiB


class Refused(Exception):
    """Why onnx's shape inference says that a model cannot be."""


class InferredTypes:
    """Types of the model's values by shape inference, which runs at the first question only.

    The symbols of the inputs' dimensions have their sizes wherever the model declares them.
    """

    def __init__(self, model: ReadModel, inputs: tuple[Value, ...]) -> None:
        self._model = model
        self._inputs = inputs
        self._types: dict[str, TensorType] | None = None
        self._missing: set[str] = set()

    def mark_missing(self, value: str) -> None:
        """Remember that the type of `value` is not known."""
        self._missing.add(value)

    def is_missing(self, value: str) -> bool:
        """Whether the type of `value` is not known, so that nodes that read it cannot be tried."""
        return value in self._missing

    def type_of(self, name: str) -> TensorType | None:
        """The static type of the model's value `name`; None when inference does not find it."""
        if self._types is None:
            self._types = self._infer()
        return self._types.get(name)

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """The sizes of the model's value `name`; None when they are not all known."""
        found = self.type_of(name)
        return None if found is None else found.sizes

    def _infer(self) -> dict[str, TensorType]:
        if self._model.proto.ByteSize() > _INFERRED_BYTES:
            return {}
        fixed = onnx.ModelProto()
        fixed.CopyFrom(self._model.proto)
        sizes = {value.name: value.type.shape for value in self._inputs}
        symbols: dict[str, int] = {}
        for entry in fixed.graph.input:
            for dim, size in zip(entry.type.tensor_type.shape.dim, sizes.get(entry.name, ()), strict=False):
                if isinstance(size, str):
                    dim.dim_param = size
                    continue
                if dim.dim_param:
                    symbols[dim.dim_param] = size
                dim.dim_value = size
        for entry in (*fixed.graph.value_info, *fixed.graph.output):
            for dim in entry.type.tensor_type.shape.dim:
                if dim.dim_param in symbols:
                    dim.dim_value = symbols[dim.dim_param]
        known = inferred_values(fixed)
        found = ((entry.name, static_type(entry.type)) for entry in known)
        return {name: type for name, type in found if type is not None}


def inferred_values(model: onnx.ModelProto, *, is_strict: bool = False) -> list[onnx.ValueInfoProto]:
    """What onnx's shape inference finds of the values of `model`; nothing where it fails, crashes or takes too long.

    Raises `Refused` where it `is_strict` and what it knows of the operands contradicts an operator.
    """

    def infer() -> bytes:
        try:
            graph = onnx.shape_inference.infer_shapes(model, is_strict, is_strict, data_prop=True).graph
        except Exception as error:  # several types; without an answer nothing is known
            return onnx.GraphProto(doc_string=str(error) or "unknown reason").SerializeToString()
        values = (*graph.value_info, *graph.output)
        return onnx.GraphProto(value_info=values).SerializeToString()

    try:
        found = onnx.GraphProto.FromString(isolated(infer, model.ByteSize()))
    except Ended:
        return []
    if is_strict and found.doc_string:
        raise Refused(found.doc_string)
    return list(found.value_info)


def declared_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """The shapes that an inner graph itself gives for its values, where they leave nothing open."""
    found = ((entry.name, static_type(entry.type)) for entry in (*graph.value_info, *graph.output))
    return {name: type.sizes for name, type in found if type is not None}
