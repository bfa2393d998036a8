"""Columns past rows that stay: the first of them, as many as there are rows, go row by row.

The T-core needs the rows of a block one after the other, and their loads take longer than its work on one column. While
the second row comes it works on the first one and the next columns, which are there already. From then on all rows go
past one column after the other. Vector programs take the columns of a row in turn, and then the rows of a column, so
that none has two tiles one behind the other.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from birc.codegen.nest import NestBuilder
from birc.codegen.operand_loads import OperandLoads, RowsPart
from birc.codegen.operand_ring import Rounds
from birc.runtime.program import affine

OpenLoops = Callable[[ExitStack], int | None]


@dataclass(slots=True)
class OpeningColumns:
    """Writes the tiles of `rows` that stay and `columns` that go past them, each `width` along the dimension `column`.

    `rows_of` opens the loop over the rows, `columns_of` that over columns that programs take in turn, and `tile` writes
    the tile at which these have come, by their depths; then `leave` is called. `tiles` writes the tiles of a column.
    """

    nest: NestBuilder
    loads: OperandLoads
    rows: int
    columns: int
    column: str
    width: int
    rows_of: OpenLoops
    columns_of: OpenLoops
    tile: Callable[[int | None, int | None], None]
    leave: Callable[[], None]
    tiles: Callable[[], None]

    def write(self) -> None:
        """All columns past the rows."""
        at, others, b = len(self.nest.stack), self.columns - self.rows, self.loads.b
        with self.nest.loop(self.rows, self.width, self.column) as column:
            self._stand_at(at, column, 0)
            self.loads.block(b)
        b.scope = [depth for depth in b.scope if depth != column]
        self.loads.part = RowsPart(0, self.rows, opens=True, closes=True, frees=not others)
        with ExitStack() as loops:
            row, column = self.rows_of(loops), self.columns_of(loops)
            self._stand_at(at, column, 0)
            self.tile(row, column)
        self.leave()
        if others:
            self.loads.part = RowsPart(0, self.rows, opens=True, closes=True, waits=False)
            with (
                self.nest.moved(self.column, self.rows * self.width),
                self.nest.loop(others, self.width, self.column) as column,
            ):
                self._stand_at(at, column, self.rows)
                self.loads.block(b)
                self.tiles()
        self.loads.rounds = self.loads.part = None

    def _stand_at(self, outside: int, column: int | None, first: int) -> None:
        """What is written next is about the columns of a loop, behind so many of them."""
        number = affine(first, {} if column is None else {column: 1})
        self.loads.rounds = Rounds(outside, column, number, self.columns)
