"""Rows of tiles of which a vector program finishes one while it takes the sums of the next.

The first row's sums and the last row's powers are outside of the loop over rows; inside, the powers of a tile are
computed two tiles before they are stored and added, and its register goes to the next row's sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from birc.codegen.block_epilogue import BlockEpilogue
from birc.codegen.columns import Part
from birc.codegen.nest import NestBuilder
from birc.codegen.operand_ring import Rounds
from birc.compiler.ir.plan import Phase, Statement
from birc.compiler.ir.row_overlap import TILES_AHEAD
from birc.runtime.program import Affine, affine


@dataclass(slots=True)
class OverlappedRows:
    """Writes the rows of tiles of an SPC along one dimension.

    `load` writes the loads of a row's operands, `multiply` the product of a tile in the loop over a part of the columns
    and the drain of its sums; both have to know at which row the code that they write `stands`.
    """

    nest: NestBuilder
    after: BlockEpilogue
    load: Callable[[], None]
    multiply: Callable[[int | None, Part], None]
    stands: Callable[[Rounds | None], None]

    def write(self, dimension: str, count: int, step: int) -> None:
        """`count` rows, `step` apart along a dimension."""
        first, *others = self.after.epilogue.phases
        second = next(n for n, phase in enumerate(others) if phase.loops)
        heads, tails = others[:second], others[second + 1 :]
        at = len(self.nest.stack)
        self.stands(Rounds(at, None, Affine(), count))
        self._load(first)
        for part in self._parts({0, self._masks_by_tile, self.after.plain}):
            with ExitStack() as loops:
                tile = self._tiles(loops, part)
                self._load_mask(first, part, tile)
                self._sums(first, part, tile)
        self.after.walk(None, heads)
        with self.nest.loop(count - 1, step, dimension, "seq") as row:
            self.stands(Rounds(at, row, affine(1, {} if row is None else {row: 1}), count))
            with self.nest.moved(dimension, step):
                self._load(first)
            self._together(first, self.after.in_turns(others[second].statements), dimension, step)
            computed, stored = _stores_apart(tails)
            self.after.walk(None, computed)
            with self.nest.moved(dimension, step):
                self.after.walk(None, heads)
            self.after.walk(None, stored)
        self.stands(None)
        with self.nest.moved(dimension, (count - 1) * step):
            self.after.walk(None, others[second:])

    def _load(self, phase: Phase) -> None:
        """The loads of a row: of the operands, and of masks where these do not come tile by tile."""
        self.load()
        if not self._masks_by_tile:
            self.after.load_first(phase.statements, None)

    @property
    def _masks_by_tile(self) -> int:
        """How many of the first tiles of a row load a mask each, for as many of the last ones: all, or none do.

        All at once would be more than a program has in flight, and what it has to finish of the row before would wait.
        """
        masked = self.after.masked.count
        return masked if masked <= self.after.plain else 0

    def _together(self, first: Phase, turns: Sequence[Sequence[Statement]], dimension: str, step: int) -> None:
        """The powers of a row, and the sums of the next one."""
        ahead, behind = turns
        columns = self.after.columns
        lead = min(TILES_AHEAD, columns)
        with self.nest.loop(lead, self.after.step, self.after.column) as tile:
            self.after.write(ahead, {tile: 1}, [], tile)
        for part in self._parts({0, self._masks_by_tile, self.after.plain, columns - lead}):
            with ExitStack() as loops:
                tile = self._tiles(loops, part)
                self.after.write(behind, {tile: 1}, [tile], tile, part.first)
                with self.nest.moved(dimension, step):
                    self._load_mask(first, part, tile)
                    self._sums(first, part, tile)
                if part.first + part.count <= columns - lead:
                    with self.nest.moved(self.after.column, lead * self.after.step):
                        self.after.write(ahead, {tile: 1}, [], tile, part.first + lead)

    def _load_mask(self, phase: Phase, part: Part, tile: int | None) -> None:
        """The mask that a tile at the beginning of a row loads for one at its end."""
        if part.first + part.count <= self._masks_by_tile:
            self.after.load_late(phase.statements, tile)

    def _sums(self, phase: Phase, part: Part, tile: int | None) -> None:
        """The sums of a tile, and its share of the first phase."""
        self.multiply(tile, part)
        self.after.finish_part(phase.statements, None, tile, part)

    def _parts(self, cuts: set[int]) -> Iterator[Part]:
        """The column tiles, cut at some."""
        columns = self.after.columns
        firsts = sorted(cut for cut in cuts if cut < columns)
        for first, end in zip(firsts, [*firsts[1:], columns], strict=True):
            yield Part(first, end - first, columns)

    def _tiles(self, loops: ExitStack, part: Part) -> int | None:
        """Open the loop over the tiles of a part."""
        loops.enter_context(self.nest.moved(self.after.column, part.first * self.after.step))
        return loops.enter_context(self.nest.loop(part.count, self.after.step, self.after.column, "red"))


def _stores_apart(phases: Sequence[Phase]) -> tuple[list[Phase], list[Phase]]:
    """What phases about whole rows compute before their first store, and the rest: a store waits for its value."""
    statements = [s for phase in phases for s in phase.statements]
    first = next((n for n, s in enumerate(statements) if s.op == "vst"), len(statements))
    return [Phase(tuple(statements[:first]))], [Phase(tuple(statements[first:]))]
