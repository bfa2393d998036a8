"""Lowering of indexed writes, said as reads: each element of the result asks which update hits it.

The device has no indexed store. Known indices make a table of data and updates from which known rows are taken. With
few updates each is laid over the data in turn; with many, every element compares itself with all of them.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import around, counting, from_end, is_within, reduced, require_helpers
from birc.compiler.importer.floats import widened
from birc.compiler.importer.index import elements_along
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape, slice_axis
from birc.runtime.errors import BadModelError

_FEW: Final = 16
"""Updates that are laid over the data one by one."""

_LARGEST_COMPARISONS: Final = 1 << 27
"""Pairs of an element and an update that one node may compare."""

_COMBINE: Final = {"add": "add", "mul": "mul", "max": "maximum", "min": "minimum"}
_REDUCE: Final = {"add": "reduce_sum", "mul": "reduce_prod", "max": "reduce_max", "min": "reduce_min"}


def _scatter_elements(node: OnnxNode, build: GraphBuilder) -> Results:
    """Updates at an index along one axis, and at their own place in all other dimensions."""
    data, indices, updates = (node.input(place) for place in range(3))
    shape, given = build.shape(data), build.shape(indices)
    axis = positive_axis(node, node.int_attribute("axis", 0), len(shape))
    if len(given) != len(shape) or build.shape(updates) != given:
        raise BadModelError(f"indices {list(given)} and updates {list(build.shape(updates))}", where=node.where)
    reduction = _reduction(node)
    if 0 in given:
        return data
    known = build.constant_of(indices)
    if known is not None and reduction == "none":
        address = list(np.indices(given))
        address[axis] = _counted(node, known, shape[axis])
        rows = np.ravel_multi_index(tuple(address), shape).reshape(-1)
        table, new = (reshape(build, value, (build.type_of(value).num_elements, 1)) for value in (data, updates))
        return reshape(build, _placed(build, table, new, rows), shape)
    positions = _checked(node, build, indices, shape[axis])
    block = data
    for place, size in enumerate(given):
        block = block if place == axis else slice_axis(build, block, place, 0, size)
    seen = [reshape(build, value, around(build.shape(value), axis)) for value in (block, positions, updates)]
    result = reshape(build, _scattered(build, seen[0], seen[1], seen[2], reduction), build.shape(block))
    return _pasted(build, result, data)


def _scatter_nd(node: OnnxNode, build: GraphBuilder) -> Results:
    """Updates at whole addresses: rows of a table, whose number is computed from the address."""
    data, indices, updates = (node.input(place) for place in range(3))
    shape, given = build.shape(data), build.shape(indices)
    depth, count = given[-1], math.prod(given[:-1])
    if depth > len(shape) or build.shape(updates) != (*given[:-1], *shape[depth:]):
        raise BadModelError(f"indices {list(given)} and updates {list(build.shape(updates))}", where=node.where)
    reduction = _reduction(node)
    if 0 in build.shape(updates):
        return data
    sizes, inner = shape[:depth], math.prod(shape[depth:])
    table = reshape(build, data, (math.prod(sizes), inner))
    new = reshape(build, updates, (count, inner))
    known = build.constant_of(indices)
    if known is not None and reduction == "none":
        columns = [_counted(node, known[..., place], size).reshape(-1) for place, size in enumerate(sizes)]
        rows = np.ravel_multi_index(tuple(columns), sizes) if sizes else np.zeros(count, np.int64)
        return reshape(build, _placed(build, table, new, rows), shape)
    row = build.splat(0, build.type_of(indices).with_shape((count,)))
    flat = reshape(build, indices, (count, depth))
    for place, size in enumerate(sizes):
        column = reshape(build, slice_axis(build, flat, 1, place, place + 1), (count,))
        step = build.scalar(math.prod(sizes[place + 1 :]), flat)
        row = build.emit("add", (row, build.emit("mul", (_checked(node, build, column, size), step))))
    row = reshape(build, row, (1, count, 1))
    seen = [reshape(build, value, (1, *build.shape(value))) for value in (table, new)]
    return reshape(build, _scattered(build, seen[0], row, seen[1], reduction), shape)


def _reduction(node: OnnxNode) -> str:
    found = node.string_attribute("reduction", "none")
    if found != "none" and found not in _COMBINE:
        raise BadModelError(f"reduction {found!r} is not one of ONNX", where=node.where)
    return found


def _counted(node: OnnxNode, indices: np.ndarray, size: int) -> np.ndarray:
    """Known indices counted from the start."""
    if np.any((indices < -size) | (indices >= size)):
        raise BadModelError(f"indices leave an axis of {size}", where=node.where)
    return np.where(indices < 0, indices + size, indices)


def _checked(node: OnnxNode, build: GraphBuilder, indices: str, size: int) -> str:
    """Indices counted from the start, from a program that faults for those outside of the axis."""
    known = build.constant_of(indices)
    if known is not None:
        return build.constant(_counted(node, known, size).astype(known.dtype))
    return from_end(build, build.guarded(indices, is_within(build, indices, -size, size)), size)


def _placed(build: GraphBuilder, data: str, updates: str, rows: np.ndarray) -> str:
    """A table whose `rows`, known now, are replaced by those of `updates`; of several for one row the last counts."""
    count = build.shape(data)[0]
    require_helpers(count, "the map from rows to updates")
    source = np.arange(count)
    source[rows] = count + np.arange(len(rows))
    both = build.emit("concat", (data, updates), {"axis": 0})
    breaks = np.flatnonzero(np.diff(source) != 1) + 1
    if len(breaks) >= _FEW:
        return build.emit("gather", (both, build.constant(source)), {"axis": 0})
    starts = [0, *breaks.tolist()]
    ends = [*breaks.tolist(), count]
    parts = []
    for start, end in zip(starts, ends, strict=True):
        first, is_old = int(source[start]), source[start] < count
        origin, offset = (data, first) if is_old else (updates, first - count)
        parts.append(slice_axis(build, origin, 0, offset, offset + end - start))
    return build.emit("concat", parts, {"axis": 0}) if len(parts) > 1 else parts[0]


def _scattered(build: GraphBuilder, data: str, positions: str, updates: str, reduction: str) -> str:
    """Updates (outer, m, inner) at positions (outer, m, inner or 1) along the second dimension of `data`."""
    kept = build.type_of(data).dtype
    if reduction in ("add", "mul"):
        data, updates = widened(build, data), widened(build, updates)
    if build.shape(updates)[1] <= _FEW:
        return cast(build, _overlaid(build, data, positions, updates, reduction), kept)
    outer, size, inner = build.shape(data)
    count = build.shape(updates)[1]
    require_helpers(outer * size * count * build.shape(positions)[2], "the comparison of elements with updates")
    asked = reshape(build, positions, (outer, 1, count, build.shape(positions)[2]))
    numbers = counting(build, size, 2, build.type_of(positions).dtype)
    hits = build.emit("equal", (asked, numbers))
    if reduction == "none":
        return _last_hits(build, data, updates, hits)
    if outer * size * count * inner > _LARGEST_COMPARISONS:
        raise CannotLower(f"{size} elements by {count} updates, too many to compare")
    row, new = _REDUCE[reduction], reshape(build, updates, (outer, 1, count, inner))
    old = reshape(build, data, (outer, size, 1, inner))
    neutral = old if reduction in ("max", "min") else build.scalar(int(reduction == "mul"), data)
    combined = reduced(build, row, build.emit("where", (hits, new, neutral)), 2)
    return cast(build, build.emit(_COMBINE[reduction], (data, combined)), kept)


def _overlaid(build: GraphBuilder, data: str, positions: str, updates: str, reduction: str) -> str:
    """The updates one after the other, each chosen where its position is."""
    numbers = counting(build, build.shape(data)[1], 1, build.type_of(positions).dtype)
    for place in range(build.shape(updates)[1]):
        new = slice_axis(build, updates, 1, place, place + 1)
        hit = build.emit("equal", (slice_axis(build, positions, 1, place, place + 1), numbers))
        if reduction != "none":
            new = build.emit(_COMBINE[reduction], (data, new))
        data = build.emit("where", (hit, new, data))
    return data


def _last_hits(build: GraphBuilder, data: str, updates: str, hits: str) -> str:
    """The last update that hits, where one does."""
    outer, size, count, width = build.shape(hits)
    inner = build.shape(updates)[2]
    numbers = counting(build, count, 1)
    last = reduced(build, "reduce_max", build.emit("where", (hits, numbers, build.scalar(-1, numbers))), 2)
    is_hit = build.emit("greater_equal", (last, build.scalar(0, last)))
    safe = build.emit("maximum", (last, build.scalar(0, last)))
    if width == inner:
        chosen = elements_along(build, updates, safe, 1)
    else:
        first = build.constant((np.arange(outer, dtype=np.int32) * count).reshape(outer, 1))
        rows = build.emit("add", (reshape(build, safe, (outer, size)), first))
        chosen = build.emit("gather", (reshape(build, updates, (outer * count, inner)), rows), {"axis": 0})
    return build.emit("where", (is_hit, chosen, data))


def _pasted(build: GraphBuilder, block: str, data: str) -> str:
    """`data` with its first elements in each dimension replaced by a block."""
    covered = build.shape(block)
    for axis in reversed(range(len(covered))):
        size = build.shape(data)[axis]
        if covered[axis] == size:
            continue
        rest = slice_axis(build, data, axis, covered[axis], size)
        for before in range(axis):
            rest = slice_axis(build, rest, before, 0, covered[before])
        block = build.emit("concat", (block, rest), {"axis": axis})
    return block


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Scatter", _scatter_elements, until=10),
    OpType("ScatterElements", _scatter_elements, since=11),
    OpType("ScatterND", _scatter_nd, since=11),
)
