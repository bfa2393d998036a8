"""Lowering of ops whose data says how much they give: NonZero, Compress and Unique.

The device has no shapes that depend on data. What is known at import is computed there; otherwise the model must
declare how many elements there are, and the program faults where the data gives another number.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import all_true, counting, reduced, require_helpers
from birc.compiler.importer.cumulative import scan
from birc.compiler.importer.floats import is_number
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape, take
from birc.runtime.dtypes import dtype

_OPEN: Final = "the shape of its result depends on data, and the model does not declare it"


def _declared_count(node: OnnxNode, build: GraphBuilder, axis: int) -> int:
    """How many elements the model declares along an axis of the first result."""
    declared = build.declared_shape(node)
    if declared is None or axis >= len(declared):
        raise CannotLower(_OPEN)
    if not declared[axis]:
        raise CannotLower("its result is declared to be empty")
    return declared[axis]


def _positions(build: GraphBuilder, flags: str, count: int) -> str:
    """The positions of the true ones of a list, of which there are `count`, or a program that faults: INT32."""
    (size,) = build.shape(flags)
    require_helpers(size * count, "the search for the chosen elements")
    numbers = cast(build, flags, dtype("i32"))
    rank = scan(build, numbers, 0, "add", 0.0, backwards=False, exclusive=False)
    total = reduced(build, "reduce_sum", numbers, 0)
    wanted = build.emit("add", (counting(build, count, 1), build.scalar(1, numbers)))
    chosen = build.emit("and", (build.emit("equal", (rank, wanted)), flags))
    places = counting(build, size)
    found = build.emit("where", (chosen, places, build.scalar(0, places)))
    agrees = build.emit("equal", (total, build.scalar(count, total)))
    return build.guarded(reduced(build, "reduce_sum", found, 1), agrees)


def _non_zero(node: OnnxNode, build: GraphBuilder) -> Results:
    """The indices of all elements that are not 0, one a column."""
    x, shape = node.input(0), build.shape(node.input(0))
    known = build.constant_of(x)
    if known is not None:
        return build.constant(np.array(np.nonzero(np.atleast_1d(known)), np.int64))
    size = math.prod(shape)
    if not shape or not size:
        raise CannotLower(_OPEN)
    count = _declared_count(node, build, 1)
    flat = reshape(build, x, (size,))
    flags = cast(build, flat, dtype("bool"))
    table = np.stack([place.reshape(-1) for place in np.indices(shape)]).astype(np.int64)
    return build.emit("gather", (build.constant(table), _positions(build, flags, count)), {"axis": 1})


def _compress(node: OnnxNode, build: GraphBuilder) -> Results:
    """The slices along an axis, or the elements of the flattened input, where the condition holds."""
    x, condition = node.input(0), node.input(1)
    shape = build.shape(x)
    if node.has("axis"):
        axis = positive_axis(node, node.int_attribute("axis", 0), len(shape))
    else:
        x, axis = reshape(build, x, (math.prod(shape),)), 0
    known = build.constant_of(condition)
    if known is not None:
        return take(build, x, axis, np.flatnonzero(known))
    positions = _positions(build, condition, _declared_count(node, build, axis))
    return build.emit("gather", (x, positions), {"axis": axis})


def _unique(node: OnnxNode, build: GraphBuilder) -> Results:
    """The different elements, or slices along an axis: with the first place of each, for each place which of them
    stands there, and how often each does. Sorted, or in the order of their first places.
    """
    x, shape = node.input(0), build.shape(node.input(0))
    is_sorted = bool(node.int_attribute("sorted", 1))
    if node.has("axis"):
        axis = positive_axis(node, node.int_attribute("axis", 0), len(shape))
        front = (axis, *(place for place in range(len(shape)) if place != axis))
        moved = build.emit("transpose", (x,), {"perm": front})
    else:
        axis, moved = 0, reshape(build, x, (math.prod(shape),))
    size = build.shape(moved)[0]
    count = _declared_count(node, build, axis)
    rows = reshape(build, moved, (size, math.prod(build.shape(moved)[1:])))
    require_helpers(size * size * build.shape(rows)[1], "the comparison of all pairs")
    is_first, rank = _ranks(build, rows, is_sorted=is_sorted)
    agrees = _agrees(build, rows, is_first, count)
    numbers = counting(build, size)
    leads = build.emit("and", (is_first, build.emit("equal", (rank, counting(build, count, 1)))))
    found = build.emit("where", (leads, numbers, build.scalar(0, numbers)))
    first = build.guarded(reduced(build, "reduce_sum", found, 1), agrees)
    values = build.emit("gather", (moved, first), {"axis": 0})
    if axis:
        back = (*range(1, axis + 1), 0, *range(axis + 1, len(shape)))
        values = build.emit("transpose", (values,), {"perm": back})
    same = cast(build, build.emit("equal", (rank, counting(build, count, 1))), dtype("i32"))
    counts = build.guarded(reduced(build, "reduce_sum", same, 1), agrees)
    others = (first, build.guarded(rank, agrees), counts)
    return (values, *(cast(build, value, dtype("i64")) for value in others))[: len(node.outputs)]


def _agrees(build: GraphBuilder, rows: str, is_first: str, count: int) -> str:
    """Whether there are as many different rows as declared, and none with a NaN, which no order holds."""
    total = reduced(build, "reduce_sum", cast(build, is_first, dtype("i32")), 0)
    agrees = build.emit("equal", (total, build.scalar(count, total)))
    if not build.type_of(rows).dtype.is_float:
        return agrees
    return build.emit("and", (agrees, all_true(build, is_number(build, rows))))


def _ranks(build: GraphBuilder, rows: str, *, is_sorted: bool) -> tuple[str, str]:
    """For each row whether no earlier one equals it, and the number of different rows that come before it."""
    size, width = build.shape(rows)
    mine, other = reshape(build, rows, (size, 1, width)), reshape(build, rows, (1, size, width))
    differs = build.emit("not", (build.emit("equal", (mine, other)),))
    columns = counting(build, width)
    where = build.emit("where", (differs, columns, build.scalar(width, columns)))
    place = reduced(build, "reduce_min", where, 2, keep=True)
    same = build.emit("equal", (reshape(build, place, (size, size)), build.scalar(width, place)))
    numbers = counting(build, size)
    leader = build.emit("where", (same, numbers, build.scalar(size, numbers)))
    leader = reduced(build, "reduce_min", leader, 1)
    is_first = build.emit("equal", (leader, numbers))
    if is_sorted:
        smaller = build.emit("and", (build.emit("equal", (columns, place)), build.emit("less", (other, mine))))
        before = reduced(build, "reduce_max", cast(build, smaller, dtype("i32")), 2)
        before = cast(build, before, dtype("bool"))
    else:
        before = build.emit("less", (numbers, reshape(build, leader, (size, 1))))
    counted = cast(build, build.emit("and", (before, is_first)), dtype("i32"))
    return is_first, reduced(build, "reduce_sum", counted, 1)


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Compress", _compress),
    OpType("NonZero", _non_zero),
    OpType("Unique", _unique),
)
