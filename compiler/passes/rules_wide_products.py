"""Rules that compute products of integers wider than 8 bits on the vector cores: multiplied, then summed as INT32."""

from __future__ import annotations

import math
from typing import Final

from birc.compiler.ir.attributes import integer, integers
from birc.compiler.ir.graph import Node
from birc.compiler.passes.rules import Rewriter, Rule
from birc.compiler.passes.rules_unsigned_products import I32, is_depthwise, padded_explicitly

_MOST_BATCH_DIMS: Final = 3
"""Rows, columns and depth are three more, and an instruction addresses six."""
_REGISTER_BITS: Final = 32


def product_of_wide_integers(rewriter: Rewriter, node: Node) -> str | None:
    """matmul(a, b) = sum over k of a[m, k] * b[k, n]"""
    if not _is_wide(rewriter, node):
        return None
    batch = rewriter.sizes(node.name)[:-2]
    a, b = (_one_batch(rewriter, node, name, batch) for name in node.inputs)
    *batch_b, depth, columns = rewriter.sizes(b)
    *batch_a, rows, _ = rewriter.sizes(a)
    turned = rewriter.emit(
        "transpose",
        (b,),
        {"perm": (*range(len(batch_b)), len(batch_b) + 1, len(batch_b))},
        replaces=(node,),
    )
    left = _seen(rewriter, node, a, (*batch_a, rows, 1, depth))
    right = _seen(rewriter, node, turned, (*batch_b, 1, columns, depth))
    return _seen(rewriter, node, _sum_of_products(rewriter, node, left, right, -1), rewriter.sizes(node.name))


def convolution_of_wide_integers(rewriter: Rewriter, node: Node) -> str | None:
    """conv2d(x, w) = sum over channels and taps of the pixels under each tap times its weight"""
    if not _is_wide(rewriter, node) or is_depthwise(rewriter, node):
        return None
    x, w, *bias = node.inputs
    group = integer(node.attributes, "group")
    out, channels, *kernel = rewriter.sizes(w)
    batch, _, height, width = rewriter.sizes(node.name)
    padded = padded_explicitly(rewriter, node, x, 0)
    taps = [_tap(rewriter, node, padded, at) for at in range(math.prod(kernel))]
    apart = [_seen(rewriter, node, tap, (batch, group, 1, channels, 1, height * width)) for tap in taps]
    columns = rewriter.emit("concat", apart, {"axis": 4}, replaces=(node,)) if len(apart) > 1 else apart[0]
    depth = channels * len(taps)
    left = _seen(rewriter, node, columns, (batch, group, 1, depth, height * width))
    right = _seen(rewriter, node, w, (1, group, out // group, depth, 1))
    result = _seen(rewriter, node, _sum_of_products(rewriter, node, left, right, -2), (batch, out, height, width))
    if not bias:
        return result
    shift = _seen(rewriter, node, bias[0], (1, out, 1, 1))
    return rewriter.emit("add", (result, shift), replaces=(node,))


def _is_wide(rewriter: Rewriter, node: Node) -> bool:
    dtype = rewriter.type_of(node.inputs[0]).dtype
    return dtype.is_integer and dtype.bits > 8


def _sum_of_products(rewriter: Rewriter, node: Node, left: str, right: str, axis: int) -> str:
    """left * right, summed over an axis counted from the end; narrow integers in 32 bits, then wrapped around."""
    own = rewriter.type_of(left).dtype
    if own.bits < _REGISTER_BITS:
        left, right = (rewriter.emit("cast", (name,), {"to": I32}, replaces=(node,)) for name in (left, right))
    product = rewriter.emit("mul", (left, right), replaces=(node,))
    axes = (rewriter.type_of(product).rank + axis,)
    total = rewriter.emit("reduce_sum", (product,), {"axes": axes, "keepdims": 0}, replaces=(node,))
    if own.bits < _REGISTER_BITS:
        total = rewriter.emit("cast", (total,), {"to": own}, replaces=(node,))
    return total


def _one_batch(rewriter: Rewriter, node: Node, name: str, batch: tuple[int, ...]) -> str:
    """The operand with its batch dimensions in one, when there are too many of them."""
    if len(batch) <= _MOST_BATCH_DIMS:
        return name
    matrix = rewriter.sizes(name)[-2:]
    repeated = rewriter.emit("expand", (name,), {"shape": (*batch, *matrix)}, replaces=(node,))
    return _seen(rewriter, node, repeated, (math.prod(batch), *matrix))


def _tap(rewriter: Rewriter, node: Node, padded: str, at: int) -> str:
    """The pixels that one position of the window meets, for every position of the window."""
    batch, channels, *_ = rewriter.sizes(padded)
    out = rewriter.sizes(node.name)[2:]
    stride, dilation = integers(node.attributes, "stride"), integers(node.attributes, "dilation")
    place = divmod(at, rewriter.sizes(node.inputs[1])[3])
    first = tuple(p * d for p, d in zip(place, dilation, strict=True))
    end = tuple(f + (o - 1) * s + 1 for f, o, s in zip(first, out, stride, strict=True))
    attributes = {"starts": (0, 0, *first), "ends": (batch, channels, *end), "steps": (1, 1, *stride)}
    return rewriter.emit("slice", (padded,), attributes, replaces=(node,))


def _seen(rewriter: Rewriter, node: Node, name: str, shape: tuple[int, ...]) -> str:
    if rewriter.sizes(name) == shape:
        return name
    return rewriter.emit("reshape", (name,), {"shape": shape}, replaces=(node,))


RULES: Final[tuple[Rule, ...]] = (
    Rule("product-of-wide-integers", "matmul", product_of_wide_integers),
    Rule("convolution-of-wide-integers", "conv2d", convolution_of_wide_integers),
)
