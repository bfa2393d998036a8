"""Lowering of TopK: the largest or least elements along an axis, in order.

Short axes: each element counts those that come before it, all pairs at once. Long ones: the best is found and struck
out, k times.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import (
    LARGEST_HELPER_ELEMENTS,
    around,
    counting,
    reduced,
)
from birc.compiler.importer.floats import is_number
from birc.compiler.importer.index import elements_along
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError

_LARGEST_COUNT: Final = 400
"""Elements that are found one by one, about nine nodes each."""


def _top_k(node: OnnxNode, build: GraphBuilder) -> Results:
    """Values and positions; equal elements by their position. A NaN counts as infinity."""
    x, shape = node.input(0), build.shape(node.input(0))
    axis = positive_axis(node, node.int_attribute("axis", -1), len(shape))
    largest = bool(node.int_attribute("largest", 1))
    count = _count(node, build, axis)
    if not 0 <= count <= shape[axis]:
        raise BadModelError(f"asks for the first {count} of {shape[axis]} elements", where=node.where)
    outer, size, inner = around(shape, axis)
    seen = reshape(build, x, (outer, size, inner))
    key = _comparable(build, seen)
    if outer * size * max(size, count) * inner <= LARGEST_HELPER_ELEMENTS:
        found = _by_rank(build, key, count, largest)
    elif count <= _LARGEST_COUNT:
        found = _one_by_one(build, key, count, largest)
    else:
        raise CannotLower(f"the first {count} of {size} elements, more than {_LARGEST_COUNT} of a long axis")
    wanted = (*shape[:axis], count, *shape[axis + 1 :])
    values = reshape(build, elements_along(build, seen, found, 1), wanted)
    positions = reshape(build, cast(build, found, dtype("i64")), wanted)
    if node.version >= 10 and build.constant_of(node.input(1)) is None:
        given = reshape(build, node.input(1), ())
        agrees = build.emit("equal", (given, build.scalar(count, given)))
        values, positions = build.guarded(values, agrees), build.guarded(positions, agrees)
    return (values, positions)[: len(node.outputs)]


def _count(node: OnnxNode, build: GraphBuilder, axis: int) -> int:
    """The number of elements: an attribute until operator set 9; known, or what the model declares."""
    if node.version < 10:
        return node.int_attribute("k", 0)
    known = build.constant_of(node.input(1))
    if known is not None:
        return int(known.reshape(()))
    declared = build.declared_shape(node, 0) or build.declared_shape(node, 1)
    if declared is None:
        raise CannotLower("the number of elements comes from the inputs of the model")
    return declared[axis]


def _comparable(build: GraphBuilder, x: str) -> str:
    """`x` with infinity for NaN, so that any two elements compare."""
    element = build.type_of(x).dtype
    if not element.is_float:
        return x
    return build.emit("where", (is_number(build, x), x, build.scalar(math.inf, x)))


def _by_rank(build: GraphBuilder, key: str, count: int, largest: bool) -> str:
    """An element's rank is the number of those before it; the element of rank r is the r-th of the result."""
    outer, size, inner = build.shape(key)
    mine = reshape(build, key, (outer, size, 1, inner))
    other = reshape(build, key, (outer, 1, size, inner))
    before = build.emit("greater" if largest else "less", (other, mine))
    earlier = build.constant(np.tri(size, k=-1, dtype=np.bool_).reshape(size, size, 1))
    tied = build.emit("and", (build.emit("equal", (other, mine)), earlier))
    counted = cast(build, build.emit("or", (before, tied)), dtype("i32"))
    rank = reduced(build, "reduce_sum", counted, 2)
    rank = reshape(build, rank, (outer, 1, size, inner))
    chosen = build.emit("equal", (rank, counting(build, count, 2)))
    numbers = counting(build, size, 1)
    positions = build.emit("where", (chosen, numbers, build.scalar(0, numbers)))
    return reduced(build, "reduce_sum", positions, 2)


def _one_by_one(build: GraphBuilder, key: str, count: int, largest: bool) -> str:
    """The best of those that are left, `count` times."""
    size = build.shape(key)[1]
    extreme, opposite = ("reduce_max", "reduce_min") if largest else ("reduce_min", "reduce_max")
    worst = reduced(build, opposite, key, 1, keep=True)
    numbers = counting(build, size, 1)
    left, found = "", []
    for _ in range(count):
        candidates = build.emit("where", (left, key, worst)) if left else key
        hits = build.emit("equal", (candidates, reduced(build, extreme, candidates, 1, keep=True)))
        hits = build.emit("and", (hits, left)) if left else hits
        positions = build.emit("where", (hits, numbers, build.scalar(size, numbers)))
        found.append(reduced(build, "reduce_min", positions, 1, keep=True))
        others = build.emit("not", (build.emit("equal", (numbers, found[-1])),))
        left = build.emit("and", (left, others)) if left else others
    return build.emit("concat", found, {"axis": 1}) if len(found) > 1 else found[0]


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("TopK", _top_k),)
