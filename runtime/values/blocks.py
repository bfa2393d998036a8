"""Cuts a part into blocks that stay in the cache and keep every thread busy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from birc.runtime.values.frame import Region


@dataclass(frozen=True, slots=True)
class Blocking:
    """How parts are cut.

    The largest array of a block has about `product_bytes` beside products and `vector_bytes` otherwise: products
    pay for small blocks by packing the other operand again, vector work wants all its operands in the cache. A
    block of a product keeps `least_rows` rows and `least_columns` columns, if there are as many. Work below
    `least_shared_cost` multiply-adds is not handed to other threads, which costs about 50 us.
    """

    product_bytes: int = 4 << 20
    vector_bytes: int = 256 << 10
    least_rows: int = 64
    least_columns: int = 192
    least_shared_cost: float = 4e6


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


def block_lengths(whole: Region, sides: Sides, work: Work, threads: int, blocking: Blocking) -> dict[int, int]:
    """How long a block is on each axis that is cut, by position."""
    target = blocking.product_bytes if work.macs else blocking.vector_bytes
    wanted = -(-work.largest_bytes // target)
    if threads > 1 and work.cost >= blocking.least_shared_cost:
        wanted = -(-max(wanted, threads) // threads) * threads
    lengths: dict[int, int] = {}
    blocks = 1
    kinds = (
        (sides.batch, 1),
        (sides.rows, blocking.least_rows),
        (sides.columns, blocking.least_columns),
    )
    for positions, least in kinds:
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
