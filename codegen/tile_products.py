"""The T-core's operations on the tiles of a contraction, with the semaphores that they wait for and post."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from birc.codegen.columns import NOWHERE, WHOLE, Part, Place
from birc.codegen.nest import mask
from birc.codegen.operand_loads import OperandLoads
from birc.codegen.statements import StatementWriter
from birc.compiler.ir.plan import Contraction, Dimension, Kernel, Tiling
from birc.compiler.ir.plan_patch import Patch, patch_of
from birc.compiler.ir.semaphores import A_FREE, A_FULL, ACC_FREE, ACC_FULL, B_FREE, B_FULL
from birc.runtime.machine import Machine
from birc.runtime.program import Affine, Instruction, RingAddress, Sync, Window, affine

Multiply = Callable[[RingAddress, RingAddress, int, tuple[Sync, ...], tuple[Sync, ...]], None]
"""Writes a T-core operation on two tiles, which adds but in the first iterations of masked loops; waits and posts."""


@dataclass(slots=True)
class TileProducts:
    """Writes the products of one contraction kernel; `taps` are the loops that move a window over a patch."""

    kernel: Kernel
    contraction: Contraction
    tiling: Tiling
    machine: Machine
    tile: Mapping[str, int]
    taps: tuple[Dimension, ...]
    loads: OperandLoads
    writer: StatementWriter

    def write(
        self,
        chunks: list[int | None],
        row: int | None = None,
        column: Place = NOWHERE,
        part: Part = WHOLE,
    ) -> None:
        """The T-core operations of one tile over the resident depth; the loops are over a `part` of the columns."""
        operand_a, operand_b = self.loads.a, self.loads.b
        self.loads.column(column, part.first)
        with ExitStack() as loops:
            around = self.loads.nest.inner_depths()
            streamed = self.tiling.stream and operand_b.count == 1
            if streamed:
                operand_a.scope = around
            steps = self.loads.depth_loops(loops, operand_a.resident)
            if streamed:
                self.loads.load(operand_a, {row: 1}, steps)
            taps = self.loads.depth_loops(loops, self.taps)
            accumulated = mask([*chunks, *steps.values(), *taps.values()])
            a_reuse = mask([*(d for d in around if d not in operand_a.scope and d != row), *taps.values()])
            b_reuse = mask([d for d in around if d not in operand_b.scope and d not in column])
            a, b = (
                self.loads.ring(operand_a, {row: 1}, steps),
                self.loads.ring(operand_b, column, {**steps, **taps}, part.first),
            )
            begins, ends = self.loads.edges
            a_full, b_full = Sync(Affine(A_FULL), first=a_reuse), Sync(Affine(B_FULL), first=b_reuse)
            a_free, b_free = Sync(Affine(A_FREE), last=a_reuse), Sync(Affine(B_FREE), last=b_reuse)
            rows = self.loads.part
            comes, goes = rows is None or rows.waits, rows is None or rows.frees
            if rows is not None and rows.until is not None:
                a_free = replace(a_free, last=a_free.last | mask([rows.until]))
            waits = (
                *[a_full][: part.begins and comes],
                *[b_full][:begins],
                Sync(Affine(ACC_FREE), first=accumulated),
            )
            a_given = self.loads.given_back(operand_a, around, {**column, **dict.fromkeys(taps.values(), 1)})
            posts = (
                *(a_free, *a_given)[: 2 * (part.ends and goes)],
                *(b_free, *self.loads.given_back(operand_b, around, {row: 1}))[: 2 * ends],
                Sync(self.accumulator_full(), last=accumulated),
            )
            self._append(a, b, accumulated, waits, posts)

    def multiply(
        self, a: RingAddress, b: RingAddress, accumulated: int, waits: tuple[Sync, ...], posts: tuple[Sync, ...]
    ) -> None:
        """A T-core operation on two tiles, which adds but in the first iterations of masked loops."""
        waits = (*waits, Sync(Affine(ACC_FREE), first=accumulated))
        posts = (*posts, Sync(self.accumulator_full(), last=accumulated))
        self._append(a, b, accumulated, waits, posts)

    def _append(
        self, a: RingAddress, b: RingAddress, accumulated: int, waits: tuple[Sync, ...], posts: tuple[Sync, ...]
    ) -> None:
        rows = math.prod(self.tile[name] for name in self.contraction.row_dims)
        depth = math.prod(self.tile[d.name] for d in self.kernel.red_dims)
        columns = math.prod(self.tile[name] for name in self.contraction.column_dims)
        form = (columns, depth, self.contraction.format, accumulated)
        patch = patch_of(self.kernel, self.tiling.taps) if self.tiling.taps else None
        if patch is None:
            self.loads.nest.append(Instruction("tmma", (a, b, rows, *form), waits, posts))
        else:
            self.loads.nest.append(Instruction("tconv", (a, self._window(patch), b, *form), waits, posts))

    def _window(self, patch: Patch) -> Window:
        """The window of the current tap."""
        extents = {d.name: d.extent for d in self.kernel.space}
        top, left = (self.loads.nest.origin.get(side.tap, Affine()) * side.dilation for side in patch.sides)
        rows, columns = (side.window(self.tile) for side in patch.sides)
        fold = patch.fold(self.tile, self.machine.conv_tile_side)
        pitch = patch.columns.patch(self.tile, extents)
        return Window(top * fold, left, rows * fold, columns // fold, pitch // fold)

    def accumulator_full(self) -> Affine:
        """The semaphore of the vector program that takes the current tile."""
        depth = self.writer.program_depth
        return Affine(ACC_FULL) if depth is None else affine(ACC_FULL, {depth: 1})
