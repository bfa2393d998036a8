"""Rows that go through the depth there and back, past columns that are too deep for the input buffer.

A row begins with the part of the depth that the row before ended with, which is still there, and goes on from it. The
steps that it leaves first, at one end of the depth, make room for as many at the other end: these come while the T-core
is busy with what lies between, which is always there. So each tile has one sum, as if all of the depth fitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from birc.codegen.nest import NestBuilder, mask
from birc.codegen.operand_loads import OperandLoads
from birc.codegen.operand_ring import Steps, running_address
from birc.codegen.tile_products import Multiply
from birc.compiler.ir.plan import Dimension
from birc.runtime.program import Affine, RingAddress, Sync


@dataclass(frozen=True, slots=True)
class RowLoop:
    """A loop over `count` row tiles along a dimension, each a `step` further on."""

    dimension: str
    count: int
    step: int


@dataclass(frozen=True, slots=True)
class Way:
    """The way of a row through the depth, there or `back`; `number` counts the rows before it.

    It waits for what is there in the first iteration of the loops in the mask `first`, when all of that has just been
    loaded, and gives it back in the last iteration of those in `last`, when no row comes behind it; None for never.
    """

    back: bool
    number: Affine
    first: int | None
    last: int | None


@dataclass(slots=True)
class WindingDepth:
    """Writes the tiles of rows past a tile of columns whose depth has more steps than there are slots.

    `finish` drains the sums of a tile and finishes it.
    """

    nest: NestBuilder
    loads: OperandLoads
    multiply: Multiply
    finish: Callable[[], None]

    @property
    def steps(self) -> int:
        """The steps of the depth."""
        return math.prod(map(self.loads.steps, self.loads.b.resident))

    @property
    def left(self) -> int:
        """The steps for which there are no slots."""
        return self.steps - self.loads.b.slots

    def write(self, rows: Sequence[RowLoop]) -> None:
        """The rows of nested loops; the number of the innermost one's iterations is even unless it is alone."""
        there = Way(False, Affine(), first=None, last=None)
        with self._depth(there.back) as (step, _), self.nest.where(step * -1 + self.loads.b.slots):
            self._load_columns(there, step)
        *outer, inner = (row for row in rows if row.count > 1)
        pairs, rest = divmod(inner.count, 2)
        with ExitStack() as loops:
            around = [loops.enter_context(self.nest.loop(row.count, row.step, row.dimension, "seq")) for row in outer]
            around.append(loops.enter_context(self.nest.loop(pairs, 2 * inner.step, inner.dimension, "seq")))
            number = self.nest.counter([depth for depth in around if depth is not None]) * 2
            self._row(Way(False, number, first=mask(around), last=None))
            with self.nest.moved(inner.dimension, inner.step):
                self._row(Way(True, number + 1, first=None, last=None if rest else mask(around)))
        if rest:
            with self.nest.moved(inner.dimension, 2 * pairs * inner.step):
                self._row(Way(False, Affine(2 * pairs), first=None, last=0))

    def _row(self, way: Way) -> None:
        """The tile of a row: the steps that it leaves for good, those that stay, and those that come meanwhile."""
        b = self.loads.b
        there = () if way.first is None else (Sync(Affine(b.full), first=way.first),)
        gone = () if way.last is None else (Sync(Affine(b.free), last=way.last),)
        self._load_row(way)
        with self._depth(way.back) as (step, loops), self.nest.where(step * -1 + self.left):
            self._product(way, step, loops, there, (Sync(Affine(b.free)),))
        with self._depth(way.back) as (step, _), self.nest.where(step + (1 - b.slots)):
            self._load_columns(way, step)
        with self._depth(way.back) as (step, loops):
            if self.left < b.slots:
                with self.nest.where(step + (1 - self.left)), self.nest.where(step * -1 + b.slots):
                    self._product(way, step, loops, there, gone)
            with self.nest.where(step + (1 - b.slots)):
                self._product(way, step, loops, (Sync(Affine(b.full)),), gone)
        self.finish()

    def _product(self, way: Way, step: Affine, loops: Steps, waits: tuple[Sync, ...], posts: tuple[Sync, ...]) -> None:
        """The operation of a step; taps take their rows from one tile."""
        a = self.loads.a
        loaded = {d.name for d in a.resident}
        taps = mask([depth for name, depth in loops.items() if name not in loaded])
        waits = (Sync(Affine(a.full), first=taps), *waits)
        posts = (Sync(Affine(a.free), last=taps), *posts)
        row, column = self._row_address(way, loops), self._column_address(way, step)
        self.multiply(row, column, mask([*loops.values()]), waits, posts)

    def _load_row(self, way: Way) -> None:
        """The tiles of a row, in the order of their use."""
        with self._loops(self.loads.a.resident, way.back) as loops:
            self.loads.write(self.loads.a, self._row_address(way, loops))

    def _load_columns(self, way: Way, step: Affine) -> None:
        """The columns of a step."""
        self.loads.write(self.loads.b, self._column_address(way, step))

    def _row_address(self, way: Way, loops: Steps) -> RingAddress:
        a = self.loads.a
        return running_address(a, way.number, [(loops[d.name], self.loads.steps(d)) for d in a.resident])

    def _column_address(self, way: Way, step: Affine) -> RingAddress:
        """Where the columns lie after so many steps of the way: what is left and what comes share a slot."""
        b = self.loads.b
        depth = step * -1 + (self.steps - 1) if way.back else step
        return RingAddress(Affine(), b.slot_bytes, depth, b.slots)

    @contextmanager
    def _depth(self, back: bool) -> Iterator[tuple[Affine, Steps]]:
        """The loops over all steps of the depth, and how many steps are behind."""
        with self._loops(self.loads.b.resident, back) as loops:
            yield self.nest.counter([depth for depth in loops.values() if depth is not None]), loops

    @contextmanager
    def _loops(self, dimensions: Sequence[Dimension], back: bool) -> Iterator[Steps]:
        """The loops over the steps of reduced dimensions, `back` from the last one."""
        with ExitStack() as loops:
            depths: Steps = {}
            for d in dimensions:
                count, extent = self.loads.steps(d), self.loads.tile[d.name]
                loops.enter_context(self.nest.moved(d.name, (count - 1) * extent if back else 0))
                step = -extent if back else extent
                depths[d.name] = loops.enter_context(self.nest.loop(count, step, d.name, kind="red"))
            yield depths
