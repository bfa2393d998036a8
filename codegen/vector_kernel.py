"""Kernels without a contraction: tiles are spread over SPCs and vector programs, phases run inside."""

from __future__ import annotations

from contextlib import ExitStack

from birc.codegen.loads_ahead import write_ahead
from birc.codegen.nest import NestBuilder
from birc.codegen.slots import Slots
from birc.codegen.statements import StatementWriter
from birc.compiler.ir.plan import Kernel, Phase, Tiling
from birc.compiler.ir.plan_spread import spreads
from birc.compiler.ir.registers import vector_registers
from birc.runtime.program import Kernel as KernelCode


def emit_vector_kernel(kernel: Kernel, tiling: Tiling) -> tuple[KernelCode, Slots]:
    """The code of a vector kernel and its slots."""
    tile = kernel.tile_extents(tiling.tile)
    nest, slots = NestBuilder(), Slots()
    looped = {name for phase in kernel.phases for name in phase.loops}
    outer = [d for d in kernel.par_dims if d.name not in looped]
    spread = spreads(kernel, tiling)
    counts = {d.name: spread[d.name].share for d in outer}
    writer = StatementWriter(kernel, nest, slots, tile, vector_registers(kernel.phases, tiling.once, tiling.ahead))
    turns = tiling.programs * tiling.rows
    divided = _program_dimension(kernel, turns, counts) if turns > 1 else ""
    writer.stride = tiling.rows * writer.registers.count
    with ExitStack() as loops:
        for d in outer:
            loops.enter_context(nest.loop(spread[d.name].spcs, spread[d.name].points, d.name, level="spc"))
        if tiling.ahead:
            divided = next(name for name, count in counts.items() if count > 1)
            writer.program_depth = _enter_programs(loops, nest, divided, tiling, tile)
            tiles, step = counts[divided] // tiling.programs, tiling.programs * tile[divided]
            write_ahead(writer, kernel.phases[0].statements, divided, tiles, step)
        else:
            _write_tiles(loops, kernel, tiling, writer, counts, divided)
    return KernelCode(kernel.name, tuple(nest.nests)), slots


def _write_tiles(
    loops: ExitStack, kernel: Kernel, tiling: Tiling, writer: StatementWriter, counts: dict[str, int], divided: str
) -> None:
    """The tiles of an SPC one after the other, those of a dimension by the vector programs in turn."""
    nest, tile, turns = writer.nest, writer.tile, tiling.programs * tiling.rows
    if tiling.once:
        if divided:
            writer.program_depth = _enter_programs(loops, nest, divided, tiling, tile)
        _write_phase(kernel, kernel.phases[0], writer, tile)
    for name, count in counts.items():
        if name == divided:
            loops.enter_context(nest.loop(count // turns, turns * tile[name], name))
            if not tiling.once:
                writer.program_depth = _enter_programs(loops, nest, divided, tiling, tile)
        else:
            loops.enter_context(nest.loop(count, tile[name], name))
    for phase in kernel.phases[int(tiling.once) :]:
        if tiling.rows > 1:
            _write_together(phase, writer, tiling, divided)
        else:
            _write_phase(kernel, phase, writer, tile)


def _enter_programs(
    loops: ExitStack, nest: NestBuilder, divided: str, tiling: Tiling, tile: dict[str, int]
) -> int | None:
    """The depth of the loop over the vector programs, which take the tiles of a dimension in turn."""
    return loops.enter_context(nest.loop(tiling.programs, tile[divided], divided, level="program"))


def _program_dimension(kernel: Kernel, turns: int, counts: dict[str, int]) -> str:
    """The innermost dimension whose tiles come out even in so many turns."""
    shared = (d.name for d in reversed(kernel.par_dims) if d.name in counts and counts[d.name] % turns == 0)
    return next(shared, "")


def _write_together(phase: Phase, writer: StatementWriter, tiling: Tiling, divided: str) -> None:
    """Each statement for several tiles, so that their loads are under way together."""
    for statement in phase.statements:
        for number in range(tiling.rows):
            writer.first = number * writer.registers.count
            with writer.nest.moved(divided, number * tiling.programs * writer.tile[divided]):
                writer.write(statement)
    writer.first = 0


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
