"""Rules that multiply quantised operands as the integers that they are, and scale the sums.

(a - za) sa times (b - zb) sb, summed, is the integer product of a and b, less what the zero points add to it, times
sa sb. Scales and zero points may differ along rows and columns, not along what is summed over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from birc.compiler.ir.attributes import integers
from birc.compiler.ir.graph import Node
from birc.compiler.passes.rules import Rewriter, Rule
from birc.compiler.passes.rules_unsigned_products import (
    I8,
    I32,
    NARROW,
    padded_explicitly,
    shifted_to_signed,
    window_sums,
)
from birc.runtime.dtypes import dtype

F32: Final = dtype("f32")
_SAME_SCALE: Final = 1e-6
"""Two scales that differ by so little are one: the product of two FP32 scales is rounded."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """An operand: i8 value (its bits shifted, if it was u8), scale, and zero point with as many dimensions."""

    value: str
    scale: str
    zero: np.ndarray
    node: Node


def integer_matrix_product(rewriter: Rewriter, node: Node) -> str | None:
    """matmul(dequantize(a), dequantize(b)) = (matmul(a, b) - what the zero points add) * scales"""
    a_name, b_name = node.inputs
    rank_a, rank_b = rewriter.type_of(a_name).rank, rewriter.type_of(b_name).rank
    if not (_matches(rewriter, a_name, (rank_a - 1,)) and _matches(rewriter, b_name, (rank_b - 2,))):
        return None
    a, b = _operand(rewriter, node, a_name), _operand(rewriter, node, b_name)
    made = (node, a.node, b.node)
    sums = rewriter.emit("matmul", (a.value, b.value), replaces=made)
    if a.zero.any():
        depth = rewriter.sizes(a_name)[-1]
        columns = _sums(rewriter, node, b.value, (rank_b - 2,), depth * b.zero, a.zero)
        sums = rewriter.emit("sub", (sums, columns), replaces=made)
    if b.zero.any():
        rows = _sums(rewriter, node, a.value, (rank_a - 1,), np.zeros(1, np.int64), b.zero)
        sums = rewriter.emit("sub", (sums, rows), replaces=made)
    scale = _product_of_scales(rewriter, node, a.scale, b.scale)
    return _scaled(rewriter, made, sums, scale)


def integer_convolution(rewriter: Rewriter, node: Node) -> str | None:
    """conv2d(dequantize(x), dequantize(w), bias) = (conv2d(x, w) - what the zero points add) * scales + bias"""
    x_name, w_name, *bias = node.inputs
    if not (_matches(rewriter, x_name, (0, 1, 2, 3)) and _matches(rewriter, w_name, (1, 2, 3))):
        return None
    x, w = _operand(rewriter, node, x_name), _operand(rewriter, node, w_name)
    made = (node, x.node, w.node)
    scale = _per_channel(rewriter, node, _product_of_scales(rewriter, node, x.scale, w.scale))
    attributes, value = dict(node.attributes), x.value
    zero = int(x.zero.reshape(-1)[0])
    if zero and any(integers(node.attributes, "pads")):
        value = padded_explicitly(rewriter, node, value, zero)
        attributes["pads"] = (0, 0, 0, 0)
    # Sums that lose a zero point are large and cancel: they take the bias as an integer too.
    whole_bias = _integer_bias(rewriter, bias[0], scale) if bias and zero else None
    shift = _channel_shift(rewriter, node, w, zero, whole_bias)
    sums = rewriter.emit("conv2d", (value, w.value, shift) if shift else (value, w.value), attributes, replaces=made)
    if w.zero.any():
        windows = window_sums(rewriter, node, value, attributes)
        zeros = rewriter.add_constant(w.zero.reshape(1, -1, 1, 1).astype(np.int32), f"{node.name}.zeros")
        sums = rewriter.emit("sub", (sums, rewriter.emit("mul", (windows, zeros), replaces=made)), replaces=made)
    result = _scaled(rewriter, made, sums, scale)
    if not bias or whole_bias is not None:
        return result
    return rewriter.emit("add", (result, _per_channel(rewriter, node, bias[0])), replaces=made)


def signed_quantisation(rewriter: Rewriter, node: Node) -> str | None:
    """dequantize(quantize(x, s, z) to u8, t, y) = dequantize(quantize(x, s, z - 128) to i8, t, y - 128)"""
    quantize = rewriter.producer(node.inputs[0], "quantize")
    if quantize is None or quantize.output.type.dtype.name != "u8":
        return None
    zeros = [_zero_points(rewriter, each) for each in (quantize, node)]
    if any(zero is None for zero in zeros):
        return None
    names = [
        rewriter.add_constant((zero - 128).astype(np.int8), f"{node.name}.zero") for zero in zeros if zero is not None
    ]
    made = (node, quantize)
    value = rewriter.emit("quantize", (*quantize.inputs[:2], names[0]), {"to": I8}, replaces=made)
    return rewriter.emit("dequantize", (value, node.inputs[1], names[1]), replaces=made)


def _matches(rewriter: Rewriter, name: str, summed: tuple[int, ...]) -> bool:
    """Whether a value is dequantised from 8 bits to f32, evenly along the axes that are summed over."""
    node = rewriter.producer(name, "dequantize")
    if node is None or node.output.type.dtype != F32 or rewriter.type_of(node.inputs[0]).dtype.name not in NARROW:
        return False
    zero, rank = _zero_points(rewriter, node), rewriter.type_of(name).rank
    if zero is None:
        return False
    shapes = [_ranked(shape, rank) for shape in (rewriter.sizes(node.inputs[1]), zero.shape)]
    return all(shape[axis] == 1 for shape in shapes for axis in summed)


def _ranked(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (1,) * (rank - len(shape)) + shape


def _zero_points(rewriter: Rewriter, node: Node) -> np.ndarray | None:
    """The zero points of a quantize or dequantize, 0 where it has none; None when they are computed."""
    if len(node.inputs) < 3 or not node.inputs[2]:
        return np.zeros((), np.int64)
    constant = rewriter.constant(node.inputs[2])
    return np.asarray(constant.data).astype(np.int64) if constant is not None else None


def _operand(rewriter: Rewriter, node: Node, name: str) -> Quantised:
    """The operand whose dequantised value is `name`. Of a constant, the zero point goes where 8 bits allow it."""
    source = rewriter.producer(name, "dequantize")
    zero = _zero_points(rewriter, source) if source is not None else None
    if source is None or zero is None:
        raise ValueError(f"%{name} is not dequantised")
    rank = rewriter.type_of(name).rank
    scale = _with_rank(rewriter, node, source.inputs[1], rank)
    zero = zero.reshape(_ranked(zero.shape, rank))
    constant = rewriter.constant(source.inputs[0])
    if constant is not None:
        centred = np.asarray(constant.data).astype(np.int64) - zero
        if centred.size and centred.min() >= -128 and centred.max() <= 127:
            value = rewriter.add_constant(centred.astype(np.int8), f"{source.inputs[0]}.centred")
            return Quantised(value, scale, np.zeros_like(zero), source)
    value, shift = shifted_to_signed(rewriter, node, source.inputs[0])
    return Quantised(value, scale, zero - shift, source)


def _with_rank(rewriter: Rewriter, node: Node, name: str, rank: int) -> str:
    """A scale with leading dimensions of 1."""
    shape = _ranked(rewriter.sizes(name), rank)
    constant = rewriter.constant(name)
    if shape == rewriter.sizes(name):
        return name
    if constant is not None:
        return rewriter.add_constant(np.asarray(constant.data).reshape(shape), name)
    return rewriter.emit("reshape", (name,), {"shape": shape}, replaces=(node,))


def _product_of_scales(rewriter: Rewriter, node: Node, a: str, b: str) -> str:
    """Products of scales; of a convolution, those of the weights are turned to the channels afterwards."""
    known = [rewriter.constant(name) for name in (a, b)]
    if known[0] is not None and known[1] is not None:
        product = np.asarray(known[0].data, np.float32) * np.asarray(known[1].data, np.float32)
        return rewriter.add_constant(product, f"{node.name}.scale")
    return rewriter.emit("mul", (a, b), replaces=(node,))


def _per_channel(rewriter: Rewriter, node: Node, name: str) -> str:
    """A value for each output channel, seen over the image."""
    shape = (1, math.prod(rewriter.sizes(name)), 1, 1)
    constant = rewriter.constant(name)
    if constant is not None:
        return rewriter.add_constant(np.asarray(constant.data).reshape(shape), name)
    return rewriter.emit("reshape", (name,), {"shape": shape}, replaces=(node,))


def _integer_bias(rewriter: Rewriter, bias: str, scale: str) -> np.ndarray | None:
    """A bias that was quantised with the scale of the product, as integers."""
    node, known = rewriter.producer(bias, "dequantize"), rewriter.constant(scale)
    if node is None or known is None or rewriter.type_of(node.inputs[0]).dtype != I32:
        return None
    values, own, zero = (
        rewriter.constant(node.inputs[0]),
        rewriter.constant(node.inputs[1]),
        _zero_points(rewriter, node),
    )
    if values is None or own is None or zero is None or zero.any():
        return None
    wanted = np.asarray(known.data).reshape(-1)
    if not np.allclose(np.asarray(own.data).reshape(-1), wanted, rtol=_SAME_SCALE, atol=0.0):
        return None
    return np.asarray(values.data).astype(np.int64)


def _channel_shift(rewriter: Rewriter, node: Node, w: Quantised, zero: int, bias: np.ndarray | None) -> str:
    """What is added to the sums of each channel, or "": the integer bias less what the zero point of the image adds."""
    known = rewriter.constant(w.value)
    channels, *window = rewriter.sizes(w.value)
    if known is None and zero:
        depth = math.prod(window) * w.zero
        sums = _sums(rewriter, node, w.value, (1, 2, 3), depth, np.full(1, zero))
        shift = rewriter.emit(
            "reshape", (rewriter.emit("neg", (sums,), replaces=(node,)),), {"shape": (channels,)}, replaces=(node,)
        )
        if bias is None:
            return shift
        added = rewriter.add_constant(bias.astype(np.int32), f"{node.name}.bias")
        return rewriter.emit("add", (shift, added), replaces=(node,))
    total = np.zeros(channels, np.int64) if bias is None else np.broadcast_to(bias, (channels,)).copy()
    if known is not None and zero:
        total -= zero * (np.asarray(known.data).astype(np.int64) - w.zero).sum((1, 2, 3))
    if bias is None and not total.any():
        return ""
    return rewriter.add_constant(total.astype(np.int32), f"{node.name}.shift")


def _sums(
    rewriter: Rewriter, node: Node, name: str, axes: tuple[int, ...], less: np.ndarray, factor: np.ndarray
) -> str:
    """(sums over the axes, which are kept, less something) times a factor, as INT32."""
    constant = rewriter.constant(name)
    if constant is not None:
        sums = np.asarray(constant.data).sum(axes, dtype=np.int64, keepdims=True)
        return rewriter.add_constant(((sums - less) * factor).astype(np.int32), f"{node.name}.sums")
    wide = rewriter.emit("cast", (name,), {"to": I32}, replaces=(node,))
    total = rewriter.emit("reduce_sum", (wide,), {"axes": axes, "keepdims": 1}, replaces=(node,))
    if less.any():
        total = rewriter.emit(
            "sub", (total, rewriter.add_constant(less.astype(np.int32), f"{node.name}.less")), replaces=(node,)
        )
    factors = rewriter.add_constant(factor.astype(np.int32), f"{node.name}.factor")
    return rewriter.emit("mul", (total, factors), replaces=(node,))


def _scaled(rewriter: Rewriter, made: tuple[Node, ...], sums: str, scale: str) -> str:
    wide = rewriter.emit("cast", (sums,), {"to": F32}, replaces=made)
    return rewriter.emit("mul", (wide, scale), replaces=made)


RULES: Final[tuple[Rule, ...]] = (
    Rule("signed-quantisation", "dequantize", signed_quantisation),
    Rule("integer-matrix-product", "matmul", integer_matrix_product),
    Rule("integer-convolution", "conv2d", integer_convolution),
)
