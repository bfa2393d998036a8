"""Which column tiles of a block a piece of code is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Place = Mapping[int | None, int]
"""The number of a tile along one dimension of its block, by the depths of loops; None where there is no loop."""

NOWHERE: Place = {}


@dataclass(frozen=True, slots=True)
class Part:
    """Some neighbouring column tiles of a block of `columns`: the `first`, and how many."""

    first: int
    count: int
    columns: int

    @property
    def begins(self) -> bool:
        """Whether it has the first tile of the block."""
        return self.first == 0

    @property
    def ends(self) -> bool:
        """Whether it has the last tile of the block."""
        return self.first + self.count == self.columns


WHOLE = Part(0, 1, 1)
"""Both the first and the last of what the loops around go over."""
