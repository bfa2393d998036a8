"""Which boxes of which tensors a kernel's instructions touch, on every SPC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from birc.runtime.program import Axis, Box, Descriptor, Kernel, Loop
from birc.runtime.verifier.boxes import Boxes, clip
from birc.runtime.verifier.scope import Place, places
from birc.runtime.verifier.unroll import Ints, affine_values

Bindings = Mapping[int, Descriptor]  # by slot


@dataclass(frozen=True, slots=True)
class Access:
    """A static instruction that reads or, if `store`, writes memory. `hulls` has one box for each SPC: the
    parts in bounds of all its iterations there.
    """

    place: Place
    box: Box
    descriptor: Descriptor
    store: bool
    indexed: tuple[int, int] | None  # axis and count of an indexed load
    hulls: Boxes
    unclipped: Boxes

    @property
    def slot(self) -> int:
        return self.box.slot

    def boxes(self, variables: Ints) -> Boxes:
        """The box in bounds of each iteration."""
        return clip(self.exact(variables), self.descriptor, self._clamps)

    def exact(self, variables: Ints) -> Boxes:
        """The box of each iteration, in bounds or not."""
        starts = np.stack([affine_values(axis.start, variables) for axis in self.box.axes], axis=1)
        reach = np.array([self._reach(number, axis) for number, axis in enumerate(self.box.axes)], np.int64)
        return Boxes(starts + np.minimum(reach, 0), starts + np.maximum(reach, 0) + 1)

    @property
    def _clamps(self) -> bool:
        return self.box.fill == "clamp" and not self.store

    def _reach(self, number: int, axis: Axis) -> int:
        return axis_reach(axis, self.indexed, number)


def axis_reach(axis: Axis, indexed: tuple[int, int] | None, number: int) -> int:
    """How far from its start the last element of an axis lies; negative for negative steps."""
    if indexed is not None and indexed[0] == number:
        return max(0, indexed[1] - 1)
    return (axis.extent - 1) * axis.step


def kernel_accesses(kernel: Kernel, bindings: Bindings, coordinates: Ints) -> tuple[Access, ...]:
    """Every access to memory of a kernel; `coordinates` [SPCs, spc loops] as `unroll.spc_coordinates` gives
    them.

    The slots must be bound to tensors of the boxes' ranks.
    """
    return tuple(
        _access(place, box, bindings[box.slot], coordinates) for place in places(kernel) for box in boxes_of(place)
    )


def boxes_of(place: Place) -> list[Box]:
    return [operand for operand in place.instruction.operands if isinstance(operand, Box)]


def _access(place: Place, box: Box, descriptor: Descriptor, coordinates: Ints) -> Access:
    store = place.instruction.mnemonic == "vst"
    indexed = None
    if place.instruction.mnemonic == "vldx":
        axis, count = place.operand("axis"), place.operand("count")
        if not isinstance(axis, int) or not isinstance(count, int):
            raise TypeError(place.name())
        indexed = (axis, count)
    trips = _trips(place.loops, coordinates)
    low = np.zeros((len(coordinates), len(box.axes)), np.int64)
    high = np.zeros_like(low)
    for number, side in enumerate(box.axes):
        first, last = _interval(side.start.constant, side.start.terms, trips, coordinates)
        reach = axis_reach(side, indexed, number)
        low[:, number] = first + min(0, reach)
        high[:, number] = last + max(0, reach) + 1
    runs = np.all(trips > 0, axis=1) if trips.shape[1] else np.ones(len(coordinates), np.bool_)
    unclipped = Boxes(low, np.where(runs[:, None], high, low))
    inside = clip(unclipped, descriptor, nearest=box.fill == "clamp" and not store)
    hulls = Boxes(inside.low, np.where(runs[:, None], inside.high, inside.low))
    return Access(place, box, descriptor, store, indexed, hulls, unclipped)


def _trips(loops: tuple[Loop, ...], coordinates: Ints) -> Ints:
    """The largest trip count of each loop on each SPC; 0 for an spc loop that it is not part of."""
    trips = np.zeros((len(coordinates), 0), np.int64)
    for depth, loop in enumerate(loops):
        most = np.full(len(coordinates), loop.extent, np.int64)
        if loop.limit is not None:
            _, last = _interval(loop.limit.constant, loop.limit.terms, trips, coordinates)
            most = np.minimum(most, np.maximum(0, last))
        if loop.level == "spc":
            most = (coordinates[:, depth] < most).astype(np.int64)
        trips = np.concatenate([trips, most[:, None]], axis=1)
    return trips


def _interval(constant: int, terms: tuple[tuple[int, int], ...], trips: Ints, coordinates: Ints) -> tuple[Ints, Ints]:
    """The least and the largest value (inclusive) on each SPC."""
    low = np.full(len(coordinates), constant, np.int64)
    high = low.copy()
    for depth, factor in terms:
        if depth < coordinates.shape[1]:
            low += factor * coordinates[:, depth]
            high += factor * coordinates[:, depth]
            continue
        span = factor * np.maximum(0, trips[:, depth] - 1)
        low += np.minimum(0, span)
        high += np.maximum(0, span)
    return low, high
