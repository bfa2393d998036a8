"""Facts about ranges of bytes: what is known to lie where, until something else is written there."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Generic, TypeVar

Fact = TypeVar("Fact")


class IntervalMap(Generic[Fact]):
    """Half-open ranges of addresses, each with a fact; a new fact replaces those of the bytes it covers."""

    __slots__ = ("_ends", "_facts", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._facts: list[Fact] = []

    def set(self, start: int, end: int, fact: Fact) -> None:
        """Make `fact` the one of start:end."""
        if start >= end:
            return
        self.clear(start, end)
        at = bisect_left(self._starts, start)
        self._insert(at, start, end, fact)

    def clear(self, start: int, end: int) -> None:
        """Forget what is known of start:end."""
        first, after = self._overlapping(start, end)
        pieces = []
        for at in range(first, after):
            if self._starts[at] < start:
                pieces.append((self._starts[at], start, self._facts[at]))
            if self._ends[at] > end:
                pieces.append((end, self._ends[at], self._facts[at]))
        del self._starts[first:after], self._ends[first:after], self._facts[first:after]
        for piece in reversed(pieces):
            self._insert(first, *piece)

    def overlapping(self, start: int, end: int) -> Iterator[tuple[int, int, Fact]]:
        """The ranges, as they were set and cut since, that overlap start:end."""
        first, after = self._overlapping(start, end)
        for at in range(first, after):
            yield self._starts[at], self._ends[at], self._facts[at]

    def covers(self, start: int, end: int) -> bool:
        """Whether something is known of every byte of start:end."""
        for low, high, _ in self.overlapping(start, end):
            if low > start:
                return False
            start = max(start, high)
        return start >= end

    def _overlapping(self, start: int, end: int) -> tuple[int, int]:
        return bisect_right(self._ends, start), bisect_left(self._starts, end)

    def _insert(self, at: int, start: int, end: int, fact: Fact) -> None:
        self._starts.insert(at, start)
        self._ends.insert(at, end)
        self._facts.insert(at, fact)
