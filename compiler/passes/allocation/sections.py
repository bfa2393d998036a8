"""Taking a placement problem apart at the steps across which no block lives."""

from __future__ import annotations

from collections.abc import Sequence

from birc.compiler.passes.allocation.blocks import Block


def sections(blocks: Sequence[Block]) -> list[list[int]]:
    """The numbers of the blocks of each section, in the order of steps: blocks of two sections never live together."""
    found: list[list[int]] = []
    reached: int | None = None
    for number in sorted(range(len(blocks)), key=lambda n: (blocks[n].start, blocks[n].end, n)):
        block = blocks[number]
        if reached is None or block.start >= reached:
            found.append([])
            reached = block.end
        found[-1].append(number)
        reached = max(reached, block.end)
    return found


def shape(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """The blocks with steps counted from the first one: what equal layers of a model have in common."""
    start = min(block.start for block in blocks)
    return tuple(Block(block.num_bytes, block.start - start, block.end - start) for block in blocks)
