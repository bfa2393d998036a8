"""How the second of two products learns that a row of the first is stored: all of it, or tile by tile.

By tiles, each load of a chunk of the depth waits for those that it needs: the first chunks are multiplied while vector
cores still compute what the last ones are. Every store of a tile counts once, and every load of a chunk waits for as
many counts as one needs at most; what the last chunk has less of, the last store counts in addition.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from birc.codegen.changed_code import Item
from birc.codegen.row_order import Chosen, Passed, box_of, executed, rows_of
from birc.runtime.program import Affine, Box, Instruction, Loop, Sync

Range = tuple[tuple[int, int], ...]
"""Where something begins and ends, along each axis that counts columns."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many counts of a semaphore each load of a chunk waits for, and how many `more` the last store posts."""

    each: int
    more: int


@dataclass(frozen=True, slots=True)
class Telling:
    """What stores of rows post, and loads of them wait for. `ends` are the last stores of rows, by identity.

    `counts` are None where loads wait for whole rows.
    """

    passed: Passed
    ends: frozenset[int]
    counts: Counts | None

    def posts(self, store: Instruction, loops: Sequence[Loop], semaphore: Affine) -> tuple[Sync, ...]:
        """What an instruction of the first product posts."""
        is_counted = self.counts is not None and self.passed.is_stored(store)
        posts = (Sync(semaphore),) if is_counted else ()
        if id(store) not in self.ends:
            return posts
        more = 1 if self.counts is None else self.counts.more
        return posts + (Sync(semaphore, last=self.passed.again(store, loops)),) * more

    def waits(self, load: Instruction, loops: Sequence[Loop], semaphore: Affine) -> tuple[Sync, ...]:
        """What a load of the second product waits for: once, if rows come again for other columns."""
        if self.counts is None:
            return (Sync(semaphore, first=self.passed.again(load, loops)),)
        return (Sync(semaphore, first=self.passed.repeated(load, loops)),) * self.counts.each


def telling_of(ahead: Sequence[Item], behind: Sequence[Item], passed: Passed) -> Telling:
    """How rows that the code `ahead` stores are told to the code `behind` it."""
    ends = frozenset(id(item) for item in passed.ends_of_rows(ahead))
    return Telling(passed, ends, _counts(ahead, behind, passed))


def _counts(ahead: Sequence[Item], behind: Sequence[Item], passed: Passed) -> Counts | None:
    """The counts by which chunks wait for tiles; None where the first of them needs the last tile.

    Where a row is told by what is stored behind its tiles, it is there when that is.
    """
    stored, loaded = _columns(ahead, passed.is_stored, passed), _columns(behind, passed.is_load, passed)
    if not passed.ends_with_shares or len({*stored.values()}) != 1 or len({*loaded.values()}) != 1:
        return None
    tiles, chunks = next(iter(stored.values())), next(iter(loaded.values()))
    needed = [max((n for n, tile in enumerate(tiles, 1) if _meet(tile, chunk)), default=0) for chunk in chunks]
    each = max(-(-most // number) for number, most in enumerate(needed, 1))
    more = each * len(chunks) - len(tiles)
    return Counts(each, more) if more >= 0 and each < len(tiles) else None


def _columns(items: Sequence[Item], chosen: Chosen, passed: Passed) -> dict[tuple[int, ...], tuple[Range, ...]]:
    """By rows, the columns of what chosen instructions touch, in the order in which they first do."""
    found: defaultdict[tuple[int, ...], list[Range]] = defaultdict(list)
    for item, loops, variables in executed(items, chosen):
        repeated = passed.repeated(item, loops)
        if not any(at for depth, at in enumerate(variables) if repeated >> depth & 1):
            found[rows_of(item, variables, passed.leading)].append(_range(box_of(item), variables, passed.leading))
    return {rows: tuple(columns) for rows, columns in found.items()}


def _range(box: Box, variables: tuple[int, ...], leading: int) -> Range:
    begins = [(axis, axis.start.at(variables)) for axis in box.axes[leading:]]
    return tuple((begin, begin + (axis.extent - 1) * axis.step + 1) for axis, begin in begins)


def _meet(one: Range, other: Range) -> bool:
    return all(begin < end and start < stop for (begin, stop), (start, end) in zip(one, other, strict=True))
