"""Rules for axes that are reduced and that no descriptor can walk: cut in pieces, or padded.

A descriptor walks at most `longest` elements in one dimension, and a reduced axis is walked whole: as one dimension,
or as two whose product is its length. A length with a larger prime factor has no such pair.
Windows are walked as one dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from birc.compiler.ir.attributes import AttributeValue, integer, integers, number
from birc.compiler.ir.graph import Node
from birc.compiler.passes.lower.views import factorised
from birc.compiler.passes.rules import Rewriter, Rule
from birc.compiler.passes.rules_deep_products import by_halves_of_the_window
from birc.compiler.passes.rules_unsigned_products import is_depthwise, padded_explicitly
from birc.runtime.dtypes import DType, dtype

_COMBINES: Final = {"reduce_sum": "add", "reduce_max": "maximum", "reduce_min": "minimum", "reduce_prod": "mul"}
_STEP: Final = 64
"""A padded depth is a multiple of it, as the T-core's tiles are."""

_LongRewrite = Callable[[Rewriter, Node, int], str | None]


def cut_reduction(rewriter: Rewriter, node: Node, longest: int) -> str | None:
    """reduce(x) = reduce of the first piece, combined with those of the others; a mean is a sum over its count"""
    axes, sizes = integers(node.attributes, "axes"), rewriter.sizes(node.inputs[0])
    long = next((axis for axis in axes if factorised(sizes[axis], longest) is None), None)
    if long is None:
        return None
    if node.op == "reduce_mean":
        return _mean(rewriter, node, math.prod(sizes[axis] for axis in axes))
    element = rewriter.type_of(node.name).dtype
    # Sums of pieces may leave a narrow type whose range holds the whole sum.
    exact = dtype("f32") if element.is_float and node.op in ("reduce_sum", "reduce_prod") else element
    x, total = _cast(rewriter, node, node.inputs[0], exact), ""
    for start, end in _pieces(sizes[long], longest):
        piece = _part(rewriter, node, x, long, start, end)
        reduced = rewriter.emit(node.op, (piece,), node.attributes, replaces=(node,))
        total = rewriter.emit(_COMBINES[node.op], (total, reduced), replaces=(node,)) if total else reduced
    return _cast(rewriter, node, total, element)


def _mean(rewriter: Rewriter, node: Node, count: int) -> str:
    """The sum over the count, in the widest type of its kind."""
    element = rewriter.type_of(node.name).dtype
    exact = dtype("f32") if element.is_float else dtype("i64")
    x = _cast(rewriter, node, node.inputs[0], exact)
    total = rewriter.emit("reduce_sum", (x,), node.attributes, replaces=(node,))
    divisor = rewriter.add_constant(np.array(count, exact.numpy), f"{node.name}.count")
    return _cast(rewriter, node, rewriter.emit("div", (total, divisor), replaces=(node,)), element)


def pad_softmax(rewriter: Rewriter, node: Node, longest: int) -> str | None:
    """softmax(x) = softmax(x and then minus infinities), without those; log_softmax(x) likewise"""
    x, axis = node.inputs[0], integer(node.attributes, "axis")
    extent = rewriter.sizes(x)[axis]
    wanted = _next_extent(extent, longest)
    if wanted == extent:
        return None
    padded = _padded(rewriter, node, x, axis, wanted, -math.inf)
    powers = rewriter.emit(node.op, (padded,), node.attributes, replaces=(node,))
    return _part(rewriter, node, powers, axis, 0, extent)


def layer_norm_in_steps(rewriter: Rewriter, node: Node, longest: int) -> str | None:
    """layer_norm(x) = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * scale + bias"""
    if not _is_long_from_axis(rewriter, node, longest):
        return None
    x = _cast(rewriter, node, node.inputs[0], dtype("f32"))
    centred = rewriter.emit("sub", (x, _mean_from_axis(rewriter, node, x)), replaces=(node,))
    return _over_deviation(rewriter, node, centred)


def rms_norm_in_steps(rewriter: Rewriter, node: Node, longest: int) -> str | None:
    """rms_norm(x) = x / sqrt(mean(x^2) + epsilon) * scale"""
    if not _is_long_from_axis(rewriter, node, longest):
        return None
    return _over_deviation(rewriter, node, _cast(rewriter, node, node.inputs[0], dtype("f32")))


def pad_depth(rewriter: Rewriter, node: Node, longest: int) -> str | None:
    """matmul(a, b) = matmul(a and then columns of zeros, b and then rows of zeros)"""
    a, b = node.inputs
    if rewriter.type_of(a).rank < 2 or rewriter.type_of(b).rank < 2:
        return None
    axis_a, axis_b = rewriter.type_of(a).rank - 1, rewriter.type_of(b).rank - 2
    depth = rewriter.sizes(a)[axis_a]
    wanted = _next_extent(depth, longest)
    if wanted == depth:
        return None
    operands = (_padded(rewriter, node, a, axis_a, wanted), _padded(rewriter, node, b, axis_b, wanted))
    return rewriter.emit("matmul", operands, replaces=(node,))


def pad_channels(rewriter: Rewriter, node: Node, longest: int) -> str | None:
    """conv2d(x, w) = conv2d(x, w) with channels of zeros after those of each group"""
    if is_depthwise(rewriter, node):
        return None
    x, w, *bias = node.inputs
    channels = rewriter.sizes(w)[1]
    wanted, group = _next_extent(channels, longest), integer(node.attributes, "group")
    if wanted == channels:
        return None
    batch, _, height, width = rewriter.sizes(x)
    apart = _seen(rewriter, node, x, (batch, group, channels, height, width))
    apart = _padded(rewriter, node, apart, 2, wanted)
    inputs = (
        _seen(rewriter, node, apart, (batch, group * wanted, height, width)),
        _padded(rewriter, node, w, 1, wanted),
        *bias,
    )
    return rewriter.emit("conv2d", inputs, node.attributes, replaces=(node,))


def cut_long_window(rewriter: Rewriter, node: Node, longest: int) -> str | None:
    """conv2d(x, w) = sum over the halves of the window"""
    long = [axis for axis in (2, 3) if rewriter.sizes(node.inputs[1])[axis] > longest]
    return by_halves_of_the_window(rewriter, node, long[0]) if long else None


def cut_long_max_pool(rewriter: Rewriter, node: Node, longest: int) -> str | None:
    """max_pool2d(x) = maximum over the halves of the window"""
    kernel, dilation = integers(node.attributes, "kernel"), integers(node.attributes, "dilation")
    long = next((dim for dim in (0, 1) if kernel[dim] > longest), None)
    if long is None:
        return None
    element = rewriter.type_of(node.inputs[0]).dtype
    least = -math.inf if element.is_float else float(np.iinfo(element.numpy).min)
    padded = padded_explicitly(rewriter, node, node.inputs[0], least)
    taps, reach = kernel[long], rewriter.sizes(padded)[2 + long]
    result = ""
    for first, end in ((0, taps // 2), (taps // 2, taps)):
        piece = _part(rewriter, node, padded, 2 + long, first * dilation[long], reach - (taps - end) * dilation[long])
        window = tuple(end - first if dim == long else size for dim, size in enumerate(kernel))
        attributes = {**node.attributes, "kernel": window, "pads": (0, 0, 0, 0)}
        pooled = rewriter.emit("max_pool2d", (piece,), attributes, replaces=(node,))
        result = rewriter.emit("maximum", (result, pooled), replaces=(node,)) if result else pooled
    return result


def _pieces(extent: int, longest: int) -> list[tuple[int, int]]:
    """The extent in pieces (start, end) that have factors: whole multiples of a power of two, and what is left."""
    unit = 1 << (longest.bit_length() - 1) // 2
    pieces, start = [], 0
    while factorised(extent - start, longest) is None:
        end = start + min((extent - start) // unit, longest) * unit
        pieces.append((start, end))
        start = end
    return [*pieces, (start, extent)] if start < extent else pieces


def _next_extent(extent: int, longest: int) -> int:
    """The extent if it has factors or is beyond all that have, else the next one that has."""
    if factorised(extent, longest) is not None:
        return extent
    step = min(_STEP, longest)
    extents = range(-(-extent // step) * step, longest * longest + 1, step)
    return next((wanted for wanted in extents if factorised(wanted, longest) is not None), extent)


def _is_long_from_axis(rewriter: Rewriter, node: Node, longest: int) -> bool:
    sizes = rewriter.sizes(node.inputs[0])[integer(node.attributes, "axis") :]
    return any(factorised(extent, longest) is None for extent in sizes)


def _mean_from_axis(rewriter: Rewriter, node: Node, x: str) -> str:
    axes = tuple(range(integer(node.attributes, "axis"), rewriter.type_of(x).rank))
    return rewriter.emit("reduce_mean", (x,), {"axes": axes, "keepdims": 1}, replaces=(node,))


def _over_deviation(rewriter: Rewriter, node: Node, x: str) -> str:
    """FP32 over the root of its mean square, times the scale, plus the bias; in the type of the result."""
    square = rewriter.emit("mul", (x, x), replaces=(node,))
    epsilon = rewriter.add_constant(np.array(number(node.attributes, "epsilon"), np.float32), f"{node.name}.epsilon")
    power = rewriter.emit("add", (_mean_from_axis(rewriter, node, square), epsilon), replaces=(node,))
    result = rewriter.emit("mul", (x, rewriter.emit("rsqrt", (power,), replaces=(node,))), replaces=(node,))
    for op, operand in zip(("mul", "add"), node.inputs[1:], strict=False):
        if operand:
            result = rewriter.emit(op, (result, _cast(rewriter, node, operand, dtype("f32"))), replaces=(node,))
    return _cast(rewriter, node, result, rewriter.type_of(node.name).dtype)


def _cast(rewriter: Rewriter, node: Node, x: str, element: DType) -> str:
    if rewriter.type_of(x).dtype == element:
        return x
    return rewriter.emit("cast", (x,), {"to": element}, replaces=(node,))


def _seen(rewriter: Rewriter, node: Node, x: str, shape: tuple[int, ...]) -> str:
    return x if rewriter.sizes(x) == shape else rewriter.emit("reshape", (x,), {"shape": shape}, replaces=(node,))


def _part(rewriter: Rewriter, node: Node, x: str, axis: int, start: int, end: int) -> str:
    sizes = rewriter.sizes(x)
    attributes: dict[str, AttributeValue] = {
        "starts": tuple(start if place == axis else 0 for place in range(len(sizes))),
        "ends": tuple(end if place == axis else size for place, size in enumerate(sizes)),
        "steps": (1,) * len(sizes),
    }
    return rewriter.emit("slice", (x,), attributes, replaces=(node,))


def _padded(rewriter: Rewriter, node: Node, x: str, axis: int, wanted: int, value: float = 0.0) -> str:
    """x, longer along an axis; a constant stays one."""
    rank, added = rewriter.type_of(x).rank, wanted - rewriter.sizes(x)[axis]
    constant = rewriter.constant(x)
    if constant is not None:
        widths = [(0, added if place == axis else 0) for place in range(rank)]
        return rewriter.add_constant(np.pad(np.asarray(constant.data), widths, constant_values=value), f"{x}.padded")
    pads = tuple(added if place == rank + axis else 0 for place in range(2 * rank))
    return rewriter.emit("pad", (x,), {"pads": pads, "value": value}, replaces=(node,))


def rules(longest: int) -> tuple[Rule, ...]:
    """The rules for descriptors whose dimensions have at most `longest` elements."""

    def rule(name: str, root: str, rewrite: _LongRewrite) -> Rule:
        def bound(rewriter: Rewriter, node: Node) -> str | None:
            return rewrite(rewriter, node, longest)

        bound.__doc__ = rewrite.__doc__
        return Rule(name, root, bound)

    reductions = (*_COMBINES, "reduce_mean")
    return (
        *(rule(f"cut-{op.replace('_', '-')}", op, cut_reduction) for op in reductions),
        rule("pad-softmax", "softmax", pad_softmax),
        rule("pad-log-softmax", "log_softmax", pad_softmax),
        rule("layer-norm-in-steps", "layer_norm", layer_norm_in_steps),
        rule("rms-norm-in-steps", "rms_norm", rms_norm_in_steps),
        rule("pad-depth", "matmul", pad_depth),
        rule("cut-long-window", "conv2d", cut_long_window),
        rule("pad-channels", "conv2d", pad_channels),
        rule("cut-long-max-pool", "max_pool2d", cut_long_max_pool),
    )
