"""Fewer iterations for long kernels: how few of a loop show everything that all of them do.

A loop is shortened only when its iterations differ in nothing but the boxes and the turn of ring addresses.
The ring's turn repeats with its modulus, so the shortened trip count is congruent to the real one; semaphores
let queues run apart by at most their initial counts, so a few iterations more than those last for suffice.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import numpy as np

from birc.runtime.program import Affine, Kernel, Register, RingAddress, Window
from birc.runtime.verifier.scope import Place, places, trip_limits
from birc.runtime.verifier.unroll import Ints, LoopPath, by_path

FEWEST_ITERATIONS: Final = 4
MORE_THAN_AHEAD: Final = 2


class Shortener:
    """Trip counts to walk for the loops of one kernel; callable as `unroll` wants it."""

    def __init__(self, kernel: Kernel) -> None:
        self._trips: dict[LoopPath, tuple[int, int]] = {}  # least trips, period
        inside: defaultdict[LoopPath, list[Place]] = defaultdict(list)
        for place in places(kernel):
            for depth in range(len(place.loops)):
                inside[place.path[: depth + 1]].append(place)
        for path, loop in by_path(kernel).items():
            depth = len(path) - 1
            if loop.level == "tile" and not _is_fixed(depth, inside[path]):
                self._trips[path] = (_least(kernel, depth, inside[path]), _period(depth, inside[path]))

    def __call__(self, path: LoopPath, trips: Ints) -> Ints:
        known = self._trips.get(path)
        if known is None:
            return trips
        least, period = known
        # The smallest count of at least `least` that is congruent to the real one.
        return np.minimum(trips, least + (trips - least) % period)


def _is_fixed(depth: int, inside: list[Place]) -> bool:
    """Whether every iteration has to be walked: they differ in trip counts, registers, semaphores, tile
    places or windows.
    """
    numbers: list[Affine] = []
    for place in inside:
        numbers += [inner.limit for inner in place.loops if inner.limit is not None]
        numbers += [sync.semaphore for sync in place.instruction.waits + place.instruction.posts]
        for operand in place.instruction.operands:
            if isinstance(operand, Register):
                numbers.append(operand.number)
            elif isinstance(operand, RingAddress):
                numbers.append(operand.base)
            elif isinstance(operand, Window):
                numbers += [operand.top, operand.left]
    return any(number.coefficient(depth) for number in numbers)


def _period(depth: int, inside: list[Place]) -> int:
    period = 1
    for place in inside:
        for operand in place.instruction.operands:
            if isinstance(operand, RingAddress) and operand.index.coefficient(depth):
                turn = operand.modulo // math.gcd(operand.modulo, operand.index.coefficient(depth))
                period = math.lcm(period, turn)
    return period


def _least(kernel: Kernel, depth: int, inside: list[Place]) -> int:
    """Enough iterations that every semaphore with an initial count blocks its queue."""
    waits: Mapping[int, int] = _waits_per_iteration(depth, inside)
    ahead = 0
    for number, count in waits.items():
        if 0 <= number < len(kernel.semaphores) and count:
            ahead = max(ahead, -(-kernel.semaphores[number] // count))
    return max(FEWEST_ITERATIONS, ahead + MORE_THAN_AHEAD)


def _waits_per_iteration(depth: int, inside: list[Place]) -> dict[int, int]:
    """How often each semaphore is waited for in one iteration of the loop at `depth`, masks taken into
    account.
    """
    waits: defaultdict[int, int] = defaultdict(int)
    for place in inside:
        trips = trip_limits(place.loops)
        for sync in place.instruction.waits:
            mask = sync.first | sync.last
            inner = range(depth + 1, len(place.loops))
            count = math.prod(trips[at] for at in inner if not mask >> at & 1)
            if not mask >> depth & 1 and not sync.semaphore.terms:
                waits[sync.semaphore.constant] += count
    return waits
