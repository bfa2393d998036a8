"""Cuts a part into blocks that stay in the cache and keep every thread busy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Final

from birc.runtime.values.frame import Region

# The largest array of a block: products pay for small blocks by packing the other operand again, vector work
# wants all its operands in the cache at once.
_PRODUCT_BLOCK_BYTES: Final = 2 << 20
_VECTOR_BLOCK_BYTES: Final = 256 << 10
# A block of a product has at least so many rows or columns, if there are as many.
_LEAST_ROWS: Final = 64
_LEAST_COLUMNS: Final = 192
# Work below this is not worth handing to another thread, which costs about 50 us.
_LEAST_SHARED_WORK: Final = 4e6


@dataclass(frozen=True, slots=True)
class Work:
    """What a part computes: bytes of its largest array, multiply-adds and elements of all operations."""

    largest_bytes: int
    macs: int
    elements: int

    @property
    def cost(self) -> float:
        """In multiply-adds; an element of vector work takes about as long as 30 of them."""
        return self.macs + 30.0 * self.elements


@dataclass(frozen=True, slots=True)
class Sides:
    """The axes of a part that blocks may cut, by what they are in its products; outermost first.

    Without products all are `batch`.
    """

    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]


def block_lengths(whole: Region, sides: Sides, work: Work, threads: int) -> dict[int, int]:
    """How long a block is on each axis that is cut, by position."""
    target = _PRODUCT_BLOCK_BYTES if work.macs else _VECTOR_BLOCK_BYTES
    wanted = -(-work.largest_bytes // target)
    if threads > 1 and work.cost >= _LEAST_SHARED_WORK:
        wanted = -(-max(wanted, threads) // threads) * threads
    lengths: dict[int, int] = {}
    blocks = 1
    for positions, least in ((sides.batch, 1), (sides.rows, _LEAST_ROWS), (sides.columns, _LEAST_COLUMNS)):
        length_of = {position: whole[position][1] - whole[position][0] for position in positions}
        together = prod(length_of.values())
        for position in positions:
            if blocks >= wanted:
                return lengths
            length = length_of[position]
            pieces = min(length, -(-wanted // blocks), max(1, together // least))
            if pieces <= 1:
                continue
            piece = -(-length // pieces)
            lengths[position] = piece
            blocks *= -(-length // piece)
            together = together // length * piece
    return lengths


def cut(whole: Region, lengths: dict[int, int]) -> list[Region]:
    """The blocks of a region, in order."""
    pieces: list[Sequence[tuple[int, int]]] = []
    for position, (first, end) in enumerate(whole):
        length = lengths.get(position, end - first)
        starts = range(first, end, max(1, length))
        pieces.append([(start, min(start + length, end)) for start in starts])
    return list(product(*pieces))
