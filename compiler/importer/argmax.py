"""Lowering of positions of extremes: ArgMax, ArgMin and Hardmax."""

from __future__ import annotations

import math
from typing import Final

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import around, counting, reduced
from birc.compiler.importer.floats import is_nan
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape
from birc.runtime.dtypes import dtype


def position_of(build: GraphBuilder, x: str, extreme: str, axis: int, *, last: bool = False) -> str:
    """The first (or last) position along `axis` of the largest element (`reduce_max`) or the least one.

    INT32; the axis stays with size 1. A NaN is an extreme, as in numpy.
    """
    shape = build.shape(x)
    count = shape[axis]
    best = reduced(build, extreme, x, axis, keep=True)
    hits = build.emit("equal", (x, best))
    if build.type_of(x).dtype.is_float:
        hits = build.emit("or", (hits, is_nan(build, x)))
    numbers = counting(build, count, len(shape) - axis - 1)
    missing = build.scalar(-1 if last else count, numbers)
    positions = build.emit("where", (hits, numbers, missing))
    return reduced(build, "reduce_max" if last else "reduce_min", positions, axis, keep=True)


def _extreme(op: str) -> Lower:
    """ArgMax or ArgMin."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        x, shape = node.input(0), build.shape(node.input(0))
        axis = positive_axis(node, node.int_attribute("axis", 0), len(shape))
        if 0 in shape[axis : axis + 1]:
            raise CannotLower("its axis has no elements")
        seen = reshape(build, x, around(shape, axis))
        found = position_of(build, seen, op, 1, last=bool(node.int_attribute("select_last_index", 0)))
        kept = (1,) if node.int_attribute("keepdims", 1) else ()
        return reshape(build, cast(build, found, dtype("i64")), (*shape[:axis], *kept, *shape[axis + 1 :]))

    return lower


def _hardmax(node: OnnxNode, build: GraphBuilder) -> Results:
    """1 at the first largest element, else 0. Until operator set 12 over all dimensions from `axis` on."""
    x, shape = node.input(0), build.shape(node.input(0))
    if node.version < 13:
        axis = positive_axis(node, node.int_attribute("axis", 1), len(shape), inclusive=True)
        seen = reshape(build, x, (math.prod(shape[:axis]), math.prod(shape[axis:]), 1))
    else:
        axis = positive_axis(node, node.int_attribute("axis", -1), len(shape))
        seen = reshape(build, x, around(shape, axis))
    found = position_of(build, seen, "reduce_max", 1)
    hot = build.emit("equal", (counting(build, build.shape(seen)[1], 1), found))
    return reshape(build, cast(build, hot, build.type_of(x).dtype), shape)


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("ArgMax", _extreme("reduce_max")),
    OpType("ArgMin", _extreme("reduce_min")),
    OpType("Hardmax", _hardmax),
)
