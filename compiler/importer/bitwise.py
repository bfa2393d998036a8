"""Lowering of the ONNX ops on bits: logic and shifts of integers, and reinterpretation of whole elements."""

from __future__ import annotations

from typing import Final

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.lowering import OpType, Results, direct
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.tensors import element_type, element_type_name


def _shift(node: OnnxNode, build: GraphBuilder) -> Results:
    """Until operator set 27 only unsigned numbers, by less than their width; the row holds for all."""
    directions = {"LEFT": "shift_left", "RIGHT": "shift_right"}
    direction = node.string_attribute("direction", "")
    if direction not in directions:
        raise CannotLower(f"its direction is {direction!r}, neither LEFT nor RIGHT")
    return build.emit(directions[direction], node.inputs)


def _bit_cast(node: OnnxNode, build: GraphBuilder) -> Results:
    target = node.int_attribute("to", 0)
    found = element_type(target)
    if found is None:
        raise CannotLower(f"element type {element_type_name(target)} is not on the device")
    return build.emit("bitcast", (node.input(0),), {"to": found})


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("BitCast", _bit_cast),
    OpType("BitShift", _shift),
    OpType("BitwiseAnd", direct("bitwise_and")),
    OpType("BitwiseNot", direct("bitwise_not")),
    OpType("BitwiseOr", direct("bitwise_or")),
    OpType("BitwiseXor", direct("bitwise_xor")),
)
