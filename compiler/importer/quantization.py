"""Lowering of QuantizeLinear and DequantizeLinear: for the whole tensor, along an axis, or in blocks."""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast, named_type
from birc.compiler.importer.floats import F32
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape, slice_axis
from birc.runtime.dtypes import DType, dtype
from birc.runtime.errors import BadModelError

U8: Final = dtype("u8")
_LARGEST_WIDTH: Final = 16
"""Bits of the integers that `quantize` makes."""


def _quantize(node: OnnxNode, build: GraphBuilder) -> Results:
    """saturate(x / scale + zero point), divided in the type of the scale unless `precision` names another."""
    x, scale, zero = node.input(0), node.input(1), node.optional(2)
    to = _result_type(node, build.type_of(zero).dtype if zero else U8)
    divided = _named_type(node, "precision") or build.type_of(scale).dtype
    shape = build.shape(x)
    x, scale = _floats(build, x, divided), _spread(node, build, _floats(build, scale, divided), shape)
    spread = _spread(node, build, zero, shape) if zero else ""
    if to.is_integer and to.bits <= _LARGEST_WIDTH:
        return build.emit("quantize", (x, scale, spread) if spread else (x, scale), {"to": to})
    if not to.is_float or to.bits > 8:
        raise CannotLower(f"quantises to {to.name}")
    quotient = build.emit("div", (x, scale))
    if zero and not _is_zero(build, zero):
        quotient = build.emit("add", (quotient, cast(build, spread, build.type_of(quotient).dtype)))
    saturate = node.int_attribute("saturate", 1)
    return build.emit("convert", (quotient,), {"to": to, "saturate": int(bool(saturate)), "round_mode": "up"})


def _dequantize(node: OnnxNode, build: GraphBuilder) -> Results:
    """(x - zero point) * scale, in the type of the scale unless `output_dtype` names another."""
    x, scale, zero = node.input(0), node.input(1), node.optional(2)
    to = _named_type(node, "output_dtype") or build.type_of(scale).dtype
    shape = build.shape(x)
    scale = _spread(node, build, _floats(build, scale, to), shape)
    zeros = (_spread(node, build, zero, shape),) if zero and not _is_zero(build, zero) else ()
    return build.emit("dequantize", (x, scale, *zeros))


def _named_type(node: OnnxNode, attribute: str) -> DType | None:
    """The element type that an attribute names; None where it is absent or 0. Raises `CannotLower`."""
    number = node.int_attribute(attribute, 0)
    return named_type(number) if number else None


def _result_type(node: OnnxNode, default: DType) -> DType:
    named = _named_type(node, "output_dtype")
    if named is not None and node.optional(2) and named != default:
        raise BadModelError(f"output_dtype is {named.name}, the zero point {default.name}", where=node.where)
    return named or default


def _floats(build: GraphBuilder, x: str, to: DType) -> str:
    """A value in a type in which quotients and products are computed: floats wider than 8 bits."""
    if to.name == "f64":
        raise CannotLower("no instruction computes in f64")
    return cast(build, x, to if to.is_float and to.bits > 8 else F32)


def _is_zero(build: GraphBuilder, name: str) -> bool:
    known = build.constant_of(name)
    return known is not None and not np.any(known.astype(np.float32))


def _spread(node: OnnxNode, build: GraphBuilder, x: str, shape: tuple[int, ...]) -> str:
    """A scale or zero point as one that broadcasts to `shape`."""
    own, rank = build.shape(x), len(shape)
    if all(size == 1 for size in own):
        return reshape(build, x, ())
    block = node.int_attribute("block_size", 0)
    axis = positive_axis(node, node.int_attribute("axis", 1), rank) if rank > 1 else 0
    if len(own) == 1 and not block:
        if own[0] != shape[axis]:
            raise BadModelError(f"{own[0]} scales for axis {axis} of {list(shape)}", where=node.where)
        return reshape(build, x, tuple(own[0] if place == axis else 1 for place in range(rank)))
    blocks = -(-shape[axis] // block) if block else 0
    if own != tuple(blocks if place == axis else size for place, size in enumerate(shape)):
        raise BadModelError(f"scales {list(own)} in blocks of {block} for {list(shape)}", where=node.where)
    apart = reshape(build, x, (*own[: axis + 1], 1, *own[axis + 1 :]))
    repeated = build.emit("expand", (apart,), {"shape": (*own[: axis + 1], block, *own[axis + 1 :])})
    whole = reshape(build, repeated, (*own[:axis], blocks * block, *own[axis + 1 :]))
    return slice_axis(build, whole, axis, 0, shape[axis])


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("DequantizeLinear", _dequantize, since=10),
    OpType("QuantizeLinear", _quantize, since=10),
)
