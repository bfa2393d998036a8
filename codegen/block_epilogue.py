"""The epilogue of blocks whose sums wait in registers until it begins: which registers, and its walks over the tiles.

What is about whole rows walks the tiles of a row once for each phase. The first walk is the one in which the sums
arrive: a tile's share of it comes right after its drain, while the T-core works on the next tile. Loads that move
along the columns go ahead of their use by some tiles; at the end of a row they run past it, where nothing lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from birc.codegen.nest import NestBuilder
from birc.codegen.statements import StatementWriter
from birc.compiler.ir.plan import Phase, Statement
from birc.compiler.ir.registers import Epilogue
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.program import Register, affine

MOST_IN_TURN = 4
"""Tiles that go through one part of a phase before the next part: as many as a program has stores in flight."""

Place = Mapping[int | None, int]
"""The number of a tile along one dimension of its block, by the depths of loops; None where there is no loop."""


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

    def tile_register(self, terms: Place, slot: int = 0) -> Register:
        """The register that holds something of a tile of the block: the sums, or what the epilogue keeps in `slot`.

        `terms` give the number of the tile in the block, by the depths of loops.
        """
        base = self.writer.registers.count
        if not self.by_block:
            return _register(base * self.programs, terms)
        return _register(base + slot * self.rows * self.columns, {**dict(self.writer.in_program(0).terms), **terms})

    @property
    def sums_slot(self) -> int:
        """Which of the registers of a tile holds its sums until the epilogue begins."""
        return self.epilogue.slots.get(self._sums, 0)

    def early_register(self, terms: Place) -> Register:
        """The register of the sums of a tile that goes on at once."""
        if self._sums in self.epilogue.slots:
            return self.tile_register(terms, self.sums_slot)
        return self.writer.register(self._sums)

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
            with self.nest.loop(self.columns, self.step, self.column) as tile:
                self._write(held, {row: self.columns, tile: 1}, [], tile)
        if loads:
            with self.nest.loop(self.ahead, self.step, self.column) as inner:
                self._write(loads, {row: self.columns, inner: 1}, [], inner)

    def finish(self, statements: Iterable[Statement], row: int | None, outer: int | None, inner: int | None) -> None:
        """What follows a tile's loads, and the loads of a tile further on, into the registers that are free now."""
        statements = tuple(statements)
        terms = {row: self.columns, outer: self.ahead_of(statements), inner: 1}
        loads, held = self._loads(statements), self._held(statements)
        self._write([s for s in statements if s not in loads and s not in held], terms, [outer, inner], inner)
        if loads and outer is not None:
            with self.nest.moved(self.column, self.ahead * self.step):
                self._write(loads, terms, [], inner)

    def walk(self, row: int | None, phases: Iterable[Phase]) -> None:
        """Phases one after the other for the tiles of a row of the block, or (without loops) for the row as a whole."""
        for phase in phases:
            if not self.epilogue.is_rowwise:
                self._walk_block(phase, row)
            elif phase.loops:
                parts = self._in_turns(phase.statements)
                if len(parts) == 1:
                    self._walk_row(phase.statements, row)
                else:
                    self._walk_in_turns(parts, row)
            else:
                self._write(phase.statements, {row: self.columns}, [], None)

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
        """The parts of a phase in turn, each for a few tiles of a row."""
        few = max(n for n in range(1, MOST_IN_TURN + 1) if self.columns % n == 0)
        kind = _kind(statement for part in parts for statement in part)
        with self.nest.loop(self.columns // few, few * self.step, self.column, kind) as outer:
            for statements in parts:
                with self.nest.loop(few, self.step, self.column, _kind(statements)) as inner:
                    self._write(statements, {row: self.columns, outer: few, inner: 1}, [outer, inner], inner)

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
                    self._write(statements, {row: self.columns, outer: ahead, inner: 1}, [outer, inner], inner)

    def _in_turns(self, statements: tuple[Statement, ...]) -> list[tuple[Statement, ...]]:
        """A phase cut in two behind its last special function, if all that the rest reads of a tile has a register.

        Queues issue in order: a sum of powers would wait for each power, and the next tile behind it. And there are
        only a few stores in flight.
        """
        special = [n for n, s in enumerate(statements) if BY_MNEMONIC[s.op].pipe == "sfu"]
        if not special or special[-1] + 1 == len(statements) or self._loads(statements):
            return [statements]
        before, after = statements[: special[-1] + 1], statements[special[-1] + 1 :]
        made = {s.result for s in before} - self.epilogue.slots.keys()
        if any(argument in made for s in after for argument in s.arguments):
            return [statements]
        return [before, after]

    def _loads(self, statements: Iterable[Statement]) -> list[Statement]:
        return [s for s in statements if s.result in self.epilogue.loads]

    def _held(self, statements: Iterable[Statement]) -> list[Statement]:
        return [s for s in statements if s.result in self.epilogue.held]

    def _load_register(self, number: int, inner: int | None) -> Register:
        """The register of a load that goes ahead, `inner` tiles after the first."""
        base = self.epilogue.count(self.rows * self.columns, 0) + number * self.ahead
        return _register(base, {**dict(self.writer.in_program(0).terms), inner: 1})

    def _write(
        self, statements: Iterable[Statement], terms: Place, folds: Sequence[int | None], inner: int | None
    ) -> None:
        """Statements about the tile that `terms` number in its block."""
        statements = tuple(statements)
        sums = (s.result for s in statements if s.op == "vacc")
        kept = self.epilogue.slots or dict.fromkeys(sums, 0)
        self.writer.aliases = {name: self.tile_register(terms, slot) for name, slot in kept.items()}
        self.writer.aliases |= {name: self._load_register(n, inner) for name, n in self.epilogue.loads.items()}
        for statement in statements:
            if statement.op != "vacc":
                self.writer.write(statement, folds)


def _kind(statements: Iterable[Statement], loaded: Iterable[Statement] = ()) -> str:
    """The kind of a loop over tiles: each may add to a fold, or use what was `loaded` at an earlier one."""
    if any(s.op.startswith("vfold") for s in statements):
        return "red"
    return "seq" if any(loaded) else "par"


def _register(base: int, terms: Place) -> Register:
    return Register(affine(base, {depth: factor for depth, factor in terms.items() if depth is not None}))
