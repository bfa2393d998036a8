"""The orders in which the tiles of a product can go, row by row or otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LAST_ROWS: Final = 2
"""Rows of a block that may go column by column: what is loaded of them stays until the last column."""


@dataclass(frozen=True, slots=True)
class TileOrder:
    """The order in which the tiles of a product go; in one of them groups of so many rows are `shifted`."""

    name: str
    shifted: int = 0


IN_TURN: Final = TileOrder("in_turn")
"""Row after row."""
OVERLAPPING: Final = TileOrder("overlapping")
"""The same, but the only vector program finishes a row while it takes the sums of the next (row_overlap.py)."""
BY_COLUMNS: Final = TileOrder("by_columns")
"""The last `LAST_ROWS` of a block go column by column, so that the slots of its first columns are free the earlier."""
WINDING: Final = TileOrder("winding")
"""The same, and the next block of columns begins with those rows, which are there, and goes back to the first."""
OPENING: Final = TileOrder("opening")
"""Of the columns past rows that stay, as many as there are rows go row by row first, while others are still to come."""


def shifted(rows: int) -> TileOrder:
    """Groups of so many first rows of a block take their chunks of the depth a step apart, all other rows together."""
    return TileOrder("shifted", rows)
