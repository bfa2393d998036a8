"""One ONNX node as a lowering sees it: inputs resolved, attributes decoded, operator set known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from birc.runtime.errors import BadModelError

OnnxAttribute = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | object


class CannotLower(Exception):
    """Why one node has no lowering; the reason is a phrase without a full stop."""


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """`inputs` are names of graph values ("" = absent), `outputs` the ONNX names of the results ("" =
    unused).
    """

    name: str
    op_type: str
    domain: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, OnnxAttribute]

    def input(self, position: int) -> str:
        """The value at `position`. Raises `BadModelError` when it is absent."""
        value = self.optional(position)
        if not value:
            raise BadModelError(f"{self.op_type} has no input {position}", where=self.where)
        return value

    def optional(self, position: int) -> str:
        """The value at `position`, "" when it is absent."""
        return self.inputs[position] if position < len(self.inputs) else ""

    def uses_output(self, position: int) -> bool:
        """Whether the model asks for the result at `position`."""
        return position < len(self.outputs) and self.outputs[position] != ""

    @property
    def where(self) -> str:
        """The node as a message names it."""
        return f"node {self.name!r}"

    def has(self, name: str) -> bool:
        """Whether the attribute is given."""
        return name in self.attributes

    def int_attribute(self, name: str, default: int) -> int:
        """An integer attribute, or its default."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise self._wrong(name, "an integer")
        return value

    def float_attribute(self, name: str, default: float | None = None) -> float:
        """A float attribute, or its default. Raises `BadModelError` when it is absent without one."""
        value = self.attributes.get(name, default)
        if not isinstance(value, float):
            raise self._wrong(name, "a float")
        return value

    def string_attribute(self, name: str, default: str) -> str:
        """A string attribute, or its default."""
        value = self.attributes.get(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def ints_attribute(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """An attribute that lists integers, or its default. Raises `BadModelError` when it is absent without
        one.
        """
        value = self.attributes.get(name, None if default is None else tuple(default))
        if not isinstance(value, tuple) or not all(isinstance(entry, int) for entry in value):
            raise self._wrong(name, "a list of integers")
        return value

    def _wrong(self, name: str, wanted: str) -> BadModelError:
        return BadModelError(f"attribute {name!r} of {self.op_type} must be {wanted}", where=self.where)


def decode_attributes(
    protos: Sequence[onnx.AttributeProto], given: Mapping[str, OnnxAttribute]
) -> dict[str, OnnxAttribute]:
    """Attribute values by name; inside a function body, references are looked up in `given`, and absent ones
    stay so.
    """
    decoded: dict[str, OnnxAttribute] = {}
    for proto in protos:
        if proto.ref_attr_name:
            if proto.ref_attr_name in given:
                decoded[proto.name] = given[proto.ref_attr_name]
        else:
            decoded[proto.name] = _decoded(onnx.helper.get_attribute_value(proto))
    return decoded


def _decoded(value: object) -> OnnxAttribute:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list):
        return tuple(_decoded(entry) for entry in value)
    return value
