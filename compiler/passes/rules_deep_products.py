"""Rules that cut the depth of an 8-bit product, so that no sum leaves the integers that FP32 holds.

The partial sums are added as INT32 on the vector cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from birc.compiler.ir.attributes import integer, integers
from birc.compiler.ir.graph import Node
from birc.compiler.passes.integer_sums import LARGEST_SUM, depth_costs, exact_pieces, largest_sum
from birc.compiler.passes.rules import Rewriter, Rule
from birc.compiler.passes.rules_unsigned_products import is_depthwise, padded_explicitly


def cut_matrix_product(rewriter: Rewriter, node: Node) -> str | None:
    """matmul(a, b) = sum of matmul(a[:, piece], b[piece]) over pieces of the depth"""
    costs = _too_deep(rewriter, node)
    pieces = exact_pieces(costs) if costs is not None else None
    if pieces is None:
        return None
    a, b = node.inputs
    axis_a, axis_b = rewriter.type_of(a).rank - 1, rewriter.type_of(b).rank - 2
    products = []
    for piece in pieces:
        operands = (_part(rewriter, node, a, axis_a, *piece), _part(rewriter, node, b, axis_b, *piece))
        products.append(rewriter.emit("matmul", operands, replaces=(node,)))
    return _total(rewriter, node, products)


def cut_convolution(rewriter: Rewriter, node: Node) -> str | None:
    """conv2d(x, w) = sum of conv2d(x[:, piece], w[:, piece]) over pieces of the channels of a group"""
    costs = None if is_depthwise(rewriter, node) else _too_deep(rewriter, node)
    pieces = exact_pieces(costs) if costs is not None else None
    if pieces is None:
        return None
    x, w, *bias = node.inputs
    products = []
    for number, piece in enumerate(pieces):
        inputs = (_channels(rewriter, node, x, *piece), _part(rewriter, node, w, 1, *piece))
        with_bias = (*inputs, *bias) if number == 0 else inputs
        products.append(rewriter.emit("conv2d", with_bias, node.attributes, replaces=(node,)))
    return _total(rewriter, node, products)


def cut_window(rewriter: Rewriter, node: Node) -> str | None:
    """conv2d(x, w) = sum over the halves of the window, when one channel's window is too much"""
    costs = None if is_depthwise(rewriter, node) else _too_deep(rewriter, node)
    if costs is None or exact_pieces(costs) is not None:
        return None
    return by_halves_of_the_window(rewriter, node, 2 if rewriter.sizes(node.inputs[1])[2] > 1 else 3)


def by_halves_of_the_window(rewriter: Rewriter, node: Node, axis: int) -> str:
    """A convolution as the sum of two, over the halves of the window along an axis of the image."""
    x, w, *bias = node.inputs
    padded = padded_explicitly(rewriter, node, x, 0)
    taps, reach = rewriter.sizes(w)[axis], rewriter.sizes(padded)[axis]
    dilation = integers(node.attributes, "dilation")[axis - 2]
    half = taps // 2
    attributes = {**node.attributes, "pads": (0, 0, 0, 0)}
    products = []
    for first, end in ((0, half), (half, taps)):
        inputs = (
            _part(rewriter, node, padded, axis, first * dilation, reach - (taps - end) * dilation),
            _part(rewriter, node, w, axis, first, end),
        )
        with_bias = (*inputs, *bias) if first == 0 else inputs
        products.append(rewriter.emit("conv2d", with_bias, attributes, replaces=(node,)))
    return _total(rewriter, node, products)


def _too_deep(rewriter: Rewriter, node: Node) -> np.ndarray | None:
    """The costs of the depth of a product of i8 when its sums are not exact."""
    a, b = node.inputs[:2]
    types = (rewriter.type_of(a), rewriter.type_of(b))
    if any(type.dtype.name != "i8" for type in types):
        return None
    costs = depth_costs(node, *types, rewriter.constant(a), rewriter.constant(b))
    return costs if largest_sum(costs) > LARGEST_SUM else None


def _part(rewriter: Rewriter, node: Node, name: str, axis: int, start: int, end: int) -> str:
    """A piece of an operand along an axis."""
    sizes = rewriter.sizes(name)
    constant = rewriter.constant(name)
    if constant is not None:
        index = (slice(None),) * axis + (slice(start, end),)
        return rewriter.add_constant(np.ascontiguousarray(np.asarray(constant.data)[index]), f"{name}.piece")
    starts = tuple(start if i == axis else 0 for i in range(len(sizes)))
    ends = tuple(end if i == axis else extent for i, extent in enumerate(sizes))
    return rewriter.emit(
        "slice", (name,), {"starts": starts, "ends": ends, "steps": (1,) * len(sizes)}, replaces=(node,)
    )


def _channels(rewriter: Rewriter, node: Node, x: str, start: int, end: int) -> str:
    """A piece of the channels of each group."""
    group = integer(node.attributes, "group")
    if group == 1:
        return _part(rewriter, node, x, 1, start, end)
    batch, channels, height, width = rewriter.sizes(x)
    apart = rewriter.emit(
        "reshape", (x,), {"shape": (batch, group, channels // group, height, width)}, replaces=(node,)
    )
    piece = _part(rewriter, node, apart, 2, start, end)
    return rewriter.emit(
        "reshape", (piece,), {"shape": (batch, group * (end - start), height, width)}, replaces=(node,)
    )


def _total(rewriter: Rewriter, node: Node, products: Sequence[str]) -> str:
    total, *others = products
    for product in others:
        total = rewriter.emit("add", (total, product), replaces=(node,))
    return total


RULES: Final[tuple[Rule, ...]] = (
    Rule("cut-matrix-product", "matmul", cut_matrix_product),
    Rule("cut-convolution", "conv2d", cut_convolution),
    Rule("cut-window", "conv2d", cut_window),
)
