"""Lowering of Det: elimination, one column at a time, whose pivot is the largest element of the rows that are left.

Rows stay where they are. What an exchange of rows would do to the sign, the number of rows left before the pivot's
says.
"""

from __future__ import annotations

import math
from typing import Final

from birc.compiler.importer.argmax import position_of
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import counting, reduced
from birc.compiler.importer.floats import divisor, widened
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape, slice_axis
from birc.runtime.errors import BadModelError

_LARGEST_ORDER: Final = 96
"""Columns that are eliminated, about twenty nodes each."""


def _det(node: OnnxNode, build: GraphBuilder) -> Results:
    x, shape = node.input(0), build.shape(node.input(0))
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise BadModelError(f"the determinant of {list(shape)}, not of square matrices", where=node.where)
    order, kept = shape[-1], build.type_of(x).dtype
    if order > _LARGEST_ORDER:
        raise CannotLower(f"matrices of order {order}, more than {_LARGEST_ORDER}")
    rest = reshape(build, widened(build, x), (math.prod(shape[:-2]), order, order))
    result, left = "", ""
    for _ in range(order):
        pivot, rest, left = _step(build, rest, left)
        result = build.emit("mul", (result, pivot)) if result else pivot
    return cast(build, reshape(build, result, shape[:-2]), kept) if order else build.splat(1, build.type_of(x))


def _step(build: GraphBuilder, rest: str, left: str) -> tuple[str, str, str]:
    """The signed pivot of the first column, the other columns without it, and the rows that are left then.

    `left` is "" while all rows are. A pivot of 0 stands in a column of zeros: the determinant is 0 whatever follows.
    """
    _, rows, columns = build.shape(rest)
    zero, one = build.scalar(0, rest), build.scalar(1, rest)
    column = slice_axis(build, rest, 2, 0, 1)
    size = build.emit("abs", (column,))
    place = position_of(
        build, build.emit("where", (left, size, build.scalar(-1, rest))) if left else size, "reduce_max", 1
    )
    numbers = counting(build, rows, 1)
    is_chosen = build.emit("equal", (numbers, place))
    row = reduced(build, "reduce_sum", build.emit("where", (is_chosen, rest, zero)), 1, keep=True)
    pivot = slice_axis(build, row, 2, 0, 1)
    before = build.emit("less", (numbers, place))
    before = build.emit("and", (before, left)) if left else before
    flips = build.emit("where", (before, build.scalar(-1, rest), one))
    signed = build.emit("mul", (pivot, reduced(build, "reduce_prod", flips, 1, keep=True)))
    if columns == 1:
        return signed, rest, left
    factor = build.emit("div", (column, divisor(build, pivot)))
    taken = build.emit("mul", (factor, slice_axis(build, row, 2, 1, columns)))
    others = build.emit("not", (is_chosen,))
    left = build.emit("and", (left, others)) if left else others
    return signed, build.emit("sub", (slice_axis(build, rest, 2, 1, columns), taken)), left


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("Det", _det, since=11),)
