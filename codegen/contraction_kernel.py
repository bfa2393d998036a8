"""Kernels around a contraction: operand loads, T-core instructions, drains and the vector epilogue of each tile.

The nest has, from the outside in: SPC loops; loops over blocks of row and column tiles, the loads of a hoisted
operand between them; loops over depth chunks; the loads of a block; the grid of tiles of the block, each accumulated
over the resident depth. When a block has several tiles and the depth several chunks, tiles keep partial sums in
registers.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, field

from birc.codegen.nest import NestBuilder, mask
from birc.codegen.slots import Slots
from birc.codegen.statements import StatementWriter
from birc.compiler.ir.plan import Access, Contraction, Dimension, Kernel, Phase, Statement, Tiling
from birc.compiler.ir.plan_spread import spreads
from birc.compiler.ir.registers import assign
from birc.runtime.errors import InternalError
from birc.runtime.machine import Machine
from birc.runtime.program import Affine, Instruction, Register, RingAddress, Sync, affine
from birc.runtime.program import Kernel as KernelCode

A_FULL, A_FREE, B_FULL, B_FREE, ACC_FREE, ACC_FULL = range(6)


@dataclass(slots=True)
class Operand:
    """One operand's share of a block: `count` tiles along `dimension`, and where its loads stand."""

    access: Access
    split: int
    mnemonic: str
    dimension: str
    count: int
    buffers: int
    full: int
    free: int
    scope: list[int] = field(default_factory=list)


class ContractionWriter:
    """Writes one contraction kernel."""

    def __init__(self, kernel: Kernel, contraction: Contraction, tiling: Tiling, machine: Machine) -> None:
        self.kernel = kernel
        self.contraction = contraction
        self.tiling = tiling
        self.tile = {d.name: 1 for d in kernel.space} | dict(tiling.tile)
        self.nest, self.slots = NestBuilder(), Slots()
        row = kernel.blocked_row(self.tile)
        self.row = row.name if row is not None else ""
        self.column = contraction.column_dims[0]
        self.format = machine.format(contraction.format)
        depth = list(kernel.red_dims)
        first_resident = len(depth) - tiling.resident
        self.chunked, self.resident = depth[:first_resident], depth[first_resident:]
        a, b = contraction.a, contraction.b
        self.a = Operand(a, contraction.rows, "tlda", self.row, tiling.rows, tiling.a_buffers, A_FULL, A_FREE)
        self.b = Operand(b, contraction.depth, "tldb", self.column, tiling.columns, tiling.b_buffers, B_FULL, B_FREE)
        self.statements = _loads_first(kernel)
        registers = assign((Phase(self.statements),))
        self.writer = StatementWriter(kernel, self.nest, self.slots, self.tile, registers)
        self.shares: dict[str, int] = {}

    def emit(self) -> tuple[KernelCode, Slots]:
        """The code and the slots."""
        with ExitStack() as loops:
            self._spc_loops(loops)
            for d in self._independent():
                loops.enter_context(self.nest.loop(self.shares[d.name], self.tile[d.name], d.name))
            if self.tiling.hoist == "a":
                self._row_loops(loops)
                self._loads(self.a)
                self._column_loop(loops)
                self._loads(self.b)
                self._tiles()
            elif self.tiling.hoist == "b":
                self._column_loop(loops)
                self._loads(self.b)
                self._row_loops(loops)
                self._loads(self.a)
                self._tiles()
            else:
                self._row_loops(loops)
                self._column_loop(loops)
                self._chunks()
        return KernelCode(self.kernel.name, tuple(self.nest.nests), self._semaphores()), self.slots

    def _semaphores(self) -> tuple[int, ...]:
        steps = self._resident_steps()
        a_slots, b_slots = (o.buffers * o.count * steps for o in (self.a, self.b))
        if self.tiling.stream:
            a_slots = self.a.buffers
        return (0, a_slots, 0, b_slots, 1, *(0 for _ in range(self._programs())))

    def _programs(self) -> int:
        if self.b.count > 1:
            return self.b.count
        return self.a.count if self.a.count > 1 else self.tiling.programs

    def _resident_steps(self) -> int:
        return math.prod(self._steps(d) for d in self.resident)

    def _steps(self, dimension: Dimension) -> int:
        return -(-dimension.extent // self.tile[dimension.name])

    def _independent(self) -> list[Dimension]:
        """Par dimensions that are neither rows nor columns: independent products."""
        inside = {*self.contraction.row_dims, self.column}
        return [d for d in self.kernel.par_dims if d.name not in inside]

    def _spc_loops(self, loops: ExitStack) -> None:
        spread = spreads(self.kernel, self.tiling)
        for d in self.kernel.par_dims:
            self.shares[d.name] = spread[d.name].share
            loops.enter_context(self.nest.loop(spread[d.name].spcs, spread[d.name].points, d.name, level="spc"))

    def _row_loops(self, loops: ExitStack) -> None:
        for name in self.contraction.row_dims:
            self._block_loop(loops, name, self.tiling.rows if name == self.row else 1)

    def _column_loop(self, loops: ExitStack) -> None:
        self._block_loop(loops, self.column, self.tiling.columns)

    def _block_loop(self, loops: ExitStack, name: str, block: int) -> None:
        """A loop over blocks; one of them spreads over vector programs when a block has a single tile."""
        count, step = self.shares[name] // block, block * self.tile[name]
        programs = self.tiling.programs
        if name == self._program_dimension():
            loops.enter_context(self.nest.loop(count // programs, programs * step, name))
            depth = loops.enter_context(self.nest.loop(programs, step, name, level="program"))
            self.writer.program_depth = depth
        else:
            loops.enter_context(self.nest.loop(count, step, name))

    def _program_dimension(self) -> str:
        """The innermost block loop that the vector programs can share evenly; "" when they share a block's tiles."""
        if self.tiling.programs == 1 or self.tiling.rows * self.tiling.columns > 1:
            return ""
        rows = self.contraction.row_dims
        order = (self.column, *rows) if self.tiling.hoist == "b" else (*rows, self.column)
        return next((name for name in reversed(order) if self.shares[name] % self.tiling.programs == 0), "")

    def _loads(self, operand: Operand) -> None:
        """Load a block's tiles of one operand, for the depth that is resident."""
        if self.tiling.stream and operand is self.a:
            return
        operand.scope = self.nest.inner_depths()
        with ExitStack() as loops:
            tile = loops.enter_context(
                self.nest.loop(operand.count, self.tile.get(operand.dimension, 1), operand.dimension)
            )
            steps = [
                loops.enter_context(self.nest.loop(self._steps(d), self.tile[d.name], d.name, kind="red"))
                for d in self.resident
            ]
            self._load(operand, self._ring(operand, tile, steps))

    def _load(self, operand: Operand, address: RingAddress) -> None:
        """Load the current tile of one operand."""
        box = self.nest.box(self.slots.number(operand.access.view), operand.access, self.tile)
        operands = (address, box, operand.split, self.contraction.format)
        waits, posts = (Sync(Affine(operand.free)),), (Sync(Affine(operand.full)),)
        self.nest.append(Instruction(operand.mnemonic, operands, waits, posts))

    def _ring(self, operand: Operand, tile: int | None, steps: list[int | None]) -> RingAddress:
        """Where a tile lies in its input buffer: (block parity, tile of the block, depth step)."""
        slot_bytes = 64 * self._depth_elements() * self.format.bytes
        if self.tiling.stream and operand is self.a:
            counter = self.nest.counter(self.nest.inner_depths())
            return RingAddress(Affine(), slot_bytes, counter, operand.buffers)
        terms: dict[int, int] = {}
        stride = slot_bytes
        for depth, dimension in zip(reversed(steps), reversed(self.resident), strict=True):
            if depth is not None:
                terms[depth] = stride
            stride *= self._steps(dimension)
        if tile is not None:
            terms[tile] = stride
        base = affine(0, terms)
        if operand.buffers == 1 or not operand.scope:
            return RingAddress(base)
        return RingAddress(base, stride * operand.count, self.nest.counter(operand.scope), operand.buffers)

    def _depth_elements(self) -> int:
        """Depth of one T-core operation, rounded up to the hardware's unit."""
        k = math.prod(self.tile[d.name] for d in self.kernel.red_dims)
        return -(-k // self.format.k_unit) * self.format.k_unit

    def _chunks(self) -> None:
        """Loop over depth chunks, load each, and accumulate in the T-core or in registers."""
        in_registers = bool(self.chunked) and self.tiling.rows * self.tiling.columns > 1
        with ExitStack() as loops:
            chunks = [
                loops.enter_context(self.nest.loop(self._steps(d), self.tile[d.name], d.name, kind="red"))
                for d in self.chunked
            ]
            self._loads(self.a)
            self._loads(self.b)
            if in_registers:
                self._grid(chunks, partial=True)
            elif any(depth is not None for depth in chunks):
                self._product(chunks)
            else:
                self._tiles()
                return
        if in_registers:
            self._epilogues()
        else:
            self._drain_and_finish()

    def _tiles(self) -> None:
        """The tiles of a block whose whole depth is resident, each finished at once."""
        self._grid([], partial=False)

    def _grid(self, chunks: list[int | None], partial: bool) -> None:
        with ExitStack() as loops:
            row, column = self._grid_loops(loops)
            self._product([], row, column)
            if partial:
                first = mask(chunks)
                destination = self._accumulator(row, column)
                self._drain(destination, first)
            else:
                self._drain_and_finish()
        self.writer.program_depth = None if self.tiling.rows * self.tiling.columns > 1 else self.writer.program_depth

    def _grid_loops(self, loops: ExitStack) -> tuple[int | None, int | None]:
        """Loops over the row and column tiles of a block; the finer one spreads over vector programs."""
        by_column = self.b.count > 1
        row = loops.enter_context(
            self.nest.loop(self.a.count, self.tile.get(self.row, 1), self.row, level="tile" if by_column else "program")
        )
        column = loops.enter_context(self.nest.loop(self.b.count, self.tile[self.column], self.column, level="program"))
        if row is not None or column is not None:
            self.writer.program_depth = column if by_column else row
        return row, column

    def _product(self, chunks: list[int | None], row: int | None = None, column: int | None = None) -> None:
        """The T-core operations of one tile over the resident depth."""
        with ExitStack() as loops:
            around = self.nest.inner_depths()
            steps = [
                loops.enter_context(self.nest.loop(self._steps(d), self.tile[d.name], d.name, kind="red"))
                for d in self.resident
            ]
            accumulated = mask([*chunks, *steps])
            a_reuse = 0
            if self.tiling.stream:
                self._load(self.a, self._ring(self.a, row, steps))
            else:
                a_reuse = mask([d for d in around if d not in self.a.scope and d != row])
            b_reuse = mask([d for d in around if d not in self.b.scope and d != column])
            m = math.prod(self.tile[name] for name in self.contraction.row_dims)
            operands = (
                self._ring(self.a, row, steps),
                self._ring(self.b, column, steps),
                m,
                self.tile[self.column],
                math.prod(self.tile[d.name] for d in self.kernel.red_dims),
                self.contraction.format,
                accumulated,
            )
            waits = (
                Sync(Affine(A_FULL), first=a_reuse),
                Sync(Affine(B_FULL), first=b_reuse),
                Sync(Affine(ACC_FREE), first=accumulated),
            )
            posts = (
                Sync(Affine(A_FREE), last=a_reuse),
                Sync(Affine(B_FREE), last=b_reuse),
                Sync(self._accumulator_full(), last=accumulated),
            )
            self.nest.append(Instruction("tmma", operands, waits, posts))

    def _accumulator_full(self) -> Affine:
        """The semaphore of the vector program that takes the current tile."""
        depth = self.writer.program_depth
        return Affine(ACC_FULL) if depth is None else affine(ACC_FULL, {depth: 1})

    def _accumulator(self, row: int | None, column: int | None) -> Register:
        """The register that holds the partial sums of a tile of the block."""
        base = self.writer.registers.count * self._programs()
        terms = {}
        if row is not None:
            terms[row] = self.b.count
        if column is not None:
            terms[column] = 1
        return Register(affine(base, terms))

    def _drain(self, destination: Register, first: int) -> None:
        waits = (Sync(self._accumulator_full()),)
        self.writer.write_drain(destination, first, waits, (Sync(Affine(ACC_FREE)),))

    def _drain_and_finish(self) -> None:
        """Loads of the epilogue (they overlap the T-core), the drain, the rest."""
        for statement in self.statements:
            if statement.op == "vacc":
                self._drain(self.writer.register(statement.result), 0)
            else:
                self.writer.write(statement)

    def _epilogues(self) -> None:
        """Finish the partial sums of a block, tile after tile."""
        with ExitStack() as loops:
            row, column = self._grid_loops(loops)
            accumulator = self._accumulator(row, column)
            for statement in self.statements:
                if statement.op == "vacc":
                    self.nest.append(Instruction("vmov", (self.writer.register(statement.result), accumulator)))
                else:
                    self.writer.write(statement)
        self.writer.program_depth = None


def _loads_first(kernel: Kernel) -> tuple[Statement, ...]:
    """The epilogue with its loads in front, so that they are on their way while the T-core works."""
    (phase,) = kernel.phases
    if not any(s.op == "vacc" for s in phase.statements):
        raise InternalError("a contraction whose result is not used", where=kernel.name)
    loads = tuple(s for s in phase.statements if s.op == "vld")
    return loads + tuple(s for s in phase.statements if s.op != "vld")


def emit_contraction_kernel(
    kernel: Kernel, contraction: Contraction, tiling: Tiling, machine: Machine
) -> tuple[KernelCode, Slots]:
    """The code of a contraction kernel and its slots."""
    return ContractionWriter(kernel, contraction, tiling, machine).emit()
