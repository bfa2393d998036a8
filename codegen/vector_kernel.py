"""Kernels without a contraction: tiles are spread over SPCs and vector programs, phases run inside."""

from __future__ import annotations

from contextlib import ExitStack

from birc.codegen.nest import NestBuilder
from birc.codegen.slots import Slots
from birc.codegen.statements import StatementWriter
from birc.compiler.ir.plan import Kernel, Phase, Tiling
from birc.compiler.ir.plan_spread import spreads
from birc.compiler.ir.registers import assign
from birc.runtime.program import Kernel as KernelCode


def emit_vector_kernel(kernel: Kernel, tiling: Tiling) -> tuple[KernelCode, Slots]:
    """The code of a vector kernel and its slots."""
    tile = {d.name: 1 for d in kernel.space} | dict(tiling.tile)
    nest, slots = NestBuilder(), Slots()
    looped = {name for phase in kernel.phases for name in phase.loops}
    outer = [d for d in kernel.par_dims if d.name not in looped]
    spread = spreads(kernel, tiling)
    registers = assign(kernel.phases)
    with ExitStack() as loops:
        counts = {}
        for d in outer:
            counts[d.name] = spread[d.name].share
            loops.enter_context(nest.loop(spread[d.name].spcs, spread[d.name].points, d.name, level="spc"))
        program_depth = None
        for d in outer:
            count = counts[d.name]
            if tiling.programs > 1 and d.name == _program_dimension(kernel, tiling, counts):
                loops.enter_context(nest.loop(count // tiling.programs, tiling.programs * tile[d.name], d.name))
                depth = loops.enter_context(nest.loop(tiling.programs, tile[d.name], d.name, level="program"))
                program_depth = depth
            else:
                loops.enter_context(nest.loop(count, tile[d.name], d.name))
        writer = StatementWriter(kernel, nest, slots, tile, registers, program_depth)
        for phase in kernel.phases:
            _write_phase(kernel, phase, writer, tile)
    return KernelCode(kernel.name, tuple(nest.nests)), slots


def _program_dimension(kernel: Kernel, tiling: Tiling, counts: dict[str, int]) -> str:
    """The innermost dimension whose tiles the programs can share evenly."""
    shared = (d.name for d in reversed(kernel.par_dims) if d.name in counts and counts[d.name] % tiling.programs == 0)
    return next(shared, "")


def _write_phase(kernel: Kernel, phase: Phase, writer: StatementWriter, tile: dict[str, int]) -> None:
    folds = any(s.op.startswith("vfold") for s in phase.statements)
    with ExitStack() as loops:
        depths = []
        for name in phase.loops:
            dimension = kernel.dimension(name)
            count = -(-dimension.extent // tile[name])
            kind = "red" if folds else "par"
            depths.append(loops.enter_context(writer.nest.loop(count, tile[name], name, kind=kind)))
        for statement in phase.statements:
            writer.write(statement, depths)
