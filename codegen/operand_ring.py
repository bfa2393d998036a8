"""Where tiles of operands lie in the input buffers: rings of slots, taken in the order of loads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from birc.codegen.nest import NestBuilder
from birc.compiler.ir.plan import Access, Dimension
from birc.runtime.program import Affine, RingAddress, affine

Steps = dict[str, int | None]
"""The depth of the loop over each of some reduced dimensions; None where it has one step."""


@dataclass(slots=True)
class Operand:
    """One operand's share of a block: `count` tiles along `dimension`, and where its loads stand.

    A tile for each step of the dimensions `resident` stays in the input buffer, each in one of `slots` of
    `slot_bytes`. `scope` are the loops around its loads.
    """

    access: Access
    split: int
    mnemonic: str
    dimension: str
    count: int
    slots: int
    full: int
    free: int
    resident: tuple[Dimension, ...]
    slot_bytes: int
    scope: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rounds:
    """A loop of `count` rounds whose last one is written apart: code that stands at round `number`.

    The first `outside` loops are around it; `depth` is that of the loop itself, None where it is not written.
    """

    outside: int
    depth: int | None
    number: Affine
    count: int

    def counter(self, nest: NestBuilder, scope: Sequence[int]) -> Affine:
        """The number of iterations of the loops in `scope`, and of the rounds among them, before the current one."""
        outer = [depth for depth in scope if depth < self.outside]
        inner = [depth for depth in scope if depth >= self.outside and depth != self.depth]
        size = math.prod(nest.stack[depth].extent for depth in inner)
        return (nest.counter(outer) * self.count + self.number) * size + nest.counter(inner)


def ring_address(
    operand: Operand,
    nest: NestBuilder,
    tile: Mapping[int | None, int] | None,
    steps: Sequence[tuple[int | None, int]],
    rounds: Rounds | None,
    first: int = 0,
) -> RingAddress:
    """Where a tile lies in its input buffer: slots are taken in the order of loads (block, tile, depth step).

    `steps` are the loops over resident depth, each with its trip count; `tile` numbers the tile in its block by the
    depths of loops, from the `first` on, or is None where a scope has only one.
    """
    terms, tiles = _numbered(steps)
    if tile is not None:
        terms.update((depth, factor * tiles) for depth, factor in tile.items() if depth is not None)
        first *= tiles
        tiles *= operand.count
    inside = affine(first, terms)
    before = nest.counter(operand.scope) if rounds is None else rounds.counter(nest, operand.scope)
    if operand.slots == tiles or (before == Affine() and operand.slots > tiles):
        return RingAddress(inside * operand.slot_bytes)
    return RingAddress(Affine(), operand.slot_bytes, before * tiles + inside, operand.slots)


def running_address(operand: Operand, number: Affine, steps: Sequence[tuple[int | None, int]]) -> RingAddress:
    """Where the tiles of the load with a `number` lie, one for each of the `steps` over resident depth."""
    terms, tiles = _numbered(steps)
    return RingAddress(Affine(), operand.slot_bytes, number * tiles + affine(0, terms), operand.slots)


def _numbered(steps: Sequence[tuple[int | None, int]]) -> tuple[dict[int, int], int]:
    """By depth what an iteration adds to the number of a tile, which counts the innermost step first; and all tiles."""
    terms: dict[int, int] = {}
    tiles = 1
    for depth, count in reversed(steps):
        if depth is not None:
            terms[depth] = tiles
        tiles *= count
    return terms, tiles
