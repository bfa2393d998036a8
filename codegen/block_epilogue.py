"""The epilogue of blocks whose sums wait in registers until it begins: which registers, and its walks over the tiles.

What is about whole rows walks the tiles of a row once for each phase. The first walk is the one in which the sums
arrive: a tile's share of it comes right after its drain, while the T-core works on the next tile. Loads that move
along the columns go ahead of their use by some tiles; at the end of a row they run past it, where nothing lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from birc.codegen.columns import Part, Place
from birc.codegen.nest import NestBuilder
from birc.codegen.statements import StatementWriter
from birc.compiler.ir.late_choice import LateChoice, late_choice
from birc.compiler.ir.plan import Phase, Statement
from birc.compiler.ir.registers import MOST_LOADS_AHEAD, Epilogue
from birc.compiler.ir.row_overlap import powers_apart
from birc.runtime.program import Register, affine


@dataclass(slots=True)
class BlockEpilogue:
    """Writes the epilogue of blocks of `rows` x `columns` tiles.

    `column` is the dimension of the columns, `step` its extent in a tile. With `by_block` a program takes whole blocks;
    else programs take tiles in turn, and `programs` of them share the registers of the sums. Loads go `ahead` tiles.
    """

    epilogue: Epilogue
    writer: StatementWriter
    nest: NestBuilder
    rows: int
    columns: int
    column: str
    step: int
    by_block: bool
    programs: int
    ahead: int

    @property
    def first(self) -> Phase | None:
        """The phase that a tile goes through as its sums arrive; None where all tiles wait for the last."""
        phase = self.epilogue.phases[0]
        return phase if self.by_block and self.epilogue.is_rowwise and self.rows == 1 and phase.loops else None

    @property
    def late(self) -> LateChoice | None:
        """The mask of the first phase that begins at some column, if only the tiles that it covers load it."""
        late = late_choice(self.first, self.column) if self.first is not None else None
        return late if late is not None and self._is_loaded_late(late) else None

    def _is_loaded_late(self, late: LateChoice) -> bool:
        if self.epilogue.loads_ahead:
            return late.mask.result in self.epilogue.loads
        is_held = late.mask.result in self.epilogue.held and late.score not in self.epilogue.slots
        return is_held and not self._has_ahead

    @property
    def _has_ahead(self) -> bool:
        """Whether loads of the first phase go ahead by a few tiles: then no part of a row goes by itself."""
        return self.first is not None and bool(self._loads(self.first.statements))

    @property
    def plain(self) -> int:
        """Column tiles at the beginning of a row that a late mask does not cover."""
        return min(self.late.begin // self.step, self.columns - 1) if self.late is not None else 0

    @property
    def masked(self) -> Part:
        """The column tiles of a row that a late mask covers."""
        return Part(self.plain, self.columns - self.plain, self.columns)

    @property
    def _held_later(self) -> int:
        """How many of the loads that tiles hold are not in flight from the beginning of a row on.

        The first tile would wait until all of them are issued.
        """
        held = self.first is not None and self._held(self.first.statements) and not self._has_ahead
        return max(0, self.masked.count - MOST_LOADS_AHEAD) if held else 0

    @property
    def early_parts(self) -> list[Part]:
        """The column tiles of a row, cut where a late mask begins, and behind those that load what later ones hold."""
        firsts = sorted({0, self.plain, self._held_later})
        ends = [*firsts[1:], self.columns]
        return [Part(first, end - first, self.columns) for first, end in zip(firsts, ends, strict=True)]

    def tile_register(self, terms: Place, slot: int = 0, first: int = 0) -> Register:
        """The register that holds something of a tile of the block: the sums, or what the epilogue keeps in `slot`.

        `terms` give the number of the tile in the block behind the `first`, by the depths of loops.
        """
        base = self.writer.registers.count
        if not self.by_block:
            return _register(base * self.programs, terms)
        base += slot * self.rows * self.columns + first
        return _register(base, {**dict(self.writer.in_program(0).terms), **terms})

    @property
    def sums_slot(self) -> int:
        """Which of the registers of a tile holds its sums until the epilogue begins."""
        return self.epilogue.slots.get(self._sums, 0)

    def early_register(self, terms: Place, part: Part | None = None) -> Register:
        """The register of the sums of a tile that goes on at once; of one in a `part` of its row."""
        first = part.first if part is not None else 0
        if part is not None and first < self.plain and self.late is not None and self.late.score == self._sums:
            return self.tile_register(terms, self.epilogue.slots[self.late.choice.result], first)
        if self._sums in self.epilogue.slots:
            return self.tile_register(terms, self.sums_slot, first)
        return Register(self.writer.in_program(self.writer.registers.numbers[self._sums]))

    @property
    def _sums(self) -> str:
        return next((s.result for phase in self.epilogue.phases for s in phase.statements if s.op == "vacc"), "")

    def ahead_of(self, statements: Iterable[Statement]) -> int:
        """How many tiles the loads among some statements go ahead; 1 without any."""
        return self.ahead if self._loads(statements) else 1

    def load_first(self, statements: Iterable[Statement], row: int | None) -> None:
        """The loads of the first tiles of a row, as many as they go ahead, or of all that hold them."""
        statements = tuple(statements)
        held, loads = self._held(statements), self._loads(statements)
        if held:
            first, count = self.masked.first, self.masked.count - self._held_later
            with self.nest.moved(self.column, first * self.step), self.nest.loop(count, self.step, self.column) as tile:
                self.write(held, {row: self.columns, tile: 1}, [], tile, first)
        if loads:
            first = self.plain if self.epilogue.loads_ahead else 0
            with (
                self.nest.moved(self.column, first * self.step),
                self.nest.loop(self.ahead, self.step, self.column) as inner,
            ):
                self.write(loads, {row: self.columns, inner: 1}, [], inner, first)

    def load_late(self, statements: Iterable[Statement], tile: int | None) -> None:
        """The loads of a tile that a late mask covers, as far behind the first of these as the current tile is in its
        row."""
        with self.nest.moved(self.column, self.plain * self.step):
            self.write(self._loads(statements), {tile: 1}, [], tile, self.plain)

    def finish(self, statements: Iterable[Statement], row: int | None, outer: int | None, inner: int | None) -> None:
        """What follows a tile's loads, and the loads of a tile further on, into the registers that are free now."""
        statements = tuple(statements)
        terms = {row: self.columns, outer: self.ahead_of(statements), inner: 1}
        loads, held = self._loads(statements), self._held(statements)
        self.write([s for s in statements if s not in loads and s not in held], terms, [outer, inner], inner)
        if loads and outer is not None:
            with self.nest.moved(self.column, self.ahead * self.step):
                self.write(loads, terms, [], inner)

    def finish_part(self, statements: Sequence[Statement], row: int | None, tile: int | None, part: Part) -> None:
        """What follows the loads of a tile, in a `part` of the row that a late mask covers, or does not."""
        late, loads = self.late, [*self._loads(statements), *self._held(statements)]
        rest = [s for s in statements if s not in loads]
        if late is not None and part.first < self.plain:
            rest.remove(late.choice)
        self.write(rest, {row: self.columns, tile: 1}, [tile], tile, part.first)
        if part.first + part.count <= self._held_later:
            further = self.plain + MOST_LOADS_AHEAD
            with self.nest.moved(self.column, further * self.step):
                held = self._held(statements)
                self.write(held, {row: self.columns, tile: 1}, [], tile, part.first + further)

    def walk(self, row: int | None, phases: Iterable[Phase]) -> None:
        """Phases one after the other for the tiles of a row of the block, or (without loops) for the row as a whole."""
        for phase in phases:
            if not self.epilogue.is_rowwise:
                self._walk_block(phase, row)
            elif phase.loops:
                parts = self.in_turns(phase.statements)
                if len(parts) == 1:
                    self._walk_row(phase.statements, row)
                else:
                    self._walk_in_turns(parts, row)
            else:
                self.write(phase.statements, {row: self.columns}, [], None)

    def _walk_row(self, statements: Sequence[Statement], row: int | None) -> None:
        """Some statements for every tile of a row, which ends where the columns do."""
        ahead = self.ahead_of(statements)
        kind = _kind(statements, self._loads(statements) if ahead < self.columns else [])
        self.load_first(statements, row)
        with ExitStack() as loops:
            outer = loops.enter_context(self.nest.loop(self.columns // ahead, ahead * self.step, self.column, kind))
            inner = loops.enter_context(self.nest.loop(ahead, self.step, self.column, kind))
            self.finish(statements, row, outer, inner)

    def _walk_in_turns(self, parts: Sequence[Sequence[Statement]], row: int | None) -> None:
        """The two parts of a phase for the tiles of a row, the second one a tile behind the first."""
        ahead, behind = parts
        with ExitStack() as loops:
            self.write(ahead, {row: self.columns}, [], None)
            tile = loops.enter_context(
                self.nest.loop(self.columns - 1, self.step, self.column, _kind([*ahead, *behind], ahead))
            )
            with self.nest.moved(self.column, self.step):
                self.write(ahead, {row: self.columns, tile: 1}, [], tile, first=1)
            self.write(behind, {row: self.columns, tile: 1}, [tile], tile)
        last = self.columns - 1
        with self.nest.moved(self.column, last * self.step):
            self.write(behind, {row: self.columns}, [], None, last)

    def _walk_block(self, phase: Phase, row: int | None) -> None:
        """The only phase for the tiles of one row of a block, the loads of a few tiles before all else of these."""
        kind, ahead = _kind(phase.statements), self.ahead_of(phase.statements)
        level = "tile" if self.by_block else "program"
        loads = self._loads(phase.statements) if ahead > 1 else []
        parts = [loads, [s for s in phase.statements if s not in loads]]
        with ExitStack() as loops:
            outer = loops.enter_context(
                self.nest.loop(self.columns // ahead, ahead * self.step, self.column, kind, level)
            )
            if outer is not None and not self.by_block:
                self.writer.program_depth = outer
            for statements in filter(None, parts):
                with self.nest.loop(ahead, self.step, self.column, kind) as inner:
                    self.write(statements, {row: self.columns, outer: ahead, inner: 1}, [outer, inner], inner)

    def in_turns(self, statements: tuple[Statement, ...]) -> list[tuple[Statement, ...]]:
        """A phase cut in two behind its last special function, if all that the rest reads of a tile has a register."""
        return powers_apart(statements, self.epilogue.slots, self._loads(statements))

    def _loads(self, statements: Iterable[Statement]) -> list[Statement]:
        return [s for s in statements if s.result in self.epilogue.loads]

    def _held(self, statements: Iterable[Statement]) -> list[Statement]:
        return [s for s in statements if s.result in self.epilogue.held]

    def _load_register(self, number: int, inner: int | None, first: int) -> Register:
        """The register of a load that goes ahead, for a tile of a part of its row that begins with the `first`."""
        base = self.epilogue.registers_of_tiles(self.rows * self.columns) + number * self.ahead
        if self.epilogue.loads_ahead:
            base += max(0, first - self.plain)
        return _register(base, {**dict(self.writer.in_program(0).terms), inner: 1})

    def write(
        self,
        statements: Iterable[Statement],
        terms: Place,
        folds: Sequence[int | None],
        inner: int | None,
        first: int = 0,
    ) -> None:
        """Statements about the tile that `terms` number in its block, behind the `first`."""
        statements = tuple(statements)
        sums = (s.result for s in statements if s.op == "vacc")
        kept = self.epilogue.slots or dict.fromkeys(sums, 0)
        self.writer.aliases = {name: self.tile_register(terms, slot, first) for name, slot in kept.items()}
        self.writer.aliases |= {name: self._load_register(n, inner, first) for name, n in self.epilogue.loads.items()}
        late = self.late
        if late is not None and late.score not in kept and late.choice not in statements and not first:
            self.writer.aliases[late.score] = self.writer.aliases[late.choice.result]
        for statement in statements:
            if statement.op != "vacc":
                self.writer.write(statement, folds, goes_on=first > 0)


def _kind(statements: Iterable[Statement], loaded: Iterable[Statement] = ()) -> str:
    """The kind of a loop over tiles: each may add to a fold, or use what was `loaded` at an earlier one."""
    if any(s.op.startswith("vfold") for s in statements):
        return "red"
    return "seq" if any(loaded) else "par"


def _register(base: int, terms: Place) -> Register:
    return Register(affine(base, {depth: factor for depth, factor in terms.items() if depth is not None}))
