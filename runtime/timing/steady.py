"""Which iterations of a loop cost the same: the range in which nothing depends on its variable.

The walk may skip iterations only inside that range: no box is clipped differently, no `first` or `last`
condition holds, no inner loop is shortened, and no semaphore or register number moves.
"""

from __future__ import annotations

from dataclasses import dataclass

from birc.runtime.program import Affine
from birc.runtime.timing.steps import AxisSpec, LoopSpec, SpcKernel, StepSpec, SyncSpec

_UNBOUNDED = 1 << 60


@dataclass(frozen=True, slots=True)
class SteadyRange:
    """Iterations first:end cost the same; `spares_last`: but never the last of the actual trip."""

    first: int
    end: int
    spares_last: bool

    def end_within(self, trips: int) -> int:
        """The end of the range in a loop of `trips` iterations."""
        return min(self.end, trips - self.spares_last)


_EMPTY = SteadyRange(0, 0, False)


def steady_ranges(kernel: SpcKernel) -> dict[int, SteadyRange]:
    """The steady range of each loop, by its number."""
    ranges: dict[int, SteadyRange] = {}
    for step, loops in kernel.steps():
        for loop in loops:
            known = ranges.get(loop.number, SteadyRange(0, loop.extent, False))
            ranges[loop.number] = _narrow(known, _of_step(step, loops, loop))
    return ranges


def _narrow(a: SteadyRange, b: SteadyRange) -> SteadyRange:
    return SteadyRange(max(a.first, b.first), min(a.end, b.end), a.spares_last or b.spares_last)


def _of_step(step: StepSpec, loops: tuple[LoopSpec, ...], loop: LoopSpec) -> SteadyRange:
    """The iterations of `loop` in which `step` and the loops between them behave alike."""
    depth = loop.depth
    numbers = [*(sync.semaphore for sync in step.waits + step.posts), *step.reads]
    if step.writes is not None:
        numbers.append(step.writes)
    if loop.spread or any(number.coefficient(depth) for number in numbers):
        return _EMPTY
    trips = {around.depth: around.extent for around in loops}
    found = SteadyRange(int(_in_first(step, depth)), loop.extent, _in_last(step.waits + step.posts, depth))
    for inner in loops:
        if inner.limit is not None and inner.limit.coefficient(depth):
            found = _narrow(found, _solve(inner.limit, depth, trips, inner.extent, _UNBOUNDED))
    for axis in step.access.axes if step.access else ():
        if axis.fixed is None and axis.start.coefficient(depth):
            found = _narrow(found, _inside(axis, depth, trips))
    return found


def _in_first(step: StepSpec, depth: int) -> bool:
    masks = [sync.first for sync in step.waits + step.posts]
    return any(depth in mask for mask in masks) or depth in (step.first or ())


def _in_last(syncs: tuple[SyncSpec, ...], depth: int) -> bool:
    return any(depth in sync.last for sync in syncs)


def _inside(axis: AxisSpec, depth: int, trips: dict[int, int]) -> SteadyRange:
    """The iterations in which the whole axis is in bounds whatever the other loops do."""
    reach = (axis.extent - 1) * axis.step
    return _solve(axis.start, depth, trips, axis.low - min(0, reach), axis.high - 1 - max(0, reach))


def _solve(affine: Affine, depth: int, trips: dict[int, int], low: int, high: int) -> SteadyRange:
    """The values of one variable for which low <= affine <= high for all values of the others."""
    others = [coefficient * (trips[d] - 1) for d, coefficient in affine.terms if d != depth]
    least = low - affine.constant - sum(min(0, reach) for reach in others)
    most = high - affine.constant - sum(max(0, reach) for reach in others)
    factor = affine.coefficient(depth)
    if factor < 0:
        factor, least, most = -factor, -most, -least
    return SteadyRange(max(0, -(-least // factor)), max(0, most // factor + 1), False)
