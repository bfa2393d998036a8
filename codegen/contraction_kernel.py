"""Kernels around a contraction: operand loads, T-core instructions, drains and the vector epilogue of each tile.

The nest has, from the outside in: SPC loops; loops over blocks of row and column tiles, the loads of a hoisted
operand between them; loops over depth chunks; the loads of a block; the grid of tiles of the block, each accumulated
over the resident depth. When a block has several tiles and the depth several chunks, or one vector program takes the
whole block, tiles keep their sums in registers until all of the block's are done; where programs take tiles, each
tile is finished in the last chunk, in which the rest of its sum arrives. Where the tiling says so the last rows of a
block go column by column.

A convolution by windows loads a patch of pixels in place of an a tile: the loops over taps are inside its load, and
each of their iterations multiplies another window of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from birc.codegen.block_epilogue import BlockEpilogue
from birc.codegen.columns import Part
from birc.codegen.nest import NestBuilder, mask
from birc.codegen.opening_columns import OpeningColumns
from birc.codegen.operand_loads import OperandLoads
from birc.codegen.operand_ring import Operand, Rounds
from birc.codegen.overlapped_rows import OverlappedRows
from birc.codegen.rows_by_parts import RowsByParts
from birc.codegen.shifted_rows import ADD, BEGIN, ShiftedRows
from birc.codegen.slots import Slots
from birc.codegen.statements import StatementWriter
from birc.codegen.tile_products import TileProducts
from birc.codegen.turns import turns_of
from birc.codegen.winding_depth import RowLoop, WindingDepth
from birc.compiler.ir.plan import BLOCK, Contraction, Dimension, Kernel, Phase, Statement, Tiling
from birc.compiler.ir.plan_patch import slot_bytes
from birc.compiler.ir.plan_spread import spreads
from birc.compiler.ir.plan_winding import winds_through_depth
from birc.compiler.ir.registers import epilogue_of, program_registers
from birc.compiler.ir.row_overlap import overlapped_dimension
from birc.compiler.ir.semaphores import A_FREE, A_FULL, ACC_FREE, B_FREE, B_FULL
from birc.compiler.ir.tile_order import BY_COLUMNS, OPENING, OVERLAPPING, WINDING
from birc.runtime.machine import Machine
from birc.runtime.program import Affine, Instruction, Register, Sync, affine
from birc.runtime.program import Kernel as KernelCode


class ContractionWriter:
    """Writes one contraction kernel."""

    def __init__(self, kernel: Kernel, contraction: Contraction, tiling: Tiling, machine: Machine) -> None:
        self.kernel = kernel
        self.contraction = contraction
        self.tiling = tiling
        self.machine = machine
        self.tile = kernel.tile_extents(tiling.tile)
        self.nest, self.slots = NestBuilder(), Slots()
        row = kernel.blocked_row(self.tile)
        self.row = row.name if row is not None else ""
        self.column = contraction.column
        depth = list(kernel.red_dims)
        first_resident = len(depth) - tiling.resident
        self.chunked, resident = depth[:first_resident], tuple(depth[first_resident:])
        taps = tuple(d for d in resident if d.name in tiling.taps)
        loaded = tuple(d for d in resident if d.name not in tiling.taps)
        a_bytes, b_bytes = slot_bytes(kernel, contraction, tiling, machine)
        self.a = Operand(
            contraction.a, contraction.rows, "tlda", self.row, tiling.rows, tiling.a_slots,
            A_FULL, A_FREE, loaded, a_bytes,
        )  # fmt: skip
        self.b = Operand(
            contraction.b, contraction.depth, "tldb", self.column, tiling.columns, tiling.b_slots,
            B_FULL, B_FREE, resident, b_bytes,
        )  # fmt: skip
        reach = {d.name: d.extent for d in taps}
        panels = contraction.panels if contraction.further else ()
        self.loads = OperandLoads(
            self.a, self.b, tiling, self.tile, self.nest, self.slots, contraction.format, reach, panels
        )  # fmt: skip
        self.by_block = tiling.turns == BLOCK
        self.epilogue = epilogue_of(kernel, tiling, machine.vector_registers)
        self.spreads = spreads(kernel, tiling)
        self.shares = {d.name: self.spreads[d.name].share for d in kernel.par_dims}
        self.shares[self.column] //= tiling.deals
        apart = [d.name for d in self._independent()] if self.epilogue.is_rowwise else []
        self.turns = turns_of(contraction, tiling, self.row, self.shares, apart)
        registers = self.epilogue.registers
        ahead = self.epilogue.ahead(tiling.rows, tiling.columns, machine.vector_registers // tiling.programs)
        stride = program_registers(self.epilogue, tiling, ahead)
        self.writer = StatementWriter(kernel, self.nest, self.slots, self.tile, registers, stride=stride)
        self.products = TileProducts(kernel, contraction, tiling, machine, self.tile, taps, self.loads, self.writer)
        self.after = BlockEpilogue(
            self.epilogue, self.writer, self.nest, tiling.rows, tiling.columns, self.column, self.tile[self.column],
            self.by_block, self.turns.count, ahead,
        )  # fmt: skip
        self.by_parts = RowsByParts(
            self.nest, self.loads, tiling.rows, self.row, self.tile.get(self.row, 1), self.column,
            self.tile[self.column], self._taken, self._make_lasting,
        )  # fmt: skip

    def emit(self) -> tuple[KernelCode, Slots]:
        """The code and the slots."""
        with ExitStack() as loops:
            self._spc_loops(loops)
            if self.tiling.order == OVERLAPPING:
                self._overlapped_rows(loops)
            else:
                self._blocks(loops)
        return KernelCode(self.kernel.name, tuple(self.nest.nests), self._semaphores()), self.slots

    def _blocks(self, loops: ExitStack) -> None:
        """Blocks of tiles one after the other, loads of a hoisted operand outside of the others."""
        apart = self.turns.apart
        programs = {d.name: self.tiling.programs if d.name == apart else 1 for d in self._independent()}
        for d in self._independent():
            count, step = self.shares[d.name] // programs[d.name], programs[d.name] * self.tile[d.name]
            loops.enter_context(self.nest.loop(count, step, d.name))
        if self.tiling.hoist == "a":
            self._row_loops(loops)
            self.loads.block(self.a)
            if self.tiling.order == OPENING:
                self._opening_columns(loops)
                return
            self._make_before(self.row, self.a.count)
            self._column_loop(loops)
            self.loads.block(self.b)
            self._tiles()
        elif self.tiling.hoist == "b":
            self._column_loop(loops)
            if winds_through_depth(self.kernel, self.tiling):
                self._make_before(self.column, self.b.count)
                self._winding_rows()
                return
            self.loads.block(self.b)
            self._make_before(self.column, self.b.count)
            self._row_loops(loops)
            self.loads.block(self.a)
            self._tiles()
        elif self.tiling.order == WINDING:
            tile = partial(self._tile, [], False, False)
            self.by_parts.winding(self.shares[self.column] // self.tiling.columns, tile)
        else:
            self._row_loops(loops)
            self._make_before(self.row, self.a.count)
            self._column_loop(loops)
            if apart:
                step, count = self.tile[apart], self.tiling.programs
                depth = loops.enter_context(self.nest.loop(count, step, apart, level="program"))
                self.writer.program_depth = depth
            if self.tiling.order.shifted:
                self._shifted_rows().block(self._shifted_sums)
            else:
                self._chunks()

    def _opening_columns(self, loops: ExitStack) -> None:
        """All columns past the rows of a block, the first ones row by row."""
        spread, rows, width = self.spreads[self.column], self.a.count, self.tile[self.column]
        if self._lasting:
            self._make_all_rows()
        loops.enter_context(self.nest.loop(spread.deals, spread.dealt, self.column))

        def columns_of(opened: ExitStack) -> int | None:
            column = opened.enter_context(self.nest.loop(rows, width, self.column, level="program"))
            self._taken(column)
            return column

        def tile(row: int | None, column: int | None) -> None:
            self.products.write([], row, {column: 0})
            self._drain_and_finish()

        def tiles() -> None:
            with ExitStack() as opened:
                row = self._own_rows(opened, "program")
                self._taken(row)
                self._tile([], False, False, row, None)

        OpeningColumns(
            self.nest, self.loads, rows, self.shares[self.column], self.column, width,
            partial(self._own_rows, level="tile"), columns_of, tile, lambda: self._taken(None), tiles,
        ).write()  # fmt: skip
        self.writer.rows = {}
        self._taken(None)

    def _make_all_rows(self) -> None:
        """What lasts of all rows, by each program, statement by statement: so it waits for all of them together."""
        with self.nest.loop(self.turns.count, level="program") as program:
            self._taken(program)
            for statement in self._lasting:
                with ExitStack() as each:
                    self._own_rows(each, "tile")
                    self.writer.write(statement)
        self._taken(None)

    def _own_rows(self, loops: ExitStack, level: str) -> int | None:
        """The loop over the rows of a block, each of which has registers of its own for what lasts."""
        row = loops.enter_context(self.nest.loop(self.a.count, self.tile.get(self.row, 1), self.row, level=level))
        self.writer.rows = {row: self.epilogue.registers.count} if row is not None and self.epilogue.lasting else {}
        return row

    def _winding_rows(self) -> None:
        """All rows past the only tile of columns, which does not fit."""
        rows = [RowLoop(name, self.shares[name], self.tile[name]) for name in self.contraction.row_dims]
        WindingDepth(self.nest, self.loads, self.products.multiply, self._drain_and_finish).write(rows)

    def _shifted_rows(self) -> ShiftedRows:
        inner, tiling = self.a.resident[0], self.tiling
        (outer,) = (d for d in self.chunked if self.loads.steps(d) > 1)
        return ShiftedRows(
            self.nest, self.loads, outer.name, self.loads.steps(outer), inner, self.tile[inner.name], tiling.rows,
            tiling.order.shifted, self.row, self.tile.get(self.row, 1), self.column, self.tile[self.column],
            self.products.multiply, self._taken,
        )  # fmt: skip

    def _shifted_sums(self, how: str, first: int, row: int | None, column: int | None, chunk: int | None) -> None:
        """The sums of a tile of shifted rows, in its register or finished."""
        number = self.after.tile_register({row: self.b.count, column: 1}, self.after.sums_slot).number
        others = Register(number + first * self.b.count)
        if how == BEGIN:
            self._drain(others, mask([chunk]))
        elif how == ADD:
            self._add_sums(others)
        else:
            self._drain_and_finish(others)

    def _add_sums(self, others: Register) -> None:
        """The drain, and its sums added to `others`."""
        (result,) = (s.result for s in self.epilogue.phases[0].statements if s.op == "vacc")
        sums = self.writer.register(result)
        self._drain(sums, 0)
        self.nest.append(Instruction("vadd", (others, sums, others)))

    def _semaphores(self) -> tuple[int, ...]:
        b_slots = self.b.slots - (self._shifted_rows().given_late if self.tiling.order.shifted else 0)
        return (0, self.a.slots, 0, b_slots, 1, *(0 for _ in range(self.turns.count)))

    def _independent(self) -> list[Dimension]:
        """Par dimensions that are neither rows nor columns: independent products."""
        inside = {*self.contraction.row_dims, *self.contraction.column_dims}
        return [d for d in self.kernel.par_dims if d.name not in inside]

    def _spc_loops(self, loops: ExitStack) -> None:
        for d in self.kernel.par_dims:
            spread = self.spreads[d.name]
            loops.enter_context(self.nest.loop(spread.spcs, spread.hand, d.name, level="spc"))

    def _row_loops(self, loops: ExitStack) -> None:
        for name in self.contraction.row_dims:
            self._block_loop(loops, name, self.tiling.rows if name == self.row else 1)

    def _column_loop(self, loops: ExitStack) -> None:
        spread = self.spreads[self.column]
        loops.enter_context(self.nest.loop(spread.deals, spread.dealt, self.column))
        self._block_loop(loops, self.column, self.tiling.columns)

    def _block_loop(self, loops: ExitStack, name: str, block: int) -> None:
        """A loop over blocks; one of them spreads over vector programs when these take whole blocks in turn."""
        count, step = self.shares[name] // block, block * self.tile[name]
        programs = self.tiling.programs
        if name == self.turns.dimension:
            loops.enter_context(self.nest.loop(count // programs, programs * step, name))
            depth = loops.enter_context(self.nest.loop(programs, step, name, level="program"))
            self.writer.program_depth = depth
        else:
            loops.enter_context(self.nest.loop(count, step, name))

    def _chunks(self) -> None:
        """Loop over depth chunks, load each, and accumulate in the T-core or in registers."""
        is_chunked = any(self.loads.steps(dimension) > 1 for dimension in self.chunked)
        in_registers = (is_chunked or self.by_block) and self.tiling.rows * self.tiling.columns > 1
        several = [dimension for dimension in self.chunked if self.loads.steps(dimension) > 1]
        if in_registers and not self.by_block and len(several) == 1:
            self._chunks_and_last(several[0])
            return
        with ExitStack() as loops:
            chunks = list(self.loads.depth_loops(loops, self.chunked).values())
            self._load_both()
            if in_registers:
                self._grid(chunks, in_registers=True)
            elif any(depth is not None for depth in chunks):
                self.products.write(chunks)
            else:
                self._tiles()
                return
        if in_registers:
            self._epilogues(self._left(chunks))
        else:
            self._drain_and_finish()

    def _chunks_and_last(self, dimension: Dimension) -> None:
        """All chunks but the last go into registers; in the last one each tile is finished as soon as it is summed."""
        count, extent, at = self.loads.steps(dimension), self.tile[dimension.name], len(self.nest.stack)
        with self.nest.loop(count - 1, extent, dimension.name, kind="red") as chunk:
            self.loads.rounds = Rounds(at, chunk, affine(0, {} if chunk is None else {chunk: 1}), count)
            self._load_both()
            self._grid([chunk], in_registers=True)
        with self.nest.moved(dimension.name, (count - 1) * extent):
            self.loads.rounds = Rounds(at, None, Affine(count - 1), count)
            self._load_both()
            self._grid([], in_registers=False, adds=True)
        self.loads.rounds = None

    def _tiles(self) -> None:
        """The tiles of a block whose whole depth is resident: each finished at once, or all together at the end."""
        self._grid([], in_registers=self.by_block)
        if self.by_block:
            self._epilogues(self._left([]))

    def _early(self, chunks: list[int | None]) -> Phase | None:
        """The phase that a tile goes through as soon as its sums are there: those of its only depth chunk."""
        return self.after.first if all(depth is None for depth in chunks) else None

    def _left(self, chunks: list[int | None]) -> Sequence[Phase]:
        """The phases that wait until all sums of a block are there."""
        return self.epilogue.phases[1 if self._early(chunks) is not None else 0 :]

    def _grid(self, chunks: list[int | None], in_registers: bool, adds: bool = False) -> None:
        """The tiles of a block, their sums left `in_registers` or finished; `adds` what other chunks left there."""
        early = self._early(chunks) if in_registers else None
        if self.tiling.order == BY_COLUMNS:
            self.by_parts.block(partial(self._tile, chunks, in_registers, adds))
            return
        with ExitStack() as loops:
            row = self._row_loop(loops, self.a.count)
            if self.tiling.stream and self.b.count > 1:
                self.loads.row()
            if early is not None:
                self._early_tiles(early, row)
                return
            column = self._column_tiles(loops)
            self._tile(chunks, in_registers, adds, row, column)
        self._leave_grid()

    def _tile(
        self,
        chunks: list[int | None],
        in_registers: bool,
        adds: bool,
        row: int | None,
        column: int | None,
        loaded: bool = False,
    ) -> None:
        """The product of a tile, and its sum in its register or finished."""
        self.products.write([], row, {column: 1})
        first = 0 if self.loads.part is None else self.loads.part.first * self.b.count
        number = self.after.tile_register({row: self.b.count, column: 1}, self.after.sums_slot).number
        if in_registers:
            self._drain(Register(number + first), mask(chunks))
        else:
            self._drain_and_finish(Register(number + first) if adds else None, loaded)

    def _early_tiles(self, phase: Phase, row: int | None) -> None:
        """The tiles of a row, each going through the first phase of the epilogue while the next is multiplied."""
        self.after.load_first(phase.statements, row)
        parts = self.after.early_parts
        if len(parts) > 1:
            for part in parts:
                self._early_part(phase, row, part)
            return
        ahead, extent = self.after.ahead_of(phase.statements), self.tile[self.column]
        with ExitStack() as loops:
            outer = loops.enter_context(self.nest.loop(self.b.count // ahead, ahead * extent, self.column, "red"))
            inner = loops.enter_context(self.nest.loop(ahead, extent, self.column, "red"))
            columns = {outer: ahead, inner: 1}
            self.products.write([], row, columns)
            self._drain(self.after.early_register({row: self.b.count, **columns}), 0)
            self.after.finish(phase.statements, row, outer, inner)

    def _overlapped_rows(self, loops: ExitStack) -> None:
        """Rows of tiles, each finished while the next is multiplied."""
        overlapped = overlapped_dimension(self.kernel, self.tiling)
        for name in (*(d.name for d in self._independent()), *self.contraction.row_dims):
            if name == overlapped:
                break
            loops.enter_context(self.nest.loop(self.shares[name], self.tile[name], name))
        rows = OverlappedRows(self.nest, self.after, self._load_both, self._early_tile, self._stand_at)
        rows.write(overlapped, self.shares[overlapped], self.tile[overlapped])

    def _stand_at(self, rounds: Rounds | None) -> None:
        self.loads.rounds = rounds

    def _load_both(self) -> None:
        self.loads.block(self.a)
        self.loads.block(self.b)

    def _early_tile(self, tile: int | None, part: Part) -> None:
        self.products.write([], None, {tile: 1}, part)
        self._drain(self.after.early_register({tile: 1}, part), 0)

    def _early_part(self, phase: Phase, row: int | None, part: Part) -> None:
        """Tiles of a row that a late mask covers, or does not."""
        extent = self.tile[self.column]
        with ExitStack() as loops:
            loops.enter_context(self.nest.moved(self.column, part.first * extent))
            tile = loops.enter_context(self.nest.loop(part.count, extent, self.column, "red"))
            self._early_tile(tile, part)
            self.after.finish_part(phase.statements, row, tile, part)

    def _taken(self, depth: int | None) -> None:
        """Vector programs take the iterations of the loop at a depth in turn; None when it is behind."""
        self.writer.program_depth = depth

    def _make_before(self, staying: str, tiles: int) -> None:
        """What is the same for all tiles that go past a block of others, which stay, by each program that takes some.

        The block has so many tiles along the dimension `staying`.
        """
        if not self.epilogue.lasting:
            return
        if self.writer.program_depth is not None:
            self._make_lasting()
            return
        dimension, step = (staying, self.tile.get(staying, 1)) if tiles > 1 else ("", 0)
        with self.nest.loop(self.turns.count, step, dimension, level="program") as program:
            self._taken(program)
            self._make_lasting()
        self._taken(None)

    def _make_lasting(self) -> None:
        """What is the same for all tiles that go past rows or columns that stay."""
        for statement in self._lasting:
            self.writer.write(statement)

    @property
    def _lasting(self) -> list[Statement]:
        return [s for s in self.epilogue.phases[0].statements if s.result in self.epilogue.lasting]

    def _leave_grid(self) -> None:
        """Tiles that programs take in turn are behind."""
        if self.tiling.rows * self.tiling.columns > 1 and not self.by_block:
            self.writer.program_depth = None

    def _row_loop(self, loops: ExitStack, count: int) -> int | None:
        """The loop over `count` row tiles of a block; vector programs take them in turn when there is one column."""
        spread = self.turns.in_block and self.b.count == 1
        level = "program" if spread else "tile"
        row = loops.enter_context(self.nest.loop(count, self.tile.get(self.row, 1), self.row, level=level))
        if row is not None and spread:
            self.writer.program_depth = row
        return row

    def _column_tiles(self, loops: ExitStack) -> int | None:
        """The loop over the column tiles of a block, which vector programs take in turn unless they take blocks."""
        level = "program" if self.turns.in_block else "tile"
        column = loops.enter_context(self.nest.loop(self.b.count, self.tile[self.column], self.column, "par", level))
        if column is not None and self.turns.in_block:
            self.writer.program_depth = column
        return column

    def _drain(self, destination: Register, first: int) -> None:
        waits = (Sync(self.products.accumulator_full()),)
        self.writer.write_drain(destination, first, waits, (Sync(Affine(ACC_FREE)),))

    def _drain_and_finish(self, others: Register | None = None, loaded: bool = False) -> None:
        """Loads of the epilogue (they overlap the T-core), the drain, the rest; sums of `others` chunks are added.

        What lasts is not made again: it is there before the tiles that go past what stays.
        """
        lasting = () if self.tiling.order == WINDING and not loaded else self.epilogue.lasting
        for statement in self.epilogue.phases[0].statements:
            if statement.result in lasting:
                continue
            if statement.op == "vacc":
                sums = self.writer.register(statement.result)
                self._drain(sums, 0)
                if others is not None:
                    self.nest.append(Instruction("vadd", (sums, others, sums)))
            else:
                self.writer.write(statement)

    def _epilogues(self, phases: Sequence[Phase]) -> None:
        """Finish the sums of a block, row after row, with the phases that are left."""
        with ExitStack() as loops:
            row = self._row_loop(loops, self.a.count)
            self.after.walk(row, phases)
        self._leave_grid()


def emit_contraction_kernel(
    kernel: Kernel, contraction: Contraction, tiling: Tiling, machine: Machine
) -> tuple[KernelCode, Slots]:
    """The code of a contraction kernel and its slots."""
    return ContractionWriter(kernel, contraction, tiling, machine).emit()
