"""Blocks whose first rows take their chunks of the depth later than the others: a window of the depth that moves on.

Where all rows go from one chunk to the next together, the columns of the next one find room only as the last row is
through, and the T-core waits for them. Here groups of rows are a step of the depth apart. What stays in the input
buffer is a window of one chunk's length: between two groups it moves by one step, into the slots of the step that the
last group needed for the last time, and what comes is what the next group needs last.

So the first chunk of each group is shorter by as many steps as it is apart, and comes first of all: the T-core has work
as soon as a step of the columns is there. What is left for the last chunk is short as well.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from birc.codegen.nest import NestBuilder, mask
from birc.codegen.operand_loads import OperandLoads
from birc.codegen.operand_ring import Operand
from birc.codegen.tile_products import Multiply
from birc.compiler.ir.plan import Dimension
from birc.runtime.program import Affine, RingAddress, Sync, affine

BEGIN, ADD, END = "begin", "add", "end"
"""The sums of a tile are the first in their register (or, in a loop over chunks, are added to those of the chunk
before), are added there, or are finished with those that lie there."""

Sums = Callable[[str, int, int | None, int | None, int | None], None]
"""Takes the sums of a tile: how, the first row of those written, the depths of the loops over rows, columns, chunks."""


@dataclass(frozen=True, slots=True)
class Share:
    """Some rows of a block, from the `first` on, and the `steps` of the depth that they take now, from a `begin` on.

    They follow `a_before` tiles of one operand and `b_before` of the other in the order of their loads. If it `brings`
    one, the last step is new; if it `gives` one, the first step is not needed any more after the last row. Those that
    `open` a block let the next step come with their first row: all slots are free then.
    """

    first: int
    count: int
    begin: int
    steps: int
    a_before: Affine
    b_before: Affine
    brings: bool = True
    gives: bool = True
    opens: bool = False


@dataclass(slots=True)
class ShiftedRows:
    """Writes blocks of `rows` row tiles, in groups of `shifted` that begin later, and of all others.

    A chunk is all of the depth `inner`, in tiles of `step`; there are `chunks` of them along `outer`. Row tiles are
    `height` along `row`, column tiles `width` along `column`. `taken` is told which loop's iterations vector programs
    take in turn, or that it is behind.
    """

    nest: NestBuilder
    loads: OperandLoads
    outer: str
    chunks: int
    inner: Dimension
    step: int
    rows: int
    shifted: int
    row: str
    height: int
    column: str
    width: int
    multiply: Multiply
    taken: Callable[[int | None], None]

    @property
    def steps(self) -> int:
        """Steps of a chunk."""
        return self.inner.extent // self.step

    @property
    def given_late(self) -> int:
        """Slots of columns that are there from the first rows on only: what is needed first is loaded first."""
        return (self.steps - 1) * self.loads.b.count

    def block(self, sums: Sums) -> None:
        """The tiles of a block."""
        columns = self.loads.b.count
        row_chunk, block_chunk, column_chunk = self.steps, self.rows * self.steps, columns * self.steps
        groups = {group: self.shifted * (group - 1) for group in range(1, self.steps)}
        first = self.shifted * len(groups)
        rest = self.rows - first
        before = self.nest.counter(self.nest.inner_depths())
        a, b = before * (self.chunks * block_chunk), before * (self.chunks * column_chunk)
        for group, begin in groups.items():
            self._rows(Share(begin, self.shifted, 0, group, a, b, opens=True), BEGIN, None, sums)
            a += self.shifted * group
        with self.nest.loop(self.chunks - 1, 1, self.outer, kind="red") as chunk:
            number = _numbered((chunk, 1))
            a_at, b_at = a + number * block_chunk, b + number * column_chunk
            self._rows(Share(first, rest, 0, self.steps, a_at, b_at), BEGIN, chunk, sums)
            a_at += rest * row_chunk
            for group, begin in groups.items():
                b_at += columns
                self._rows(Share(begin, self.shifted, group, self.steps, a_at, b_at), ADD, chunk, sums)
                a_at += self.shifted * row_chunk
        last = self.chunks - 1
        a, b = a + last * block_chunk, b + last * column_chunk
        with self.nest.moved(self.outer, last):
            self._rows(Share(first, rest, 0, self.steps, a, b), END, None, sums)
            a += rest * row_chunk
            for group, begin in reversed(groups.items()):  # The shortest last would be finished one upon the other.
                left = self.steps - group
                share = Share(begin, self.shifted, group, left, a, b + group * columns, brings=False, gives=False)
                self._rows(share, END, None, sums)
                a += self.shifted * left

    def _rows(self, share: Share, how: str, chunk: int | None, sums: Sums) -> None:
        """The tiles of some rows."""
        if share.brings:
            self._load_columns(share)
        with ExitStack() as loops:
            loops.enter_context(self.nest.moved(self.row, share.first * self.height))
            row = loops.enter_context(self.nest.loop(share.count, self.height, self.row))
            self._load_row(share, row)
            column = loops.enter_context(self.nest.loop(self.loads.b.count, self.width, self.column, level="program"))
            self.taken(column)
            self._product(share, row, column)
            sums(how, share.first, row, column, chunk)
        self.taken(None)

    def _load_columns(self, share: Share) -> None:
        """The last step of a share's depth for all columns."""
        number = share.b_before + (share.steps - 1) * self.loads.b.count
        with (
            self.nest.moved(self.inner.name, (share.begin + share.steps - 1) * self.step),
            self.nest.loop(self.loads.b.count, self.width, self.column) as column,
        ):
            self.loads.write(self.loads.b, _at(self.loads.b, number + _numbered((column, 1))))

    def _load_row(self, share: Share, row: int | None) -> None:
        """The depth of a share for a row tile."""
        with (
            self.nest.moved(self.inner.name, share.begin * self.step),
            self.nest.loop(share.steps, self.step, self.inner.name, kind="red") as step,
        ):
            number = share.a_before + _numbered((row, share.steps), (step, 1))
            self.loads.write(self.loads.a, _at(self.loads.a, number))

    def _product(self, share: Share, row: int | None, column: int | None) -> None:
        """The operations of a tile."""
        a, b = self.loads.a, self.loads.b
        with self.nest.loop(share.steps, kind="red") as step:
            a_at = share.a_before + _numbered((row, share.steps), (step, 1))
            b_at = share.b_before + _numbered((step, b.count), (column, 1))
            waits = [Sync(Affine(a.full), first=mask([column]))]
            if share.brings:
                waits.append(Sync(Affine(b.full), first=mask([row]), last=mask([step])))
            posts = [Sync(Affine(a.free), last=mask([column]))]
            if share.opens:
                posts.append(Sync(Affine(b.free), first=mask([step, row])))
            elif share.gives:
                posts.append(Sync(Affine(b.free), first=mask([step]), last=mask([row])))
            self.multiply(_at(a, a_at), _at(b, b_at), mask([step]), tuple(waits), tuple(posts))


def _at(operand: Operand, number: Affine) -> RingAddress:
    """Where the tile of an operand with a number in the order of loads lies."""
    return RingAddress(Affine(), operand.slot_bytes, number, operand.slots)


def _numbered(*factors: tuple[int | None, int]) -> Affine:
    """The sum of the iterations of loops, each times its factor; loops that are not written have one."""
    return affine(0, {depth: factor for depth, factor in factors if depth is not None})
