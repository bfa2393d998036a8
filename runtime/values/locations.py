"""Places that instructions write and read: registers and input buffer addresses as functions of loop indices.

Sequentially, a read sees the last write of the same place. `find_writer` turns that into a relation between whole
loops: which earlier write, and which of its loops are which loops of the reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Final

import numpy as np
import numpy.typing as npt

from birc.runtime.program import RingAddress
from birc.runtime.values.form import Coordinate, LoopVariable, Tile, Value, substitute
from birc.runtime.values.index_space import CannotRaiseError

Ints = npt.NDArray[np.int64]
_NOWHERE: Final = Coordinate(0, ())
# More addresses than this are not compared one by one: they count as overlapping.
_MOST_ADDRESSES: Final = 1 << 20


@dataclass(frozen=True)
class Place:
    """`base + stride * (ring mod modulo)` over the loop indices around an instruction."""

    base: Coordinate
    stride: int
    ring: Coordinate
    modulo: int
    variables: tuple[LoopVariable, ...]
    extents: dict[int, int]  # of the loop indices

    @cached_property
    def loops(self) -> tuple[int, ...]:
        """The loop indices around, outermost first."""
        return tuple(variable.index for variable in self.variables if variable.index is not None)

    @cached_property
    def coefficients(self) -> dict[int, tuple[int, int]]:
        """For each loop index that matters: its factors in base and ring."""
        base, ring = dict(self.base.terms), dict(self.ring.terms)
        return {index: (base.get(index, 0), ring.get(index, 0)) for index in {**base, **ring}}

    @cached_property
    def reach(self) -> tuple[int, int]:
        """The lowest and the highest address that there can be."""
        low = high = self.base.constant
        for index, factor in self.base.terms:
            distance = factor * (self.extents[index] - 1)
            low, high = low + min(0, distance), high + max(0, distance)
        turn = self.stride * (self.modulo - 1)
        return low + min(0, turn), high + max(0, turn)

    def addresses(self, fixed: frozenset[int], phase: int = 0) -> Ints | None:
        """Every address while the `fixed` indices stand still, the ring moved by `phase`; None if too many."""
        moving = [index for index in self.coefficients if index not in fixed and self.extents[index] > 1]
        if prod(self.extents[index] for index in moving) > _MOST_ADDRESSES:
            return None
        base, ring = np.array(self.base.constant), np.array(self.ring.constant + phase)
        for index in moving:
            steps = np.arange(self.extents[index])
            base_factor, ring_factor = self.coefficients[index]
            base = base[..., None] + base_factor * steps
            ring = ring[..., None] + ring_factor * steps
        return np.ravel(base + self.stride * (ring % self.modulo))


@dataclass(frozen=True, slots=True)
class Write:
    """A write of a place: what it left there, and the loops that must have ended before anyone may read it."""

    place: Place
    content: Value | Tile
    instruction: int
    time: int
    pending: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Read:
    """A read of a place, and the time of the write that it saw."""

    place: Place
    time: int
    writer: Write


def place_of(number: Coordinate, variables: tuple[LoopVariable, ...], extents: dict[int, int]) -> Place:
    """The place of a register."""
    return Place(number, 0, _NOWHERE, 1, variables, extents)


def ring_place(ring: RingAddress, variables: tuple[LoopVariable, ...], extents: dict[int, int]) -> Place:
    """The place of a tile in an input buffer."""
    base, index = substitute(ring.base, variables), substitute(ring.index, variables)
    if not index.terms or not ring.stride or ring.modulo == 1:
        constant = base.constant + ring.stride * (index.constant % ring.modulo)
        return place_of(Coordinate(constant, base.terms), variables, extents)
    return Place(base, ring.stride, index, ring.modulo, variables, extents)


def find_writer(writes: Sequence[Write], place: Place, instruction: int) -> tuple[Write, list[tuple[int, int]]]:
    """The write that a read at `place` sees, and pairs (loop index of the write, of the read) that are equal.

    Raises `CannotRaiseError` when there is none, or when different iterations see different writes.
    """
    for write in reversed(writes):
        pairs = _match(write.place, place)
        if pairs is None:
            if _overlap(write.place, place):
                raise CannotRaiseError("iterations of a read see different writes", _apart(write.place, place))
            continue
        _check_complete(write, place, pairs, instruction)
        return write, pairs
    raise CannotRaiseError("reads what an earlier iteration left", _innermost(place))


def _match(write: Place, read: Place) -> list[tuple[int, int]] | None:
    """Pairs of equal loop indices that make the two places the same in every iteration of the read."""
    if (write.stride, write.modulo) != (read.stride, read.modulo):
        return None
    if write.base.constant != read.base.constant:
        return None
    if (write.ring.constant - read.ring.constant) % write.modulo:
        return None
    pairs = []
    unmatched = dict(read.coefficients)
    for index, factors in write.coefficients.items():
        if index in read.loops:
            partner = index if unmatched.get(index) == factors else None
        else:
            wanted = (factors, write.extents[index])
            candidates = (
                other
                for other, its_factors in unmatched.items()
                if other not in write.loops and (its_factors, read.extents[other]) == wanted
            )
            partner = next(candidates, None)
        if partner is None:
            return None
        del unmatched[partner]
        if partner != index:
            pairs.append((index, partner))
    return None if unmatched else pairs


def _check_complete(write: Write, read: Place, pairs: list[tuple[int, int]], instruction: int) -> None:
    """The write must be whole where it is read, and each of its iterations must still be there."""
    if write.instruction != instruction:
        inside = next((index for index in reversed(read.loops) if index in write.pending), None)
        if inside is not None:
            raise CannotRaiseError("reads a sum before it is complete", _loop_of(read, inside))
    renamed = {index for index, _ in pairs}
    for index in write.content.loops:
        if index not in read.loops and index not in renamed:
            raise CannotRaiseError("a loop leaves only its last iteration", _loop_of(write.place, index))
    if not distinct(write.place, frozenset(read.loops)):
        raise CannotRaiseError("iterations write the same place", _apart(write.place, read))


def distinct(place: Place, fixed: frozenset[int]) -> bool:
    """Whether the indices that matter and are not fixed give different addresses."""
    moving = [index for index in place.coefficients if index not in fixed and place.extents[index] > 1]
    if not moving:
        return True
    addresses = place.addresses(fixed)
    return addresses is not None and len(np.unique(addresses)) == addresses.size


def _overlap(write: Place, read: Place) -> bool:
    """Whether the places have an address in common in one iteration of the loops around both."""
    if not _reach_meets(write, read):
        return False
    common = frozenset(write.loops) & frozenset(read.loops)
    alike = all(write.coefficients.get(index) == read.coefficients.get(index) for index in common)
    same_ring = (write.stride, write.modulo) == (read.stride, read.modulo)
    phases = write.modulo if alike and same_ring else 1
    return any(_meet(write, read, common if alike and same_ring else frozenset(), phase) for phase in range(phases))


def overlaps_over(write: Place, read: Place, loop: int, outside: frozenset[int]) -> bool:
    """Whether a write and a read meet in different iterations of the loop index `loop`.

    `outside` are the indices of the loops around it.
    """
    if loop in write.coefficients and _match(write, read) == [] and distinct(write, outside):
        return False  # each iteration has a place of its own
    fixed = outside & frozenset(write.loops) & frozenset(read.loops)
    return _reach_meets(write, read) and any(_meet(write, read, fixed, phase) for phase in range(write.modulo))


def _reach_meets(write: Place, read: Place) -> bool:
    return write.reach[0] <= read.reach[1] and read.reach[0] <= write.reach[1]


def _meet(write: Place, read: Place, fixed: frozenset[int], phase: int) -> bool:
    written, wanted = write.addresses(fixed, phase), read.addresses(fixed, phase)
    if written is None or wanted is None:
        return True
    return bool(np.isin(wanted, written).any())


def _apart(write: Place, read: Place) -> int | None:
    """A loop around only one of the two places; taken one by one, its addresses become constants.

    It is one that has no counterpart around the other place, if there is such a loop.
    """
    pairs = ((write, read), (read, write))
    alone = [
        (place, other, index)
        for place, other in pairs
        for index in reversed(place.loops)
        if index not in other.loops and index in place.coefficients
    ]
    if alone:
        place, _, index = min(alone, key=lambda one: _has_counterpart(*one))
        return _loop_of(place, index)
    return next((_loop_of(read, index) for index in reversed(read.loops) if index in write.loops), None)


def _has_counterpart(place: Place, other: Place, index: int) -> bool:
    """Whether a loop around the other place alone moves that as the loop `index` moves the first one."""
    factors = place.coefficients[index], place.extents[index]
    return any(
        (its_factors, other.extents[its]) == factors
        for its, its_factors in other.coefficients.items()
        if its not in place.loops
    )


def _innermost(place: Place) -> int | None:
    return _loop_of(place, place.loops[-1]) if place.loops else None


def _loop_of(place: Place, index: int) -> int:
    return next(variable.loop for variable in place.variables if variable.index == index)
