"""Lowering of GridSample: elements gathered from around computed positions, in any number of dimensions.

Source of the formulas: ONNX operator reference, GridSample; the cubic kernel is that of R. G. Keys (1981), a = -0.75.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.floats import in_f32, require_single
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.term import Term, as_term, where
from birc.runtime.errors import BadModelError

_MODES: Final = {"bilinear": "linear", "bicubic": "cubic", "linear": "linear", "cubic": "cubic", "nearest": "nearest"}
_PADDINGS: Final = ("zeros", "border", "reflection")
_CUBIC: Final = -0.75
_MOST_NEIGHBOURS: Final = 256


@dataclass(frozen=True, slots=True)
class _Tap:
    """The index of one neighbour along one axis, i32[batch, points], and its weight; None: 1."""

    index: Term
    weight: Term | None


def _grid_sample(node: OnnxNode, build: GraphBuilder) -> Results:
    x, grid = node.input(0), node.input(1)
    shape, points = build.shape(x), build.shape(grid)
    rank = len(shape) - 2
    if rank < 1 or len(points) != rank + 2 or points[0] != shape[0] or points[-1] != rank:
        raise BadModelError(f"a grid {list(points)} for {list(shape)}", where=node.where)
    mode = _MODES.get(node.string_attribute("mode", "bilinear" if node.version < 20 else "linear"))
    padding = node.string_attribute("padding_mode", "zeros")
    if mode is None or padding not in _PADDINGS:
        given = f"mode {node.attributes.get('mode')!r}, padding_mode {padding!r}"
        raise BadModelError(f"GridSample does not know {given}", where=node.where)
    kind = build.type_of(x).dtype
    _check(build, x, grid, mode, rank)
    is_aligned = bool(node.int_attribute("align_corners", 0))
    data = x if mode == "nearest" else in_f32(build, x)
    table = _Table.of(Term(build, data), padding == "zeros")
    places = Term(build, in_f32(build, grid)).reshape(points[0], math.prod(points[1:-1]), rank)
    # The grid names the last axis first.
    axes = [
        _taps(places.at(2, rank - 1 - axis), size, mode, padding, is_aligned) for axis, size in enumerate(shape[2:])
    ]
    sampled = _interpolated(table, axes, None)
    return cast(build, table.restored(sampled, points[1:-1]).name, kind)


def _check(build: GraphBuilder, x: str, grid: str, mode: str, rank: int) -> None:
    require_single(build, x, grid)
    kind = build.type_of(x).dtype
    if mode != "nearest" and not kind.is_float and kind.bits > 16:
        raise CannotLower(f"interpolation of {kind.name}, which FP32 does not hold")
    neighbours = {"nearest": 1, "linear": 2, "cubic": 4}[mode] ** rank
    if neighbours > _MOST_NEIGHBOURS:
        raise CannotLower(f"{neighbours} neighbours of each point are gathered; {_MOST_NEIGHBOURS} at most")


@dataclass(frozen=True, slots=True)
class _Table:
    """The image with its spatial elements in one dimension: [channels, elements] of the one image of a batch, else
    [batch * elements, channels].

    `is_ringed`: zeros stand around it, so that what is outside needs no case of its own.
    """

    values: Term
    batch: int
    channels: int
    sizes: tuple[int, ...]
    is_ringed: bool

    @classmethod
    def of(cls, x: Term, is_ringed: bool) -> _Table:
        """The table of [batch, channels, *sizes]."""
        batch, channels, *spatial = x.shape
        if is_ringed:
            around = (0, 0, *(1 for _ in spatial))
            x = x.row("pad", pads=(*around, *around), value=0.0)
        sizes = x.shape[2:]
        count = math.prod(sizes)
        lined = x.reshape(batch, channels, count)
        if batch == 1:
            return cls(lined.reshape(channels, count), batch, channels, sizes, is_ringed)
        rows = lined.transpose(0, 2, 1).reshape(batch * count, channels)
        return cls(rows, batch, channels, sizes, is_ringed)

    def at(self, indices: Sequence[Term]) -> Term:
        """The elements at one index an axis: [channels, points] or [batch, points, channels]."""
        shift = int(self.is_ringed)
        address = indices[0] + shift
        for index, size in zip(indices[1:], self.sizes[1:], strict=True):
            address = address * size + (index + shift)
        if self.batch == 1:
            return self.values.gather(address.reshape(address.shape[1]), 1)
        starts = np.arange(self.batch, dtype=np.int32).reshape(self.batch, 1) * math.prod(self.sizes)
        return self.values.gather(address + starts, 0)

    def aligned(self, weight: Term) -> Term:
        """A weight [batch, points] so that it broadcasts against elements."""
        return weight if self.batch == 1 else weight.reshape(*weight.shape, 1)

    def restored(self, sampled: Term, points: Sequence[int]) -> Term:
        """[batch, channels, *points]"""
        whole = sampled if self.batch == 1 else sampled.transpose(0, 2, 1)
        return whole.reshape(self.batch, self.channels, *points)


def _interpolated(table: _Table, axes: Sequence[Sequence[_Tap]], chosen: Sequence[Term] | None) -> Term:
    """The sum over the taps of the first axis of what the others give there."""
    before = list(chosen or ())
    if len(before) == len(axes):
        return table.at(before)
    total: Term | None = None
    for tap in axes[len(before)]:
        value = _interpolated(table, axes, (*before, tap.index))
        if tap.weight is not None:
            value = value * table.aligned(tap.weight)
        total = value if total is None else total + value
    if total is None:
        raise BadModelError("an axis has no neighbours")
    return total


def _taps(place: Term, size: int, mode: str, padding: str, is_aligned: bool) -> list[_Tap]:
    """The neighbours along an axis of `size` elements of the normalised places [batch, points]."""
    if is_aligned:
        low, high = 0.0, size - 1.0
        x = (place + 1.0) * 0.5 * (size - 1.0)
    else:
        low, high = -0.5, size - 0.5
        x = ((place + 1.0) * float(size) - 1.0) * 0.5
    if mode == "nearest":
        x = x.row("round")
    if padding == "border":
        x = as_term(x.build, where((x < low) | (x > high), x.within(0, size - 1), x))
    elif padding == "reflection":
        x = _reflected(x, low, high)
    if mode == "nearest":
        return [_Tap(_index(x, size, padding, low, high), None)]
    base = x.row("floor")
    fraction = x - base
    offsets = range(2) if mode == "linear" else range(-1, 3)
    weights = _linear(fraction) if mode == "linear" else _cubic(fraction)
    return [
        _Tap(_index(base + float(offset), size, padding, low, high), weight)
        for offset, weight in zip(offsets, weights, strict=True)
    ]


def _index(place: Term, size: int, padding: str, low: float, high: float) -> Term:
    """A whole place as an index; with zeros around the image, the elements just outside are -1 and `size`."""
    if padding == "zeros":
        return place.within(-1, size).to("i32")
    if padding == "reflection":
        place = _reflected(place, low, high)
    return place.within(0, size - 1).to("i32")


def _reflected(x: Term, low: float, high: float) -> Term:
    """x where it is within the borders, else mirrored at them until it is."""
    span = high - low
    if span == 0:
        return x * 0.0 + low
    below, above = low - x, x - high
    beyond = below.at_least(above).at_least(0.0)
    times = (beyond * (1.0 / span)).row("floor")
    # The quotient is rounded, so that the rest may lie a little outside of the span.
    rest = (beyond - times * span).within(0.0, span)
    is_odd = (times - (times * 0.5).row("floor") * 2.0) > 0.5
    from_low = as_term(x.build, where(is_odd, high - rest, low + rest))
    from_high = as_term(x.build, where(is_odd, low + rest, high - rest))
    inside = as_term(x.build, where(x > high, from_high, x))
    return as_term(x.build, where(x < low, from_low, inside))


def _linear(fraction: Term) -> list[Term]:
    return [1.0 - fraction, fraction]


def _cubic(fraction: Term) -> list[Term]:
    """Keys' kernel at the distances 1 + f, f, 1 - f, 2 - f."""
    a = _CUBIC

    def outer(d: Term) -> Term:
        return ((d * a - 5 * a) * d + 8 * a) * d - 4 * a

    def inner(d: Term) -> Term:
        return (d * (a + 2) - (a + 3)) * d * d + 1.0

    return [outer(fraction + 1.0), inner(fraction), inner(1.0 - fraction), outer(2.0 - fraction)]


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("GridSample", _grid_sample),)
