"""What the host computes while a model is imported: its values, its constants, and its calls in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.host_call import HostCall, host_call, host_problem
from birc.compiler.importer.host_values import inferred_types
from birc.compiler.importer.inference import Refused
from birc.compiler.importer.limits import check_value_size
from birc.compiler.importer.lookahead import Declared, Shape
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.tensors import element_type, element_type_name, onnx_type, static_type
from birc.compiler.ir.types import TensorType
from birc.runtime.errors import BadModelError, UnsupportedError

MOST_HOST_BYTES: Final = 2**33
"""Of one value that the host computes."""


class HostSide:
    """The counterpart of the graph builder. Values with a known shape are known to the builder as well."""

    def __init__(self, build: GraphBuilder, functions: Sequence[onnx.FunctionProto]) -> None:
        self._build = build
        self._functions = list(functions)
        self._types: dict[str, onnx.TypeProto | None] = {}
        self._tensors: dict[str, onnx.TensorProto] = {}
        self.calls: list[HostCall] = []

    def add_value(self, name: str, type: onnx.TypeProto | None) -> None:
        """A value that only the host has, of a type that may be open."""
        self._types[name] = type

    def add_tensor(self, tensor: onnx.TensorProto) -> None:
        """A constant that the device cannot hold: strings, complex numbers."""
        kind = onnx.helper.make_tensor_type_proto(tensor.data_type, tuple(tensor.dims))
        self._types[tensor.name] = kind
        self._tensors[tensor.name] = tensor

    def is_only_here(self, name: str) -> bool:
        """Whether the value cannot be an operand of a device node."""
        return name in self._types

    def is_tensor(self, name: str) -> bool:
        """Whether the value is a constant that the device cannot hold."""
        return name in self._tensors

    def rename(self, name: str, new: str) -> str:
        """Give a value another name in all calls, and as a constant of the host; returns it."""
        self.calls[:] = [call.renamed({name: new}) for call in self.calls]
        if name in self._tensors:
            self._tensors[new], self._types[new] = self._tensors.pop(name), self._types.pop(name)
        return new

    def why_only_here(self, name: str) -> str:
        """The reason why a node that reads the value runs on the host too."""
        type = self._types[name]
        if type is None:
            return f"the type of {name!r} is open"
        if not type.HasField("tensor_type"):
            return f"{name!r} is a {(type.WhichOneof('value') or 'value').removesuffix('_type')}"
        kind = element_type_name(type.tensor_type.elem_type)
        if kind == "string" or kind.startswith("complex"):
            return f"{name!r} holds {kind} values"
        return f"the shape of {name!r} is only known at run time"

    def type_of(self, name: str) -> onnx.TypeProto | TensorType | None:
        """The type of a value on either side, None where it is open."""
        return self._types[name] if name in self._types else self._build.type_of(name)

    def constants(self) -> dict[str, np.ndarray | onnx.TensorProto]:
        """The data that sub-models can take along."""
        return {**self._build.constants, **self._tensors}

    def place(
        self,
        proto: onnx.NodeProto,
        node: OnnxNode,
        values: Mapping[str, str],
        opsets: Mapping[str, int],
        prefix: str,
        declared: Declared,
        reason: str,
    ) -> tuple[str, ...]:
        """Run `node` on the host for `reason`; the names of its results. Raises `CannotLower` when it cannot."""
        outputs = [self._fresh(f"{prefix}{name}", bool(prefix)) if name else "" for name in node.outputs]
        call = host_call(proto, node, values, outputs, opsets, reason, self._build.num_nodes)
        problem = host_problem(call.proto, opsets, self._functions)
        if problem:
            raise CannotLower(f"not on the device ({reason}), and the host cannot run it: {problem}")
        self.calls.append(call)
        try:
            found = self._inferred(call)
        except Refused as refusal:
            where = f"{node.where} ({node.op_type})"
            raise BadModelError(f"onnx refuses its operands: {refusal}", where=where) from None
        for name, output in zip(outputs, node.outputs, strict=True):
            if name:
                self._type(name, found.get(name), declared(output), node.where)
        return tuple(outputs)

    def _fresh(self, wanted: str, is_inner: bool) -> str:
        taken = self._build.has_type(wanted) or wanted in self._types
        return self._build.unique(wanted) if taken or is_inner else wanted

    def _type(self, name: str, inferred: onnx.TypeProto | None, declared: Shape | None, where: str) -> None:
        static = static_type(inferred) or _shaped(inferred, declared)
        if static is not None:
            check_value_size(static, where)
            if static.num_bytes > MOST_HOST_BYTES:
                what = f"{name!r} takes {static.num_bytes} bytes, a value on the host at most {MOST_HOST_BYTES}"
                raise UnsupportedError(what, where=where)
        if static is None:
            self._types[name] = inferred
            self._build.reserve(name)
        else:
            self._build.add_unknown(name, static)

    def _inferred(self, call: HostCall) -> dict[str, onnx.TypeProto]:
        types = {}
        for name in call.reads:
            type = self.type_of(name)
            proto = onnx_type(type) if isinstance(type, TensorType) else type
            if proto is not None:
                types[name] = proto
        known = ((name, self._build.constant_of(name)) for name in call.reads if self._build.is_constant(name))
        constants = {name: data for name, data in known if data is not None}
        return inferred_types(call.proto, call.opsets, types, constants, self._functions)


def _shaped(type: onnx.TypeProto | None, shape: Shape | None) -> TensorType | None:
    """The type of a tensor of numbers with a shape that the model declares."""
    if shape is None or type is None or not type.HasField("tensor_type"):
        return None
    found = element_type(type.tensor_type.elem_type)
    return None if found is None else TensorType(found, shape)
