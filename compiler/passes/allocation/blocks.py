"""Blocks of memory with fixed lifetimes, and addresses for them.

Seen with steps across and addresses upwards, a block is a rectangle that can only move up and down. Finding the least
height is strongly NP-hard (Garey and Johnson, problem SR2); no placement is lower than the most bytes that live at
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes that are needed in the steps start <= step < end."""

    num_bytes: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Placement:
    """An address for every block, in the order of the blocks.

    `height_bytes` is the highest end, `lower_bound_bytes` the most bytes that live at once, both in whole multiples of
    the alignment; `method` found the placement.
    """

    addresses: tuple[int, ...]
    height_bytes: int
    lower_bound_bytes: int
    method: str


def aligned(num_bytes: int, alignment_bytes: int) -> int:
    """The least multiple of the alignment that holds so many bytes."""
    return -(-num_bytes // alignment_bytes) * alignment_bytes


def maximal_steps(blocks: Sequence[Block]) -> list[int]:
    """The steps at which a set of blocks lives that is not part of the set of a neighbouring step.

    Each is the last start before an end. Blocks that keep apart at these steps keep apart at all.
    """
    events = sorted([(block.start, 1) for block in blocks] + [(block.end, 0) for block in blocks])
    return [step for (step, begins), (_, next_begins) in pairwise(events) if begins > next_begins]
