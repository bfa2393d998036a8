"""Whether there is room for one more block: by the bytes that live, or by an address that is free."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from birc.compiler.passes.allocation.blocks import Block


class Room(Protocol):
    """A memory that takes blocks one after the other."""

    def take(self, num_bytes: int, start: int, end: int) -> bool:
        """Take a block that lives in the steps start <= step < end; False, without taking it, when there is no room."""
        ...


class LiveBytes:
    """Room as far as the sum of what lives at once goes: whether there are addresses for it remains to be seen."""

    def __init__(self, capacity_bytes: int, steps: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.live = np.zeros(steps, np.int64)

    def take(self, num_bytes: int, start: int, end: int) -> bool:
        """Take a block when it fits beside what lives in its steps."""
        if int(self.live[start:end].max()) + num_bytes > self.capacity_bytes:
            return False
        self.live[start:end] += num_bytes
        return True


@dataclass(slots=True)
class Arena:
    """Room with addresses: every block lies at the lowest one that is free throughout its life.

    `addresses` are those of the blocks that were taken, in their order.
    """

    capacity_bytes: int
    addresses: list[int] = field(default_factory=list)
    _placed: list[tuple[int, int, int, int]] = field(default_factory=list)

    def take(self, num_bytes: int, start: int, end: int) -> bool:
        """Take a block when there is a gap for it."""
        gaps = self._gaps(start, end)
        address = next((low for low, high in gaps if high - low >= num_bytes), None)
        if address is None:
            return False
        insort(self._placed, (address, address + num_bytes, start, end))
        self.addresses.append(address)
        return True

    def largest_gap(self, life: Block) -> int:
        """The bytes of the largest gap that is free throughout the life of a block."""
        return max((high - low for low, high in self._gaps(life.start, life.end)), default=0)

    def _gaps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """What is free in all of the steps start <= step < end, as addresses low <= address < high."""
        reached = 0
        for low, high, other_start, other_end in self._placed:
            if other_start >= end or other_end <= start:
                continue
            if low > reached:
                yield reached, low
            reached = max(reached, high)
        yield reached, self.capacity_bytes
