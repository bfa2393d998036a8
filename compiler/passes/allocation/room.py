"""Whether there is room for one more block: by the bytes that live, or by an address that is free."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from birc.compiler.passes.allocation.blocks import Block


class Room(Protocol):
    """A memory that takes blocks one after the other."""

    def has(self, num_bytes: int, start: int, end: int) -> bool:
        """Whether there is room for a block that lives in the steps start <= step < end."""
        ...

    def take(self, num_bytes: int, start: int, end: int) -> bool:
        """Take a block; False, without taking it, when there is no room."""
        ...


class LiveBytes:
    """Room as far as the sum of what lives at once goes: whether there are addresses for it remains to be seen."""

    def __init__(self, capacity_bytes: int, steps: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.live = np.zeros(steps, np.int64)

    def has(self, num_bytes: int, start: int, end: int) -> bool:
        """Whether a block fits beside what lives in its steps."""
        return int(self.live[start:end].max()) + num_bytes <= self.capacity_bytes

    def take(self, num_bytes: int, start: int, end: int) -> bool:
        """Take a block when it fits."""
        if not self.has(num_bytes, start, end):
            return False
        self.live[start:end] += num_bytes
        return True


class Arena:
    """Room with addresses: every block lies at the lowest one that is free throughout its life.

    `addresses` are those of the blocks that were taken, in their order; `height_bytes` is their highest end.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.addresses: list[int] = []
        self.height_bytes = 0
        self._placed = np.zeros((4, 0), np.int64)  # low and high address, start and end of the life, sorted by low

    def has(self, num_bytes: int, start: int, end: int) -> bool:
        """Whether there is a gap for a block."""
        return self._gap(num_bytes, start, end) is not None

    def take(self, num_bytes: int, start: int, end: int) -> bool:
        """Take a block when there is a gap for it."""
        address = self._gap(num_bytes, start, end)
        if address is None:
            return False
        self.addresses.append(address)
        self.height_bytes = max(self.height_bytes, address + num_bytes)
        place = int(np.searchsorted(self._placed[0], address))
        self._placed = np.insert(self._placed, place, (address, address + num_bytes, start, end), axis=1)
        return True

    def largest_gap(self, life: Block) -> int:
        """The bytes of the largest gap that is free throughout the life of a block."""
        lows, highs = self._gaps(life.start, life.end)
        return max(0, int((highs - lows).max()))

    def _gap(self, num_bytes: int, start: int, end: int) -> int | None:
        """The lowest address at which a block fits."""
        lows, highs = self._gaps(start, end)
        fitting = np.flatnonzero(highs - lows >= num_bytes)
        return int(lows[fitting[0]]) if len(fitting) else None

    def _gaps(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """The low and high addresses between blocks that live in some of the steps start <= step < end."""
        lows, highs, starts, ends = self._placed
        living = (starts < end) & (ends > start)
        return (
            np.concatenate(([0], np.maximum.accumulate(highs[living]))),
            np.concatenate((lows[living], [self.capacity_bytes])),
        )
