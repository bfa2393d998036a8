"""Tile extents, blocking and SPC mapping of contraction kernels, chosen by an estimate of their cycles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from birc.compiler.ir.plan import Contraction, Dimension, Kernel, Phase, Tiling
from birc.compiler.ir.registers import assign
from birc.compiler.passes.tile_vector import factorisations, shared_programs
from birc.runtime.dtypes import dtype
from birc.runtime.errors import DoesNotFitError
from birc.runtime.machine import Machine

BLOCKS = tuple((rows, columns) for rows in (1, 2, 3, 4, 6) for columns in (1, 2, 3, 4, 6) if rows * columns <= 16)

SECONDARY_WEIGHT = 0.05
"""What the limits other than the largest count: overlap is never perfect."""

SINGLE_BUFFER_EXPOSED = 0.4
"""Share of the loads of a block without a second buffer that the T-core waits for: slots become free one by one."""


@dataclass(frozen=True)
class Shape:
    """A contraction cut into tiles: what does not depend on blocking."""

    kernel: Kernel
    contraction: Contraction
    machine: Machine
    element_bytes: int
    tile: dict[str, int]

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Depth steps per red dimension."""
        return tuple(-(-d.extent // self.tile[d.name]) for d in self.kernel.red_dims)

    @cached_property
    def slot_bytes(self) -> int:
        """Bytes of one operand tile in an input buffer."""
        return 64 * self.padded_depth * self.format_bytes

    @cached_property
    def padded_depth(self) -> int:
        unit = self.machine.format(self.contraction.format).k_unit
        depth = math.prod(self.tile[d.name] for d in self.kernel.red_dims)
        return -(-depth // unit) * unit

    @cached_property
    def format_bytes(self) -> int:
        return self.machine.format(self.contraction.format).bytes

    @cached_property
    def step_cycles(self) -> float:
        """T-core cycles of one operation."""
        rate = self.machine.format(self.contraction.format).macs_per_cycle_per_spc
        return 64 * 64 * self.padded_depth / rate

    @cached_property
    def load_cycles(self) -> tuple[float, float]:
        """Cycles of the SPC's port to load one a tile and one b tile."""
        depth = math.prod(self.tile[d.name] for d in self.kernel.red_dims)
        rows = math.prod(self.tile[name] for name in self.contraction.row_dims)
        columns = self.tile[self.contraction.column_dims[0]]
        return self._load(rows, depth), self._load(depth, columns)

    def _load(self, runs: int, run: int) -> float:
        granule = self.machine.granule_bytes
        run_bytes = -(-run * self.element_bytes // granule) * granule
        return runs * run_bytes / self.machine.noc_bytes_per_cycle

    @cached_property
    def epilogue(self) -> tuple[float, float, float]:
        """Vector, load and store cycles of one output tile."""
        elements = math.prod(self.tile[d.name] for d in self.kernel.par_dims)
        operations = sum(s.op not in ("vld", "vst", "vacc") for s in self.kernel.phases[-1].statements)
        lanes = self.machine.vector_lanes_per_spc
        moved = elements * self.element_bytes / self.machine.noc_bytes_per_cycle
        wide = [
            s
            for s in self.kernel.phases[-1].statements
            if s.op == "vld" and s.access is not None and sum(1 for i in s.access.index if i.terms) > 1
        ]
        return operations * elements / lanes, len(wide) * moved, moved


def tile_contraction_kernel(kernel: Kernel, contraction: Contraction, machine: Machine, element: str) -> Tiling:
    """The tiling with the least estimated cycles. Raises `DoesNotFitError` when no tile fits the input buffers."""
    element_bytes = dtype(element).bits // 8
    best: tuple[float, int] | None = None
    chosen: Tiling | None = None
    for number, (shape, tiling) in enumerate(_candidates(kernel, contraction, machine, element_bytes)):
        key = (estimate(shape, tiling), number)
        if best is None or key < best:
            best, chosen = key, tiling
    if chosen is None:
        raise DoesNotFitError("no tile of the product fits the input buffers", where=kernel.name)
    return chosen


def _candidates(
    kernel: Kernel, contraction: Contraction, machine: Machine, element_bytes: int
) -> Iterator[tuple[Shape, Tiling]]:
    loads_first = [s for s in kernel.phases[-1].statements if s.op == "vld"]
    others = [s for s in kernel.phases[-1].statements if s.op != "vld"]
    registers = assign((Phase((*loads_first, *others)),)).count
    for rows in _row_tiles([kernel.dimension(name) for name in contraction.row_dims], machine.tcore_rows):
        shape = Shape(kernel, contraction, machine, element_bytes, _tile(kernel, contraction, machine, rows))
        dims = [d for d in kernel.par_dims]
        counts = [-(-d.extent // shape.tile[d.name]) for d in dims]
        for split in _useful_splits(counts, machine.spcs_per_die):
            spcs = tuple((d.name, s) for d, s in zip(dims, split, strict=True) if s > 1)
            for tiling in _blockings(shape, spcs, registers, machine):
                yield shape, tiling


def _useful_splits(counts: list[int], spcs: int) -> list[tuple[int, ...]]:
    """Splits that no other beats in every dimension's share."""
    best: dict[tuple[int, ...], tuple[int, ...]] = {}
    for split in factorisations(counts, spcs):
        shares = tuple(-(-count // s) for count, s in zip(counts, split, strict=True))
        if shares not in best or math.prod(split) < math.prod(best[shares]):
            best[shares] = split
    least = min(math.prod(shares) for shares in best)
    return [split for shares, split in best.items() if math.prod(shares) <= 1.25 * least]


def _tile(kernel: Kernel, contraction: Contraction, machine: Machine, rows: dict[str, int]) -> dict[str, int]:
    format = machine.format(contraction.format)
    tile = {d.name: 1 for d in kernel.space} | rows
    column = kernel.dimension(contraction.column_dims[0])
    tile[column.name] = _even(column.extent, machine.tcore_cols)
    deepest = kernel.red_dims[-1]
    buffer = min(machine.gib_a_bytes, machine.gib_b_bytes)
    fitting = buffer // 2 // (64 * format.bytes) // format.k_unit * format.k_unit
    most = min(format.k_max, max(fitting, format.k_unit))
    even = _even(deepest.extent, most)
    tile[deepest.name] = min(deepest.extent, -(-even // format.k_unit) * format.k_unit)
    return tile


def _row_tiles(dims: list[Dimension], most: int) -> list[dict[str, int]]:
    """Tile extents of the row dimensions: the few combinations of at most `most` rows that waste least."""
    if not dims:
        return [{}]
    choices = [sorted({_even(d.extent, t) for t in range(1, most + 1)}) for d in dims]
    scored = []
    for extents in itertools.product(*choices):
        if math.prod(extents) > most:
            continue
        tiles = math.prod(-(-d.extent // t) for d, t in zip(dims, extents, strict=True))
        scored.append((tiles, tuple(-t for t in reversed(extents)), extents))
    scored.sort()
    return [dict(zip((d.name for d in dims), extents, strict=True)) for _, _, extents in scored[:2]]


def _blockings(
    shape: Shape, spcs: tuple[tuple[str, int], ...], registers: int, machine: Machine
) -> Iterator[Tiling]:
    """Every way to block that fits input buffers and registers."""
    tile = tuple(shape.tile.items())
    depth = len(shape.steps)
    row_share, column_share = _shares(shape, dict(spcs))
    for rows, columns in BLOCKS:
        if rows > row_share or columns > column_share:
            continue
        programs = _programs(shape, dict(spcs), rows, columns, registers)
        for resident in range(depth + 1):
            chunks = math.prod(shape.steps[: depth - resident])
            partial = rows * columns if chunks > 1 and rows * columns > 1 else 0
            if programs * registers + partial > machine.vector_registers:
                continue
            steps = math.prod(shape.steps[depth - resident :])
            for hoist in ("", "a", "b") if chunks == 1 else ("",):
                a_buffers = _buffers(shape, rows * steps, machine.gib_a_bytes)
                b_buffers = _buffers(shape, columns * steps, machine.gib_b_bytes)
                if a_buffers and b_buffers:
                    yield Tiling(tile, spcs, rows, columns, resident, hoist, a_buffers, b_buffers, programs)


def _buffers(shape: Shape, slots: int, gib_bytes: int) -> int:
    """Copies of a block of `slots` tiles: two, or as many as keep the load queue busy; 0 when none fits."""
    fitting = gib_bytes // (slots * shape.slot_bytes)
    return min(fitting, max(2, -(-shape.machine.outstanding_loads_per_tcore_queue // slots)))


def _shares(shape: Shape, spcs: dict[str, int]) -> tuple[int, int]:
    """Tiles of one SPC along the blocked row dimension and along the columns."""
    rows = [shape.kernel.dimension(name) for name in shape.contraction.row_dims]
    blocked = next((d for d in reversed(rows) if d.extent > shape.tile[d.name]), rows[-1] if rows else None)
    column = shape.kernel.dimension(shape.contraction.column_dims[0])
    column_share = -(-_count(shape, column) // spcs.get(column.name, 1))
    return (-(-_count(shape, blocked) // spcs.get(blocked.name, 1)) if blocked else 1), column_share


def _count(shape: Shape, dimension: Dimension) -> int:
    return -(-dimension.extent // shape.tile[dimension.name])


def _programs(shape: Shape, spcs: dict[str, int], rows: int, columns: int, registers: int) -> int:
    """Vector programs that take the tiles of a block in turn, or else blocks of a single tile."""
    if rows * columns > 1:
        return columns if columns > 1 else rows
    inside = (*shape.contraction.row_dims, *shape.contraction.column_dims)
    dims = [shape.kernel.dimension(name) for name in inside]
    most = min(shape.machine.vector_programs, shape.machine.vector_registers // max(1, registers))
    return shared_programs([-(-_count(shape, d) // spcs.get(d.name, 1)) for d in dims], most)


def estimate(shape: Shape, tiling: Tiling) -> float:
    """Cycles of the busiest SPC: the largest of T-core, port, store and vector time, plus the first loads."""
    machine = shape.machine
    spcs = dict(tiling.spcs)
    row_share, column_share = _shares(shape, spcs)
    row_share = -(-row_share // tiling.rows) * tiling.rows
    column_share = -(-column_share // tiling.columns) * tiling.columns
    column = shape.contraction.column_dims[0]
    rows = [shape.kernel.dimension(name) for name in shape.contraction.row_dims]
    blocked = next((d.name for d in reversed(rows) if d.extent > shape.tile[d.name]), "")
    others = math.prod(
        -(-_count(shape, d) // spcs.get(d.name, 1))
        for d in shape.kernel.par_dims
        if d.name not in (blocked, column)
    )
    tiles = others * row_share * column_share
    steps = math.prod(shape.steps)
    chunks = math.prod(shape.steps[: len(shape.steps) - tiling.resident])
    partial = chunks > 1 and tiling.rows * tiling.columns > 1
    load_a, load_b = shape.load_cycles
    a_loads = tiles * steps / (column_share if tiling.hoist == "a" else tiling.columns)
    row_tiles = tiles / column_share
    b_loads = tiles * steps / (row_tiles if tiling.hoist == "b" else tiling.rows)
    drains = tiles * (chunks if partial else 1)
    drain = machine.accumulator_drain_cycles + 2 * machine.semaphore_cycles + machine.tcore_fill_cycles
    vector, extra_loads, stores = shape.epilogue
    drained_adds = drains * 16 if partial else 0
    tcore = tiles * steps * shape.step_cycles + drains * drain
    ingress = a_loads * load_a + b_loads * load_b + tiles * extra_loads
    latency = machine.l2_remote_latency_cycles + 2 * machine.semaphore_cycles
    turns = tiles * (latency + vector + extra_loads) / tiling.programs
    flight = machine.outstanding_loads_per_tcore_queue
    resident = steps / max(1, chunks)
    a_time = max(a_loads * load_a, a_loads * (latency + load_a) / min(flight, tiling.a_buffers * tiling.rows * resident))
    b_time = max(
        b_loads * load_b, b_loads * (latency + load_b) / min(flight, tiling.b_buffers * tiling.columns * resident)
    )
    # A block that is not double-buffered is loaded while the T-core waits.
    exposed = (a_time if tiling.a_buffers == 1 else 0.0) + (b_time if tiling.b_buffers == 1 else 0.0)
    exposed *= SINGLE_BUFFER_EXPOSED
    first = (tiling.rows * load_a + tiling.columns * load_b) * steps / max(1, chunks)
    limits = (tcore + exposed, ingress, tiles * stores, tiles * vector + drained_adds, turns, a_time, b_time)
    return max(limits) + SECONDARY_WEIGHT * sum(limits) + first


def _even(extent: int, most: int) -> int:
    """The extent of the fewest nearly equal parts of at most `most`."""
    count = -(-extent // most)
    return -(-extent // count)
