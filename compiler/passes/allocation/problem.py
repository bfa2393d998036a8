"""A placement problem in the form that the searches work on: sizes in units, lifetimes in maximal live sets."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from birc.compiler.passes.allocation.blocks import Block, maximal_steps


@dataclass(frozen=True)
class Problem:
    """Blocks, by number: `sizes` in units of `unit_bytes`, alive in the live sets starts <= set < ends.

    `live` are the units that live in each set.
    """

    unit_bytes: int
    sizes: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    live: tuple[int, ...]

    @property
    def bound(self) -> int:
        """The most units that live at once."""
        return max(self.live, default=0)

    @cached_property
    def neighbours(self) -> tuple[tuple[int, ...], ...]:
        """The blocks with which each block lives at some time."""
        return _neighbours(self.starts, self.ends)

    @cached_property
    def conflicts(self) -> tuple[int, ...]:
        """With how many others each block lives at some time."""
        starts, ends = sorted(self.starts), sorted(self.ends)
        lives = zip(self.starts, self.ends, strict=True)
        return tuple(bisect_left(starts, end) - bisect_right(ends, start) - 1 for start, end in lives)

    @cached_property
    def pairs(self) -> int:
        """How often two blocks live at the same time, each pair counted twice."""
        return sum(self.conflicts)

    def live_sets(self) -> list[list[int]]:
        """The blocks of each maximal live set."""
        sets: list[list[int]] = [[] for _ in self.live]
        for number, (start, end) in enumerate(zip(self.starts, self.ends, strict=True)):
            for place in range(start, end):
                sets[place].append(number)
        return sets

    def height(self, addresses: Sequence[int]) -> int:
        """The highest end."""
        return max((low + size for low, size in zip(addresses, self.sizes, strict=True)), default=0)


def problem_of(blocks: Sequence[Block]) -> Problem:
    """The problem of blocks of at least one byte. The unit is the greatest common divisor of their sizes."""
    unit_bytes = math.gcd(*(block.num_bytes for block in blocks))
    steps = maximal_steps(blocks)
    sizes = tuple(block.num_bytes // unit_bytes for block in blocks)
    starts = tuple(bisect_left(steps, block.start) for block in blocks)
    ends = tuple(bisect_left(steps, block.end) for block in blocks)
    changes = [0] * (len(steps) + 1)
    for size, start, end in zip(sizes, starts, ends, strict=True):
        changes[start] += size
        changes[end] -= size
    return Problem(unit_bytes, sizes, starts, ends, tuple(accumulate(changes[:-1])))


def _neighbours(starts: Sequence[int], ends: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    first, after = np.array(starts), np.array(ends)
    found = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        together = (first < end) & (after > start)
        together[number] = False
        found.append(tuple(np.flatnonzero(together).tolist()))
    return tuple(found)
