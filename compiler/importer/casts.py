"""Lowering of Cast and CastLike."""

from __future__ import annotations

from typing import Final

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.tensors import element_type, element_type_name
from birc.runtime.dtypes import DType
from birc.runtime.errors import BadModelError

ROUND_MODES: Final = ("up", "down", "nearest")
_WORD_BITS: Final = 32


def cast(build: GraphBuilder, x: str, to: DType) -> str:
    """`x` with elements of type `to`; itself when they are already."""
    return x if build.type_of(x).dtype == to else build.emit("cast", (x,), {"to": to})


def named_type(number: int) -> DType:
    """The element type that an attribute names by ONNX's number. Raises `CannotLower` for one of the host alone."""
    found = element_type(number)
    if found is None:
        raise CannotLower(f"element type {element_type_name(number)} is not on the device")
    return found


def _cast(node: OnnxNode, build: GraphBuilder) -> Results:
    return _converted(node, build, named_type(node.int_attribute("to", 0)))


def _cast_like(node: OnnxNode, build: GraphBuilder) -> Results:
    return _converted(node, build, build.type_of(node.input(1)).dtype)


def _converted(node: OnnxNode, build: GraphBuilder, to: DType) -> str:
    """The operator's own choices, where they matter.

    What floats become beyond the range of an integer is undefined; onnx's reference and onnxruntime keep the low bits,
    but for signed words.
    """
    x = node.input(0)
    source = build.type_of(x).dtype
    for entry in (source, to):
        if entry.device is None and build.constant_of(x) is None:
            raise CannotLower(f"no instruction loads or stores {entry.name}")
    saturate = bool(node.int_attribute("saturate", 1))
    round_mode = node.string_attribute("round_mode", "up")
    if round_mode not in ROUND_MODES:
        raise BadModelError(f"round_mode is {round_mode!r}, not one of {', '.join(ROUND_MODES)}", where=node.where)
    if source.is_float and to.is_integer and (to.bits < _WORD_BITS or to.kind == "uint"):
        saturate = False
    is_plain = saturate and (round_mode == "up" or to.name != "f8e8m0")
    if source == to or is_plain:
        return cast(build, x, to)
    return build.emit("convert", (x,), {"to": to, "saturate": int(saturate), "round_mode": round_mode})


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Cast", _cast),
    OpType("CastLike", _cast_like),
)
