"""Rules that make both operands of an 8-bit product signed, which is what the T-core multiplies.

An unsigned operand is the signed one that is 128 less, and 128. What the 128 adds to the product is 128 times a sum of
the other operand's elements: known when compiling if that one is, else computed on the vector cores.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.ir.attributes import Attributes, integer, integers
from birc.compiler.ir.graph import Node
from birc.compiler.passes.rules import Rewriter, Rule
from birc.runtime.dtypes import dtype

I32: Final = dtype("i32")
I8: Final = dtype("i8")
SHIFT: Final = 128
NARROW: Final = frozenset({"i8", "u8"})


def signed_matrix_product(rewriter: Rewriter, node: Node) -> str | None:
    """matmul(a + 128, b) = matmul(a, b) + 128 * column sums of b, and likewise for b"""
    if not _has_unsigned(rewriter, node):
        return None
    a, b = node.inputs
    signed_a, shift_a = shifted_to_signed(rewriter, node, a)
    signed_b, shift_b = shifted_to_signed(rewriter, node, b)
    result = rewriter.emit("matmul", (signed_a, signed_b), replaces=(node,))
    if shift_a:
        columns = _sums(rewriter, node, b, (rewriter.type_of(b).rank - 2,))
        result = rewriter.emit("add", (result, columns), replaces=(node,))
    if shift_b:
        rows = _sums(rewriter, node, signed_a, (rewriter.type_of(a).rank - 1,))
        result = rewriter.emit("add", (result, rows), replaces=(node,))
    return result


def signed_convolution(rewriter: Rewriter, node: Node) -> str | None:
    """conv2d(x + 128, w) = conv2d(x, w) + 128 * sums of w, and likewise for w; zeros around x become -128"""
    if not _has_unsigned(rewriter, node) or is_depthwise(rewriter, node):
        return None
    x, w, *bias = node.inputs
    signed_x, shift_x = shifted_to_signed(rewriter, node, x)
    signed_w, shift_w = shifted_to_signed(rewriter, node, w)
    attributes = dict(node.attributes)
    if shift_x and any(integers(node.attributes, "pads")):
        signed_x = padded_explicitly(rewriter, node, signed_x, -SHIFT)
        attributes["pads"] = (0, 0, 0, 0)
    result = rewriter.emit("conv2d", (signed_x, signed_w, *bias), attributes, replaces=(node,))
    if shift_x:
        sums = _sums(rewriter, node, w, (1, 2, 3))
        channels = rewriter.emit("reshape", (sums,), {"shape": (1, rewriter.sizes(w)[0], 1, 1)}, replaces=(node,))
        result = rewriter.emit("add", (result, channels), replaces=(node,))
    if shift_w:
        sums = window_sums(rewriter, node, signed_x, attributes)
        result = rewriter.emit("add", (result, _shifted(rewriter, node, sums)), replaces=(node,))
    return result


def is_depthwise(rewriter: Rewriter, node: Node) -> bool:
    """Whether the vector cores compute a convolution, which take integers of every type."""
    channels = rewriter.sizes(node.inputs[0])[1]
    return integer(node.attributes, "group") == channels == rewriter.sizes(node.inputs[1])[0] > 1


def padded_explicitly(rewriter: Rewriter, node: Node, x: str, value: float) -> str:
    """The image `x` of a convolution with its border, all of one number."""
    top, left, bottom, right = integers(node.attributes, "pads")
    pads = (0, 0, top, left, 0, 0, bottom, right)
    return rewriter.emit("pad", (x,), {"pads": pads, "value": float(value)}, replaces=(node,))


def _has_unsigned(rewriter: Rewriter, node: Node) -> bool:
    types = {rewriter.type_of(name).dtype.name for name in node.inputs[:2]}
    return types <= NARROW and "u8" in types


def shifted_to_signed(rewriter: Rewriter, node: Node, name: str) -> tuple[str, int]:
    """The operand as i8, and what it is less."""
    if rewriter.type_of(name).dtype.name == "i8":
        return name, 0
    constant = rewriter.constant(name)
    if constant is not None:
        data = np.asarray(constant.data)
        shift = SHIFT if data.size and int(data.max()) >= SHIFT else 0
        return rewriter.add_constant((data.astype(np.int16) - shift).astype(np.int8), f"{name}.signed"), shift
    wide = rewriter.emit("cast", (name,), {"to": I32}, replaces=(node,))
    less = rewriter.emit("sub", (wide, _number(rewriter, node, SHIFT)), replaces=(node,))
    return rewriter.emit("cast", (less,), {"to": I8}, replaces=(node,)), SHIFT


def _sums(rewriter: Rewriter, node: Node, name: str, axes: tuple[int, ...]) -> str:
    """128 times the sums of an operand over some axes, which are kept."""
    constant = rewriter.constant(name)
    if constant is not None:
        sums = np.asarray(constant.data).sum(axes, dtype=np.int64, keepdims=True) * SHIFT
        return rewriter.add_constant(sums.astype(np.int32), f"{name}.sums")
    wide = rewriter.emit("cast", (name,), {"to": I32}, replaces=(node,))
    sums = rewriter.emit("reduce_sum", (wide,), {"axes": axes, "keepdims": 1}, replaces=(node,))
    return _shifted(rewriter, node, sums)


def _shifted(rewriter: Rewriter, node: Node, sums: str) -> str:
    return rewriter.emit("mul", (sums, _number(rewriter, node, SHIFT)), replaces=(node,))


def window_sums(rewriter: Rewriter, node: Node, x: str, attributes: Attributes) -> str:
    """For each output channel, the sums of the image under the window, over all channels of its group."""
    group, (out, *window) = integer(node.attributes, "group"), rewriter.sizes(node.inputs[1])
    ones = rewriter.add_constant(np.ones((group, *window), np.int8), f"{node.name}.ones")
    sums = rewriter.emit("conv2d", (x, ones), attributes, replaces=(node,))
    if group == 1:
        return sums
    batch, _, height, width = rewriter.sizes(sums)
    apart = rewriter.emit("reshape", (sums,), {"shape": (batch, group, 1, height, width)}, replaces=(node,))
    wider = (batch, group, out // group, height, width)
    repeated = rewriter.emit("expand", (apart,), {"shape": wider}, replaces=(node,))
    return rewriter.emit("reshape", (repeated,), {"shape": (batch, out, height, width)}, replaces=(node,))


def _number(rewriter: Rewriter, node: Node, value: int) -> str:
    return rewriter.add_constant(np.array(value, np.int32), f"{node.name}.number")


RULES: Final[tuple[Rule, ...]] = (
    Rule("signed-matrix-product", "matmul", signed_matrix_product),
    Rule("signed-convolution", "conv2d", signed_convolution),
)
