"""Blocks whose last rows go column by column, and rows that wind past one block of columns after the other.

What comes after a block is loaded while the T-core is busy with its last rows, into the slots of its first columns.
Where rows wind, the next block of columns begins with the rows that the one before ended with, which are still in the
input buffer, and goes back from there: until the T-core has finished them, only columns have to come.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from birc.codegen.nest import NestBuilder
from birc.codegen.operand_loads import OperandLoads, RowsPart
from birc.codegen.operand_ring import Rounds
from birc.compiler.ir.tile_order import LAST_ROWS
from birc.runtime.program import Affine, affine

Tile = Callable[[int | None, int | None, bool], None]
"""Writes the tile at which the loops over rows and columns, at these depths, have come; what lasts may be loaded."""


@dataclass(slots=True)
class RowsByParts:
    """Writes the tiles of blocks of `rows` row tiles, each `height` along the dimension `row`, `width` along `column`.

    `taken` is told which loop's iterations vector programs take in turn, or that it is behind. `make_lasting` makes
    what is the same for all rows.
    """

    nest: NestBuilder
    loads: OperandLoads
    rows: int
    row: str
    height: int
    column: str
    width: int
    taken: Callable[[int | None], None]
    make_lasting: Callable[[], None]

    def block(self, tile: Tile) -> None:
        """The tiles of a block row after row, those of its last rows column after column."""
        first = self.rows - LAST_ROWS
        self.loads.a.scope = self.nest.inner_depths()
        self._in_order(RowsPart(0, first, opens=True, closes=False), tile)
        self._by_columns(RowsPart(first, LAST_ROWS, opens=False, closes=True), tile)
        self.loads.part = None

    def winding(self, blocks: int, tile: Tile) -> None:
        """The tiles of so many blocks of columns, every second one from the last row to the first."""
        column, step = self.column, self.loads.b.count * self.width
        pairs, rest = divmod(blocks - 1, 2)
        at = len(self.nest.stack)
        self._pass(Rounds(at, None, Affine(), blocks), tile, kept=LAST_ROWS if blocks > 1 else 0)
        if pairs:
            with self.nest.moved(column, step), self.nest.loop(pairs, 2 * step, column, "seq") as pair:
                for turn in (0, 1):
                    number = affine(1 + turn, {} if pair is None else {pair: 2})
                    is_last = turn == 1 and not rest
                    with self.nest.moved(column, turn * step):
                        self._pass(
                            Rounds(at, pair, number, blocks),
                            tile,
                            back=not turn,
                            kept=0 if is_last and pair is None else LAST_ROWS,
                            until=pair if is_last else None,
                        )
        if rest:
            with self.nest.moved(column, (blocks - 1) * step):
                self._pass(Rounds(at, None, Affine(blocks - 1), blocks), tile, back=True)
        self.loads.rounds = self.loads.part = None

    def _pass(self, rounds: Rounds, tile: Tile, *, back: bool = False, kept: int = 0, until: int | None = None) -> None:
        """The rows past one block of columns; the last ones stay for the next unless none are `kept`.

        With `until` they stay but in the last iteration of that loop.
        """
        self.loads.rounds = rounds
        self.loads.block(self.loads.b)
        self.loads.a.scope = self.nest.inner_depths()
        last = self.rows - LAST_ROWS
        # Each pass but the first loads all but the rows that are there; these go in the order of their loads.
        before, there = rounds.number * last, LAST_ROWS if rounds.number.constant else 0
        if there:
            opening = RowsPart(last, there, opens=True, closes=False, back=not back, at=before, waits=False)
            self._by_columns(opening, tile, loads=False)
        between = RowsPart(there, last - there, opens=not there, closes=False, back=back, at=before + there)
        self._in_order(between, tile)
        ending = RowsPart(last, LAST_ROWS, opens=False, closes=True, back=back, at=before + last)
        self._by_columns(replace(ending, frees=not kept or until is not None, until=until), tile)

    def _in_order(self, part: RowsPart, tile: Tile) -> None:
        """The rows of a part one after the other; vector programs take the columns in turn."""
        with ExitStack() as loops:
            self.taken(self._columns(loops, "program"))
            self.make_lasting()
        with ExitStack() as loops:
            row = self._enter(loops, part)
            self.loads.rows(row)
            column = self._columns(loops, "program")
            self.taken(column)
            tile(row, column, True)
        self.taken(None)

    def _by_columns(self, part: RowsPart, tile: Tile, *, loads: bool = True) -> None:
        """The columns of a part one after the other; vector programs take the rows in turn."""
        if loads:
            with ExitStack() as loaded:
                self.loads.rows(self._enter(loaded, part))
        with ExitStack() as loops:
            column = self._columns(loops, "tile")
            row = self._enter(loops, part, "program")
            self.taken(row)
            tile(row, column, False)
        self.taken(None)

    def _enter(self, loops: ExitStack, part: RowsPart, level: str = "tile") -> int | None:
        """The loop over the rows of a part."""
        self.loads.part = part
        begin = self.rows - 1 - part.first if part.back else part.first
        step = -self.height if part.back else self.height
        loops.enter_context(self.nest.moved(self.row, begin * self.height))
        return loops.enter_context(self.nest.loop(part.count, step, self.row, level=level))

    def _columns(self, loops: ExitStack, level: str) -> int | None:
        """The loop over the column tiles of a block."""
        return loops.enter_context(self.nest.loop(self.loads.b.count, self.width, self.column, level=level))
