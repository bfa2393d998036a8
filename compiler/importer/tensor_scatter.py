"""Lowering of TensorScatter: new entries of a cache, each batch's from its own place on."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.counting import counting, from_end, is_within
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.shape import reshape, slice_axis
from birc.runtime.errors import BadModelError

_FEW: Final = 8
"""Entries that are laid over the cache one by one: decoding writes one."""


def _tensor_scatter(node: OnnxNode, build: GraphBuilder) -> Results:
    """Places count from 0; beyond the end they go on at the start if the mode is `circular`."""
    cache, update, given = node.input(0), node.input(1), node.optional(2)
    shape = build.shape(cache)
    axis, mode = (
        positive_axis(node, node.int_attribute("axis", -2), len(shape)),
        node.string_attribute("mode", "linear"),
    )
    size, count = shape[axis], build.shape(update)[axis]
    if axis == 0 or count > size or mode not in ("linear", "circular"):
        raise BadModelError(f"writes {count} entries along axis {axis} of {list(shape)}, {mode}", where=node.where)
    is_circular = mode == "circular"
    known = build.constant_of(given) if given else np.zeros(shape[0], np.int64)
    if known is not None:
        starts = np.unique(known % size if is_circular else known)
        if len(starts) == 1 and 0 <= starts[0] <= size - count:
            return _known(build, cache, update, axis, int(starts[0]))
    begin = given or build.constant(np.zeros(shape[0], np.int64))
    if is_circular:
        begin = build.emit("mod", (begin, build.scalar(size, begin)))
    elif known is None:
        begin = build.guarded(begin, is_within(build, begin, 0, size - count + 1))
    elif np.any((known < 0) | (known > size - count)):
        raise BadModelError(f"writes {count} entries beyond the end of {size}", where=node.where)
    outer, inner = math.prod(shape[1:axis]), math.prod(shape[axis + 1 :])
    old = reshape(build, cache, (shape[0], outer, size, inner))
    new = reshape(build, update, (shape[0], outer, count, inner))
    begin = reshape(build, begin, (shape[0], 1, 1, 1))
    lay = _overlaid if count <= _FEW else _gathered
    return reshape(build, lay(build, old, new, begin), shape)


def _known(build: GraphBuilder, cache: str, update: str, axis: int, begin: int) -> str:
    """One known place for all batches: what stands before it, the update, what stands behind."""
    size, end = build.shape(cache)[axis], begin + build.shape(update)[axis]
    parts = [update]
    if begin:
        parts.insert(0, slice_axis(build, cache, axis, 0, begin))
    if end < size:
        parts.append(slice_axis(build, cache, axis, end, size))
    return build.emit("concat", parts, {"axis": axis}) if len(parts) > 1 else update


def _wrapped(build: GraphBuilder, places: str, size: int) -> str:
    """Places that are less than one size beyond the end, counted on from the start."""
    outside = build.emit("greater_equal", (places, build.scalar(size, places)))
    return build.emit("where", (outside, build.emit("sub", (places, build.scalar(size, places))), places))


def _overlaid(build: GraphBuilder, cache: str, update: str, begin: str) -> str:
    """Each entry chosen where its place is."""
    size = build.shape(cache)[2]
    numbers = counting(build, size, 1, build.type_of(begin).dtype)
    for step in range(build.shape(update)[2]):
        place = build.emit("add", (begin, build.scalar(step, begin))) if step else begin
        hit = build.emit("equal", (_wrapped(build, place, size), numbers))
        cache = build.emit("where", (hit, slice_axis(build, update, 2, step, step + 1), cache))
    return cache


def _gathered(build: GraphBuilder, cache: str, update: str, begin: str) -> str:
    """Each place of the cache takes the row of the update that is as far from the begin, where there is one."""
    batch, outer, size, inner = build.shape(cache)
    count = build.shape(update)[2]
    distance = build.emit("sub", (counting(build, size, 1, build.type_of(begin).dtype), begin))
    distance = reshape(build, from_end(build, distance, size), (batch, 1, size))
    is_new = build.emit("less", (distance, build.scalar(count, distance)))
    safe = build.emit("where", (is_new, distance, build.scalar(0, distance)))
    first = np.arange(batch * outer).reshape(batch, outer, 1) * count
    rows = build.emit("add", (safe, build.constant(first.astype(build.type_of(begin).dtype.numpy))))
    chosen = build.emit("gather", (reshape(build, update, (batch * outer * count, inner)), rows), {"axis": 0})
    return build.emit("where", (reshape(build, is_new, (batch, 1, size, 1)), chosen, cache))


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("TensorScatter", _tensor_scatter, since=24),)
