"""Lowering of DeformConv: what each position of the window samples is gathered, then a product sums it up.

Source: ONNX operator reference, DeformConv; between pixels the samples are linear, beyond the image zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import require_helpers
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape, slice_axis
from birc.compiler.importer.window import Sizes, Window, checked, padded_window
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError

MOST_DIMENSIONS: Final = 6
"""A sample has two neighbours in each dimension: 64 of them."""


@dataclass(frozen=True, slots=True)
class _Neighbour:
    """One of the two pixels beside a sample along one dimension: its place in the image, and its share."""

    place: str
    share: str


def _deform_conv(node: OnnxNode, build: GraphBuilder) -> Results:
    x, w, offset, bias, mask = node.input(0), node.input(1), node.input(2), node.optional(3), node.optional(4)
    shape, weights, element = build.shape(x), build.shape(w), build.type_of(x).dtype
    spatial, rank = shape[2:], len(shape) - 2
    window = checked(node, padded_window(node, weights[2:], spatial), spatial)
    group, sharing = node.int_attribute("group", 1), node.int_attribute("offset_group", 1)
    taps, results = math.prod(window.kernel), window.results(spatial)
    offsets = (shape[0], sharing * taps * rank, *results)
    if shape[1] % sharing or shape[1] != weights[1] * group or weights[0] % group or build.shape(offset) != offsets:
        raise BadModelError(
            f"offsets {list(build.shape(offset))} and weights {list(weights)} for an input {list(shape)}, "
            f"{group} groups and {sharing} of offsets",
            where=node.where,
        )
    if rank > MOST_DIMENSIONS:
        raise CannotLower(f"samples between the pixels of {rank} dimensions, more than {MOST_DIMENSIONS}")
    places = math.prod(results)
    require_helpers(shape[0] * shape[1] * taps * places, "what the windows sample")
    moved = cast(build, reshape(build, offset, (shape[0], sharing, taps, rank, places)), dtype("f32"))
    neighbours = []
    for axis, (positions, size) in enumerate(zip(_positions(window, results), spatial, strict=True)):
        along = reshape(build, slice_axis(build, moved, 3, axis, axis + 1), (shape[0], sharing, taps, places))
        neighbours.append(_neighbours(build, along, positions, size))
    samples = _sampled(build, x, sharing, neighbours)
    if mask:
        factor = cast(build, reshape(build, mask, (shape[0], sharing, taps, places, 1)), dtype("f32"))
        samples = build.emit("mul", (samples, factor))
    columns = build.emit("transpose", (cast(build, samples, element),), {"perm": (0, 1, 4, 2, 3)})
    columns = reshape(build, columns, (shape[0], group, weights[1] * taps, places))
    rows = reshape(build, w, (1, group, weights[0] // group, weights[1] * taps))
    result = reshape(build, build.emit("matmul", (rows, columns)), (shape[0], weights[0], *results))
    if bias:
        result = build.emit("add", (result, reshape(build, bias, (weights[0], *(1,) * rank))))
    return result


def _positions(window: Window, results: Sizes) -> list[np.ndarray]:
    """Where the undisplaced window's positions lie, dimension by dimension: taps x places."""
    taps = np.indices(window.kernel).reshape(len(window.kernel), -1, 1)
    places = np.indices(results).reshape(len(results), 1, -1)
    return [
        (place * stride + tap * dilation - begin).astype(np.float32)
        for tap, place, stride, dilation, begin in zip(
            taps, places, window.stride, window.dilation, window.begins, strict=True
        )
    ]


def _neighbours(build: GraphBuilder, offset: str, positions: np.ndarray, size: int) -> tuple[_Neighbour, _Neighbour]:
    """The pixels before and after each sample along a dimension of `size`; those outside have no share."""
    at = build.emit("add", (offset, build.constant(positions)))
    before = build.emit("floor", (at,))
    rest = build.emit("sub", (at, before))
    after = build.emit("add", (before, build.scalar(1, before)))
    less = build.emit("sub", (build.scalar(1, rest), rest))
    return _neighbour(build, before, less, size), _neighbour(build, after, rest, size)


def _neighbour(build: GraphBuilder, at: str, share: str, size: int) -> _Neighbour:
    inside = build.emit(
        "and",
        (
            build.emit("greater_equal", (at, build.scalar(0, at))),
            build.emit("less_equal", (at, build.scalar(size - 1, at))),
        ),
    )
    place = build.emit("clip", (at,), {"minimum": 0.0, "maximum": float(size - 1)})
    return _Neighbour(cast(build, place, dtype("i32")), build.emit("where", (inside, share, build.scalar(0, share))))


def _sampled(build: GraphBuilder, x: str, sharing: int, neighbours: list[tuple[_Neighbour, _Neighbour]]) -> str:
    """What is sampled: (batch, group of offsets, tap, place, channel of the group), in FP32.

    A pixel's channels lie beside each other, so that each gather reads a run of memory.
    """
    batch, channels, *spatial = build.shape(x)
    pixels = math.prod(spatial)
    grouped = reshape(build, cast(build, x, dtype("f32")), (batch, sharing, channels // sharing, pixels))
    table = build.emit("transpose", (grouped,), {"perm": (0, 1, 3, 2)})
    table = reshape(build, table, (batch * sharing * pixels, channels // sharing))
    first = build.constant(np.arange(batch * sharing, dtype=np.int32).reshape(batch, sharing, 1, 1) * pixels)
    total = ""
    for corner in product((0, 1), repeat=len(spatial)):
        row, share = first, ""
        for axis, side in enumerate(corner):
            chosen = neighbours[axis][side]
            step = build.scalar(math.prod(spatial[axis + 1 :]), chosen.place)
            row = build.emit("add", (row, build.emit("mul", (chosen.place, step))))
            share = build.emit("mul", (share, chosen.share)) if share else chosen.share
        seen = build.emit("gather", (table, row), {"axis": 0})
        part = build.emit("mul", (seen, reshape(build, share, (*build.shape(share), 1))))
        total = build.emit("add", (total, part)) if total else part
    return total


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("DeformConv", _deform_conv, since=19),)
