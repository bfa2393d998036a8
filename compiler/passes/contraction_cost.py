"""An estimate of the cycles of a blocked contraction, to choose between tilings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from birc.compiler.ir.plan import BLOCK, Access, Contraction, Dimension, Kernel, Tiling
from birc.compiler.ir.plan_access import dims_taken
from birc.compiler.ir.plan_patch import loaded_pixels, patch_of, slot_bytes
from birc.compiler.ir.plan_spread import spreads
from birc.compiler.ir.plan_winding import winds_through_depth
from birc.compiler.ir.row_overlap import overlapped_dimension
from birc.compiler.ir.tile_order import BY_COLUMNS, LAST_ROWS, OVERLAPPING, WINDING
from birc.runtime.dtypes import dtype
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.machine import Machine
from birc.runtime.timing.traffic import touched_bytes

SECONDARY_WEIGHT = 0.05
"""What the limits other than the largest count: overlap is never perfect."""

SINGLE_BUFFER_EXPOSED = 0.4
"""Share of the loads of a block without a second buffer that the T-core waits for: slots become free one by one."""

BY_COLUMNS_EXPOSED = 0.25
"""The same when a block ends column by column."""


@dataclass(frozen=True, slots=True)
class Memories:
    """Where buffers lie as far as a tiling cares: their element types, and which lie in the SPC's tensor buffer.

    Those in `far` lie in HBM when a kernel of the vector cores reads them; `constants` are there before any kernel.
    """

    elements: Mapping[str, str]
    local: frozenset[str]
    far: frozenset[str] = frozenset()
    constants: frozenset[str] = frozenset()

    def element_bytes(self, access: Access) -> int:
        """Bytes of one element of an operand."""
        return dtype(self.elements[access.view.buffer]).bits // 8

    def is_local(self, access: Access) -> bool:
        """Whether an operand lies in the tensor buffer."""
        return access.view.buffer in self.local

    def comes_ahead(self, contraction: Contraction) -> bool:
        """Whether the b of a product is loaded while the kernel waits for the SPCs that make its a."""
        is_awaited = any(
            not self.is_local(panel) and panel.view.buffer not in self.constants for panel in contraction.panels
        )
        return is_awaited and contraction.b.view.buffer in self.constants

    def ahead_cycles(self, contraction: Contraction, machine: Machine) -> int:
        """Cycles before a kernel's start in which the b of its product is loaded, at least.

        The T-core is through with the kernel before, its last stores are on their way, and then the SPCs wait for each
        other.
        """
        if not self.comes_ahead(contraction):
            return 0
        return max(0, machine.l2_remote_latency_cycles + machine.spcs_meet_cycles - machine.spc_barrier_cycles)


@dataclass(frozen=True)
class Shape:
    """A contraction cut into tiles: what does not depend on blocking.

    `is_cut`: its innermost depth was cut in two, of which one part stays in the input buffers. With `taps` it takes
    windows of patches.
    """

    kernel: Kernel
    contraction: Contraction
    machine: Machine
    memories: Memories
    tile: dict[str, int]
    is_cut: bool = False
    taps: tuple[str, ...] = ()

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Depth steps per red dimension."""
        return tuple(self.count(d) for d in self.kernel.red_dims)

    @cached_property
    def windows(self) -> int:
        """Operations that take their rows from one a tile."""
        return math.prod(self.kernel.dimension(name).extent for name in self.taps)

    @cached_property
    def slot_bytes(self) -> tuple[int, int]:
        """Bytes of an a tile and of a b tile in their input buffers."""
        tiling = Tiling(tuple(self.tile.items()), taps=self.taps)
        return slot_bytes(self.kernel, self.contraction, tiling, self.machine)

    @cached_property
    def padded_depth(self) -> int:
        """Depth of one operation, rounded up to what the T-core takes."""
        unit = self.machine.format(self.contraction.format).k_unit
        depth = math.prod(self.tile[d.name] for d in self.kernel.red_dims)
        return -(-depth // unit) * unit

    @cached_property
    def step_cycles(self) -> float:
        """T-core cycles of one operation."""
        rate = self.machine.format(self.contraction.format).macs_per_cycle_per_spc
        return 64 * 64 * self.padded_depth / rate

    @cached_property
    def load_cycles(self) -> tuple[float, float]:
        """Cycles of the port to load one a tile and one b tile."""
        a, b = self._load_panels(), self._load(self.contraction.b)
        patch = patch_of(self.kernel, self.taps) if self.taps else None
        if patch is not None:
            pixels = math.prod(side.window(self.tile) for side in patch.sides)
            a *= loaded_pixels(patch, self.kernel, self.contraction, self.tile) / pixels
        return a, b

    def _load_panels(self) -> float:
        """The same for an a tile, on average over the panels."""
        contraction = self.contraction
        if not contraction.further:
            return self._load(contraction.a)
        loads = [(panel.view.dims[-1], self._load(panel)) for panel in contraction.panels]
        return sum(depth * cycles for depth, cycles in loads) / sum(depth for depth, _ in loads)

    def _load(self, access: Access) -> float:
        """Cycles of the port to load one tile that lies inside its tensor."""
        machine, element_bytes = self.machine, self.memories.element_bytes(access)
        counts = [math.prod(self.tile[name] for name, _ in index.terms) for index in access.index]
        pitches = [stride * element_bytes for stride in access.view.strides]
        num_bytes = touched_bytes(counts, pitches, element_bytes, machine.granule_bytes)
        local = self.memories.is_local(access)
        return num_bytes / (machine.tb_to_gib_bytes_per_cycle if local else machine.noc_bytes_per_cycle)

    @cached_property
    def latencies(self) -> tuple[int, int]:
        """Cycles from the start of a load to the use of its tile, for a and b."""
        machine = self.machine
        far, near = machine.l2_remote_latency_cycles, machine.tb_latency_cycles
        a = near if all(map(self.memories.is_local, self.contraction.panels)) else far
        b = near if self.memories.is_local(self.contraction.b) else far
        return a + 2 * machine.semaphore_cycles, b + 2 * machine.semaphore_cycles

    @cached_property
    def epilogue(self) -> tuple[float, float, float]:
        """Vector, load and store cycles of one output tile."""
        machine = self.machine
        arithmetic = special = loads = stores = 0.0
        taken = dims_taken(self.kernel)
        for phase in self.kernel.phases:
            share = 1.0 if phase.loops or len(self.kernel.phases) == 1 else 1 / self.count(self.column)
            for s in phase.statements:
                pipe, elements = BY_MNEMONIC[s.op].pipe, math.prod(self.tile[name] for name in taken[id(s)])
                arithmetic += share * elements * {"alu": 1, "cross": 2}.get(pipe, 0)
                special += share * elements * (pipe == "sfu")
                if s.access is None or (s.op == "vld" and sum(1 for i in s.access.index if i.terms) < 2):
                    continue
                local = self.memories.is_local(s.access)
                rate = machine.tb_to_gib_bytes_per_cycle if local else machine.noc_bytes_per_cycle
                cycles = elements * self.memories.element_bytes(s.access) / rate
                if s.op == "vst":
                    stores += cycles
                else:
                    loads += cycles
        return max(arithmetic / machine.vector_lanes_per_spc, special / machine.sfu_lanes_per_spc), loads, stores

    @property
    def column(self) -> Dimension:
        """The dimension of the columns."""
        return self.kernel.dimension(self.contraction.column)

    @cached_property
    def blocked(self) -> Dimension | None:
        """The row dimension whose tiles form blocks."""
        return self.kernel.blocked_row(self.tile)

    def count(self, dimension: Dimension) -> int:
        """Tiles along a dimension."""
        return -(-dimension.extent // self.tile[dimension.name])

    def share(self, dimension: Dimension | None, spcs: Mapping[str, int]) -> int:
        """Tiles of one SPC along a dimension."""
        return 1 if dimension is None else -(-self.count(dimension) // spcs.get(dimension.name, 1))


def estimate(shape: Shape, tiling: Tiling) -> float:
    """Cycles of the busiest SPC: the largest of T-core, port, store and vector time, plus the first loads
    and the last epilogue."""
    machine = shape.machine
    spcs = dict(tiling.spcs)
    row_share = -(-shape.share(shape.blocked, spcs) // tiling.rows) * tiling.rows
    column_share = -(-shape.share(shape.column, spcs) // tiling.columns) * tiling.columns
    others = math.prod(shape.share(d, spcs) for d in shape.kernel.par_dims if d not in (shape.blocked, shape.column))
    tiles = others * row_share * column_share
    steps = math.prod(shape.steps)
    chunks = math.prod(shape.steps[: len(shape.steps) - tiling.resident])
    by_block = tiling.turns == BLOCK
    partial = chunks > 1 and tiling.rows * tiling.columns > 1
    resident = steps / max(1, chunks)
    flight = machine.outstanding_loads_per_tcore_queue
    (load_a, load_b), (latency_a, latency_b) = shape.load_cycles, shape.latencies
    a_resident = resident / shape.windows
    a_loads = tiles * steps / shape.windows / (column_share if tiling.hoist == "a" else tiling.columns)
    b_loads = tiles * steps / (tiles / column_share if tiling.hoist == "b" else tiling.rows)
    if winds := winds_through_depth(shape.kernel, tiling):  # Each row loads what it finds no slots for.
        b_loads = tiling.b_slots + tiles * (steps - tiling.b_slots)
    if tiling.order == WINDING:  # A pass begins with rows that are there.
        a_loads -= LAST_ROWS * steps / shape.windows * (column_share // tiling.columns - 1)
    a_time = max(a_loads * load_a, a_loads * (latency_a + load_a) / min(flight, tiling.a_slots))
    b_time = max(b_loads * load_b, b_loads * (latency_b + load_b) / min(flight, tiling.b_slots))
    # A block that is not double-buffered is loaded while the T-core waits.
    a_tiles = a_resident * tiling.rows
    if tiling.stream:
        a_tiles = 1 if tiling.columns == 1 else a_resident
    exposed = SINGLE_BUFFER_EXPOSED * _shortage(tiling.a_slots, a_tiles) * a_time
    exposed += _exposed_of_b(tiling, tiling.columns * resident) * b_time
    drains = tiles * (chunks if partial else 1)
    drain = machine.accumulator_drain_cycles + 2 * machine.semaphore_cycles + machine.tcore_fill_cycles
    vector, extra_loads, stores = shape.epilogue
    added = drains * machine.vector_tile_elements / machine.vector_lanes_per_spc if partial else 0.0
    tcore = tiles * steps * shape.step_cycles + drains * drain
    early = min(shape.memories.ahead_cycles(shape.contraction, machine), min(tiling.b_slots, b_loads) * load_b)
    b_time = max(0.0, b_time - early)
    ports = _ports(shape, a_loads * load_a, b_loads * load_b - early, tiles * extra_loads)
    turns = tiles * (latency_b + vector + extra_loads) / tiling.programs
    if tiling.order == OVERLAPPING:  # Only the first of its rows is multiplied without another one's epilogue.
        along = spreads(shape.kernel, tiling)[overlapped_dimension(shape.kernel, tiling)].share
        exposed += tiles / along * (vector + stores)
        turns = tiles * (drain + stores)
    elif by_block:
        turns = tiles * (chunks * drain + vector + extra_loads + stores) / tiling.programs
    limits = (tcore + exposed, *ports, tiles * stores, tiles * vector + added, turns, a_time, b_time)
    first_b = load_b - shape.step_cycles if winds else load_b  # The first row is multiplied meanwhile.
    first = latency_b + load_a * a_resident + max(0.0, tiling.columns * first_b * resident - early)
    last = vector + extra_loads + stores
    if by_block:  # Its loads begin when all of its sums are there.
        last = tiling.rows * tiling.columns * last + latency_b
    return max(limits) + SECONDARY_WEIGHT * sum(limits) + first + last


def _ports(shape: Shape, a_cycles: float, b_cycles: float, extra_cycles: float) -> tuple[float, float]:
    """Cycles of the port to the NoC, and of the tensor buffer's or the one of a alone."""
    local = all(map(shape.memories.is_local, shape.contraction.panels))
    through_noc = extra_cycles + (0.0 if local else a_cycles)
    if shape.memories.is_local(shape.contraction.b):
        return through_noc, b_cycles + (a_cycles if local else 0.0)
    return b_cycles + through_noc, a_cycles


def _exposed_of_b(tiling: Tiling, tiles: float) -> float:
    """The share of the loads of b that the T-core waits for, of blocks of so many tiles."""
    if tiling.order == WINDING or tiling.b_slots < tiles:  # Tiles of columns pass: each makes room for another one.
        return 0.0
    share = BY_COLUMNS_EXPOSED if tiling.order == BY_COLUMNS else SINGLE_BUFFER_EXPOSED
    return share * _shortage(tiling.b_slots, tiles)


def _shortage(slots: int, tiles: float) -> float:
    """The share of a block for whose successor there is no slot while the block is in use."""
    return max(0.0, 2 - slots / tiles)
