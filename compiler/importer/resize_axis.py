"""One axis of a Resize: where its new elements lie among the old ones, and what they take from them.

Source of the formulas: ONNX operator reference, Resize; R. G. Keys, Cubic convolution interpolation (1981). They
are computed in FP32, now when scale and region are known, else by the program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.onnx_node import CannotLower
from birc.compiler.importer.term import (
    Number,
    Term,
    as_term,
    ceil,
    floor,
    larger,
    lies_within,
    magnitude,
    quotient,
    smaller,
    where,
)

_MOST_TAPS: Final = 256


@dataclass(frozen=True, slots=True)
class Filter:
    """The attributes of a Resize that say how an element is made from its neighbours.

    `nearest` may also be "simple": down for an axis that grows, up for one that shrinks, which is what operator
    set 10 means without saying so (its test cases do).
    """

    mode: str
    coordinates: str
    nearest: str = "round_prefer_floor"
    cubic_coeff: float = -0.75
    is_antialiased: bool = False
    excludes_outside: bool = False
    extrapolation: float = 0.0


@dataclass(frozen=True, slots=True)
class AxisChange:
    """An axis of `old` elements that becomes one of `new`.

    `scale` is their ratio as the model gives it, `length` the length that it asks for, which may be a fraction;
    `least_scale` is a lower bound of the scale. `region` is where the new axis begins and ends on the old one.
    """

    axis: int
    old: int
    new: int
    scale: Number
    length: Number
    least_scale: float
    region: tuple[Number, Number] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the new axis is the old one, element for element."""
        if self.old == 1 and self.new == 1:
            return True
        ends = self.region or (np.float32(0), np.float32(1))
        parts = (self.scale, self.length, *ends)
        if self.old != self.new or any(isinstance(part, Term) for part in parts):
            return False
        return bool(self.scale == 1) and bool(ends[0] == 0) and bool(ends[1] == 1)


@dataclass(frozen=True, slots=True)
class _Tap:
    """For each new element one old one, held to the axis, and its weight; None: 1."""

    index: Number
    weight: Number | None


def resize_axis(build: GraphBuilder, x: str, change: AxisChange, kernel: Filter) -> str:
    """`x` (FP32 unless the mode is nearest) with one axis resized."""
    shape = build.shape(x)
    target = (*shape[: change.axis], change.new, *shape[change.axis + 1 :])
    if change.old == 1:
        return build.emit("expand", (x,), {"shape": target})
    place = _coordinates(change, kernel.coordinates)
    taps = _taps(change, kernel, place)
    made = _weighted(Term(build, x), taps, change.axis)
    if kernel.coordinates == "tf_crop_and_resize":
        made = _extrapolated(made, place, change, kernel.extrapolation)
    return made.name


def _coordinates(change: AxisChange, kind: str) -> Number:
    """Where each new element lies on the old axis, in its elements."""
    position = np.arange(change.new, dtype=np.float32)
    half, last = np.float32(0.5), np.float32(change.old - 1)
    if kind == "asymmetric":
        return quotient(position, change.scale)
    if kind == "align_corners":
        return _between_corners(position * last, change)
    if kind == "tf_crop_and_resize":
        if change.region is None:
            raise CannotLower("tf_crop_and_resize without a region of interest")
        start, end = change.region
        spread = start * last + _between_corners(position * (end - start) * last, change)
        if change.new > 1:
            return spread
        return where(_is(change.length, 1), half * (start + end) * last, spread)
    if kind == "tf_half_pixel_for_nn":
        return quotient(position + half, change.scale)
    if kind == "pytorch_half_pixel" and change.new == 1:
        return np.zeros(1, np.float32)
    shift = half
    if kind == "half_pixel_symmetric":
        surplus = np.float32(1) - quotient(np.asarray(change.new, np.float32), change.length)
        return (np.float32(change.old / 2) * surplus + quotient(position + half, change.scale)) - half
    return quotient(position + half, change.scale) - shift


def _between_corners(scaled: Number, change: AxisChange) -> Number:
    """scaled / (length - 1); 0 for an axis of length 1, whose only element is at 0 anyway."""
    gaps = change.length - np.float32(1)
    return quotient(scaled, where(_is(gaps, 0), np.float32(1), gaps))


def _is(value: Number, number: float) -> Number:
    return value.equals(number) if isinstance(value, Term) else np.asarray(value == number)


def _taps(change: AxisChange, kernel: Filter, place: Number) -> list[_Tap]:
    if kernel.mode == "nearest":
        return [_Tap(_held(_nearest(place, change, kernel.nearest), change.old), None)]
    base = floor(place)
    offsets, weights = _weights(change, kernel, place - base)
    if kernel.excludes_outside:
        weights = _without_outside(change, base, offsets, weights)
    taps = [_Tap(_held(base + np.float32(offset), change.old), w) for offset, w in zip(offsets, weights, strict=True)]
    return [tap for tap in taps if isinstance(tap.weight, Term) or np.any(tap.weight)]


def _held(place: Number, count: int) -> Number:
    """Whole places as indices of an axis of `count` elements; beyond its ends the last element stands."""
    held = smaller(larger(place, 0.0), float(count - 1))
    return held.to("i32") if isinstance(held, Term) else held.astype(np.int32)


def _nearest(place: Number, change: AxisChange, kind: str) -> Number:
    half = np.float32(0.5)
    if kind == "simple":
        if not isinstance(change.scale, Term):
            return ceil(place) if change.scale < 1 else floor(place)
        return where(change.scale < 1.0, ceil(place), floor(place))
    if kind == "floor":
        return floor(place)
    if kind == "ceil":
        return ceil(place)
    return ceil(place - half) if kind == "round_prefer_floor" else floor(place + half)


def _weights(change: AxisChange, kernel: Filter, fraction: Number) -> tuple[range, list[Number]]:
    """Offsets from the element below, and the weight of each for every new element."""
    one = np.float32(1)
    is_cubic = kernel.mode == "cubic"
    if not kernel.is_antialiased:
        if not is_cubic:
            return range(2), [one - fraction, fraction]
        offsets = range(-1, 3)
        return offsets, [_cubic(magnitude(np.float32(o) - fraction), kernel.cubic_coeff, abs(o - 0.5) < 1)
                         for o in offsets]  # fmt: skip
    shrink = smaller(change.scale, 1.0)
    reach = math.floor(-(2 if is_cubic else 1) / min(change.least_scale, 1.0)) + 1
    offsets = range(reach, 2 - reach)
    if len(offsets) > _MOST_TAPS:
        raise CannotLower(f"each new element takes {len(offsets)} old ones; {_MOST_TAPS} at most")
    distances = [magnitude((np.float32(offset) - fraction) * shrink) for offset in offsets]
    if is_cubic:
        return offsets, _normalised([_whole_cubic(d, kernel.cubic_coeff) for d in distances])
    return offsets, _normalised([larger(one - d, 0.0) for d in distances])


def _cubic(distance: Number, a: float, is_inner: bool) -> Number:
    """Keys' kernel at most 1 from the element (`is_inner`), or from 1 to 2."""
    c = np.float32(a)
    if is_inner:
        return ((c + np.float32(2)) * distance - (c + np.float32(3))) * distance * distance + np.float32(1)
    return ((c * distance - np.float32(5) * c) * distance + np.float32(8) * c) * distance - np.float32(4) * c


def _whole_cubic(distance: Number, a: float) -> Number:
    outer = where(distance < np.float32(2), _cubic(distance, a, False), np.float32(0))
    return where(distance <= np.float32(1), _cubic(distance, a, True), outer)


def _normalised(weights: Sequence[Number]) -> list[Number]:
    """The weights over their sum; all 0 where they are."""
    total = sum(weights[1:], start=weights[0])
    safe = where(_is(total, 0), np.float32(1), total)
    return [quotient(weight, safe) for weight in weights]


def _without_outside(change: AxisChange, base: Number, offsets: range, weights: Sequence[Number]) -> list[Number]:
    kept = []
    for offset, weight in zip(offsets, weights, strict=True):
        place = base + np.float32(offset)
        kept.append(where(lies_within(place, 0, change.old - 1), weight, np.float32(0)))
    return _normalised(kept)


def _weighted(x: Term, taps: Sequence[_Tap], axis: int) -> Term:
    """The sum of the taps along an axis."""
    total: Term | None = None
    for tap in taps:
        element = _picked(x, tap.index, axis)
        if tap.weight is not None and (isinstance(tap.weight, Term) or np.any(tap.weight != 1)):
            element = element * _along(x, tap.weight, axis)
        total = element if total is None else total + element
    if total is None:
        raise CannotLower("no element has a weight")
    return total


def _along(x: Term, values: Number, axis: int) -> Term:
    """A number for each element of an axis of `x`."""
    term = as_term(x.build, values)
    return term.reshape(term.shape[0], *(1,) * (len(x.shape) - axis - 1))


def _picked(x: Term, index: Number, axis: int) -> Term:
    """The elements at `index` of an axis: all, those at a regular distance, or gathered ones."""
    if isinstance(index, Term):
        return x.gather(index, axis)
    shape = x.shape
    steps = np.unique(np.diff(index)) if len(index) > 1 else np.ones(1, np.int64)
    if len(steps) == 1 and steps[0] > 0:
        if len(index) == shape[axis] and steps[0] == 1:
            return x
        starts, ends, distances = [0] * len(shape), list(shape), [1] * len(shape)
        starts[axis], ends[axis], distances[axis] = int(index[0]), int(index[-1]) + 1, int(steps[0])
        return x.row("slice", starts=tuple(starts), ends=tuple(ends), steps=tuple(distances))
    return x.gather(index, axis)


def repeats(change: AxisChange, kernel: Filter) -> int:
    """How often each old element stands in the new axis, when that is all that happens to it; else 0."""
    if kernel.mode != "nearest" or change.new % change.old or kernel.coordinates == "tf_crop_and_resize":
        return 0
    place = _coordinates(change, kernel.coordinates)
    if isinstance(place, Term):
        return 0
    (tap,) = _taps(change, kernel, place)
    times = change.new // change.old
    return times if np.array_equal(np.asarray(tap.index), np.repeat(np.arange(change.old), times)) else 0


def _extrapolated(made: Term, place: Number, change: AxisChange, value: float) -> Term:
    """`value` for the new elements that lie outside of the old axis."""
    is_inside = lies_within(place, 0, change.old - 1)
    if not isinstance(is_inside, Term) and np.all(is_inside):
        return made
    return as_term(made.build, where(_along(made, is_inside, change.axis), made, np.float32(value)))
