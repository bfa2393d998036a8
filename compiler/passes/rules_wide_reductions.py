"""Rules for reductions of 64-bit integers that no instruction reduces: products, whose factors pair up by halves."""

from __future__ import annotations

from typing import Final

from birc.compiler.ir.attributes import integer, integers
from birc.compiler.ir.graph import Node
from birc.compiler.passes.rules import Rewriter, Rule

_LANE_BITS: Final = 32


def product_by_halves(rewriter: Rewriter, node: Node) -> str | None:
    """reduce_prod(x) = reduce_prod(x[: n / 2] * x[n / 2 :]), until one is left"""
    dtype = rewriter.type_of(node.inputs[0]).dtype
    axes = integers(node.attributes, "axes")
    sizes = rewriter.sizes(node.inputs[0])
    if not dtype.is_integer or dtype.bits <= _LANE_BITS or not axes or any(sizes[axis] == 0 for axis in axes):
        return None
    result = node.inputs[0]
    for axis in axes:
        result = _one_axis(rewriter, node, result, axis)
    kept = rewriter.sizes(node.name)
    keeps_axes = bool(integer(node.attributes, "keepdims"))
    if keeps_axes and result != node.inputs[0]:
        return result
    return rewriter.emit("reshape", (result,), {"shape": kept}, replaces=(node,))


def _one_axis(rewriter: Rewriter, node: Node, x: str, axis: int) -> str:
    """The product along one axis, which keeps extent 1."""
    while (extent := rewriter.sizes(x)[axis]) > 1:
        half = extent // 2
        product = rewriter.emit(
            "mul",
            (_part(rewriter, node, x, axis, 0, half), _part(rewriter, node, x, axis, half, 2 * half)),
            replaces=(node,),
        )
        if extent % 2:
            rest = _part(rewriter, node, x, axis, extent - 1, extent)
            product = rewriter.emit("concat", (product, rest), {"axis": axis}, replaces=(node,))
        x = product
    return x


def _part(rewriter: Rewriter, node: Node, x: str, axis: int, start: int, end: int) -> str:
    sizes = rewriter.sizes(x)
    starts = tuple(start if place == axis else 0 for place in range(len(sizes)))
    ends = tuple(end if place == axis else size for place, size in enumerate(sizes))
    return rewriter.emit("slice", (x,), {"starts": starts, "ends": ends, "steps": (1,) * len(sizes)}, replaces=(node,))


RULES: Final[tuple[Rule, ...]] = (Rule("product-by-halves", "reduce_prod", product_by_halves),)
