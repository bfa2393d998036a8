"""An estimate of the cycles of an unrolled window, to choose between tilings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from birc.compiler.ir.plan import OWN_DIMENSIONS, Access, Dimension, Index, Kernel, Statement
from birc.compiler.ir.plan_access import accesses, dims_taken
from birc.compiler.passes.contraction_cost import Memories
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.machine import Machine
from birc.runtime.timing.traffic import touched_bytes

SECONDARY_WEIGHT = 0.15
"""What the limits other than the largest count: overlap is never perfect."""


REDUCTION_PASSES = 2
"""A reduction across lanes passes the ALU twice."""


@dataclass(frozen=True, slots=True)
class TileWork:
    """What one tile takes: cycles of the ALU, of the ports inwards and outwards, loads and their latencies together."""

    alu: int
    loading: float
    storing: float
    loads: int
    latency: int

    def cycles(self, programs: int, slots: int) -> float:
        """Cycles a tile when so many vector programs work, each with at most `slots` loads in flight."""
        # The loads of one program, a few at a time, and what follows the last of them.
        serial = (self.latency + self.loading) / min(slots, self.loads) + (self.latency + self.alu) / self.loads
        limits = sorted((programs * self.alu, programs * self.loading, programs * self.storing, serial))
        return (limits[-1] + SECONDARY_WEIGHT * sum(limits[:-1])) / programs


@dataclass(frozen=True)
class WindowWork:
    """An unrolled kernel on a machine."""

    kernel: Kernel
    machine: Machine
    memories: Memories

    @cached_property
    def bound(self) -> Mapping[str, int]:
        """The extents that tiles must have: whole reduced dimensions, and one output where their windows move."""
        reduced = {name for phase in self.kernel.phases for s in phase.statements for name in s.dims}
        moving = {
            name
            for access in accesses(self.kernel)
            for index in access.index
            if reduced & dict(index.terms).keys()
            for name, _ in index.terms
        }
        return {name: self.kernel.dimension(name).extent if name in reduced else 1 for name in sorted(moving)}

    @cached_property
    def dims(self) -> tuple[Dimension, ...]:
        """The dimensions that are cut into tiles."""
        return tuple(d for d in self.kernel.par_dims if d.name not in OWN_DIMENSIONS)

    def of_tile(self, tile: Mapping[str, int]) -> TileWork:
        """What a tile of these extents takes."""
        machine = self.machine
        loading = storing = 0.0
        loads = latency = 0
        for access, is_store, count in self._accesses:
            is_local = self.memories.is_local(access)
            rate = machine.tb_to_gib_bytes_per_cycle if is_local else machine.l2_to_gib_bytes_per_cycle
            cycles = count * self._moved_bytes(access, tile) / rate
            if is_store and not is_local:
                storing += cycles
            else:  # the tensor buffer has one port for both directions
                loading += cycles
            if not is_store:
                loads += count
                latency += count * (machine.tb_latency_cycles if is_local else machine.l2_remote_latency_cycles)
        return TileWork(self._alu_cycles(tile), loading, storing, max(1, loads), latency)

    def _alu_cycles(self, tile: Mapping[str, int]) -> int:
        """Cycles of the ALU: a reduction takes two of what an operation on its input does."""
        cycles = 0
        for (dims, passes), count in self._operations.items():
            elements = math.prod(extent for name, extent in tile.items() if name in dims)
            cycles += passes * count * -(-elements // self.machine.vector_lanes_per_spc)
        return cycles

    @cached_property
    def once(self) -> tuple[Statement, ...]:
        """The loads that a program makes once for all of its tiles."""
        return self.kernel.phases[0].statements if len(self.kernel.phases) > 1 else ()

    @cached_property
    def fixed(self) -> tuple[bool, ...]:
        """For each of `dims` whether what a program loads once moves along it."""
        moving = {name for s in self.once for i in (s.access.index if s.access else ()) for name, _ in i.terms}
        return tuple(d.name in moving for d in self.dims)

    @property
    def begin_cycles(self) -> float:
        """Cycles until these loads have arrived."""
        return len(self.once) / self.machine.outstanding_loads_per_warp * self.machine.l2_remote_latency_cycles

    @cached_property
    def _operations(self) -> Mapping[tuple[frozenset[str], int], int]:
        """How many operations there are on so many dimensions, and the passes of the ALU that each takes."""
        taken = dims_taken(self.kernel)
        return Counter(
            (taken[id(s)], REDUCTION_PASSES if s.op.startswith("vred") else 1)
            for s in self.kernel.phases[-1].statements
            if BY_MNEMONIC[s.op].pipe in ("alu", "cross")
        )

    @cached_property
    def _accesses(self) -> tuple[tuple[Access, bool, int], ...]:
        """An access of each kind, whether it stores, and how many there are of its kind."""
        counts = Counter(
            (s.access.view, tuple(i.terms for i in s.access.index), s.op == "vst")
            for s in self.kernel.phases[-1].statements
            if s.access is not None
        )
        return tuple(
            (Access(view, tuple(Index(terms) for terms in index)), is_store, count)
            for (view, index, is_store), count in counts.items()
        )

    def _moved_bytes(self, access: Access, tile: Mapping[str, int]) -> int:
        element_bytes = self.memories.element_bytes(access)
        counts, pitches = [], []
        for index, dim, stride in zip(access.index, access.view.dims, access.view.strides, strict=True):
            extent, step = 1, 1
            for name, factor in index.terms:
                if tile.get(name, 1) > 1:
                    extent, step = tile[name], factor
            counts.append(min(extent, dim))
            pitches.append(step * stride * element_bytes)
        return touched_bytes(counts, pitches, element_bytes, self.machine.granule_bytes)
