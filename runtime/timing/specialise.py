"""From a kernel with bound descriptors to what each SPC of a die does in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadPackageError
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.machine import Machine
from birc.runtime.program import (
    Affine,
    Box,
    Descriptor,
    Instruction,
    Kernel,
    Loop,
    Operand,
    Register,
    Sync,
)
from birc.runtime.timing.routes import RoutePlan
from birc.runtime.timing.steps import (
    ALU,
    COMPUTE,
    CROSS,
    DRAIN,
    LOAD,
    LOAD_A,
    LOAD_B,
    MULTIPLY,
    SFU,
    STORE,
    TILE_LOAD,
    VECTOR,
    AccessSpec,
    AxisSpec,
    LoopSpec,
    SpcKernel,
    StepSpec,
    SyncSpec,
    affine_range,
)
from birc.runtime.timing.traffic import count_in_bounds

_PIPES = {"store": STORE, "mma": MULTIPLY, "alu": ALU, "sfu": SFU, "cross": CROSS, "drain": DRAIN}
_QUEUES = {"load_a": LOAD_A, "load_b": LOAD_B, "compute": COMPUTE, "vector": VECTOR}

Values = dict[int, int]


def spc_loops(kernel: Kernel) -> tuple[Loop, ...]:
    """The loops of level "spc" with which every nest of the kernel begins."""
    loops: list[Loop] = []
    item: Loop | Instruction | None = kernel.nests[0] if kernel.nests else None
    while isinstance(item, Loop) and item.level == "spc":
        loops.append(item)
        item = item.body[0] if len(item.body) == 1 else None
    return tuple(loops)


def spc_variables(kernel: Kernel, spc: int) -> tuple[int, ...] | None:
    """The variables of the SPC loops on SPC `spc` of a die, or None when it has no iteration."""
    loops = spc_loops(kernel)
    if spc >= math.prod(loop.extent for loop in loops):
        return None
    values: list[int] = []
    for position, loop in enumerate(loops):
        value, spc = divmod(spc, math.prod(below.extent for below in loops[position + 1 :]))
        if value >= loop.trip_count(tuple(values)):
            return None
        values.append(value)
    return tuple(values)


def substitute(affine: Affine, values: Values) -> Affine:
    """`affine` with the variables at these depths replaced by their values."""
    if not any(depth in values for depth, _ in affine.terms):
        return affine
    constant = affine.constant + sum(c * values[d] for d, c in affine.terms if d in values)
    return Affine(constant, tuple(term for term in affine.terms if term[0] not in values))


def specialise(
    kernel: Kernel, spc: int, bindings: Mapping[int, Descriptor], machine: Machine, plan: RoutePlan
) -> SpcKernel:
    """The kernel as SPC `spc` of a die executes it (one of `plan.active`).

    `bindings` maps slots to descriptors. Raises `BadPackageError` for an unbound slot.
    """
    builder = _Builder(kernel, spc, plan.active[spc], bindings, machine, plan)
    nests = tuple(builder.build(nest, 0, {}) for nest in kernel.nests)
    return SpcKernel(tuple(item for nest in nests for item in nest), kernel.semaphores)


@dataclass(slots=True)
class _Builder:
    """Walks the loop tree once for one SPC."""

    kernel: Kernel
    spc: int
    variables: tuple[int, ...]
    bindings: Mapping[int, Descriptor]
    machine: Machine
    plan: RoutePlan
    instructions: int = 0
    loops: int = 0

    def build(self, item: Loop | Instruction, depth: int, trips: dict[int, int]) -> tuple[LoopSpec | StepSpec, ...]:
        """The specialised item; a loop of level "spc" is replaced by its body."""
        if isinstance(item, Instruction):
            self.instructions += 1
            return (self._step(item, self.instructions - 1, trips),)
        if item.level == "spc":
            children = (self.build(child, depth + 1, trips) for child in item.body)
            return tuple(spec for child in children for spec in child)
        number = self.loops
        self.loops += 1
        inner = {**trips, depth: item.extent}
        body = tuple(spec for child in item.body for spec in self.build(child, depth + 1, inner))
        limit = None if item.limit is None else self._limit(item, trips)
        return (LoopSpec(number, depth, item.extent, limit, item.level == "program", body),)

    def _limit(self, loop: Loop, trips: dict[int, int]) -> Affine | None:
        """The limit with this SPC's variables; None where it never shortens the loop."""
        limit = substitute(loop.limit or Affine(), self._values)
        low, _ = affine_range(limit, trips)
        return None if low >= loop.extent else limit

    @property
    def _values(self) -> Values:
        return dict(enumerate(self.variables))

    def _step(self, instruction: Instruction, index: int, trips: dict[int, int]) -> StepSpec:
        row = BY_MNEMONIC[instruction.mnemonic]
        operands = {field.name: value for field, value in zip(row.fields, instruction.operands, strict=True)}
        queue = _QUEUES[row.engine] + (instruction.program if row.engine == "vector" else 0)
        pipe = _PIPES.get(row.pipe, LOAD if row.engine == "vector" else TILE_LOAD)
        details: dict[str, Any] = {}
        box = next((value for value in instruction.operands if isinstance(value, Box)), None)
        if box is not None:
            details["access"] = self._access(instruction, box, pipe, trips)
        if pipe == MULTIPLY:
            details.update(self._multiply(operands))
        else:
            details["reads"] = tuple(self._registers(operands[name] for name in row.reads if name != "acc"))
            details["writes"] = next(iter(self._registers([operands[name] for name in row.writes])), None)
        if "shape" in operands:
            details["shape"] = operands["shape"]
        if "axes" in operands:
            details["axes"] = mask_depths(operands["axes"])
        if "first" in operands and pipe != MULTIPLY:
            details["first"] = self._first(operands["first"])
        return StepSpec(
            index,
            instruction.mnemonic,
            queue,
            pipe,
            waits=self._syncs(instruction.waits),
            posts=self._syncs(instruction.posts),
            **details,
        )

    def _registers(self, operands: Any) -> list[Affine]:
        return [substitute(value.number, self._values) for value in operands if isinstance(value, Register)]

    def _first(self, mask: Operand) -> tuple[int, ...] | None:
        """The loops of a `first` mask that are not of level "spc"; None when it never holds on this SPC."""
        depths = mask_depths(mask)
        if any(self._values.get(depth, 0) for depth in depths):
            return None
        return tuple(depth for depth in depths if depth not in self._values)

    def _multiply(self, operands: Mapping[str, Any]) -> dict[str, Any]:
        """Cost of a tmma or tconv: the array takes a whole tile, whatever part of it m and n use."""
        name = operands["format"]
        rows = operands["m"] if "m" in operands else operands["window"].pixels
        form = self.machine.format(name)
        depth = -(-operands["k"] // form.k_unit) * form.k_unit
        tile_macs = self.machine.tcore_rows * self.machine.tcore_cols * depth
        return {
            "cycles": -(-tile_macs // form.macs_per_cycle_per_spc),
            "macs": rows * operands["n"] * operands["k"],
            "format": name,
        }

    def _syncs(self, syncs: tuple[Sync, ...]) -> tuple[SyncSpec, ...]:
        """The waits or posts that can happen on this SPC."""
        values = self._values
        heads = spc_loops(self.kernel)
        found = []
        for sync in syncs:
            first, last = mask_depths(sync.first), mask_depths(sync.last)
            trips = {depth: heads[depth].trip_count(self.variables[:depth]) for depth in values}
            never = any(values.get(depth, 0) for depth in first)
            never |= any(values[depth] != trips[depth] - 1 for depth in last if depth in values)
            if never:
                continue
            inner_first = tuple(depth for depth in first if depth not in values)
            inner_last = tuple(depth for depth in last if depth not in values)
            found.append(SyncSpec(substitute(sync.semaphore, values), inner_first, inner_last))
        return tuple(found)

    def _access(self, instruction: Instruction, box: Box, pipe: int, trips: dict[int, int]) -> AccessSpec:
        descriptor = self.bindings.get(box.slot)
        if descriptor is None:
            raise BadPackageError(
                f"{instruction.mnemonic} uses slot {box.slot}, which is not bound",
                where=f"kernel {self.kernel.name}",
            )
        indexed = instruction.operands[3] if instruction.mnemonic == "vldx" else None
        axes = tuple(self._axis(box, descriptor, axis, axis == indexed, trips) for axis in range(len(box.axes)))
        element_bytes = dtype(descriptor.dtype).bits // 8
        steps = zip(descriptor.strides, box.axes, strict=True)
        pitches = tuple(stride * axis.step * element_bytes for stride, axis in steps)
        shared = pipe == TILE_LOAD
        route = self.plan.route(box, descriptor, self.spc, store=pipe == STORE, tile_load=shared)
        return AccessSpec(route, axes, pitches, element_bytes, box.shape, indexed is not None)

    def _axis(self, box: Box, descriptor: Descriptor, axis: int, indexed: bool, trips: dict[int, int]) -> AxisSpec:
        """An axis with its bounds, or its fixed count where the loops do not matter."""
        entry = box.axes[axis]
        if indexed:  # the index register decides the coordinate; its rows are counted by the index's shape
            return AxisSpec(1)
        low = descriptor.lower[axis]
        high = low + descriptor.dims[axis]
        start = substitute(entry.start, self._values)
        smallest, largest = affine_range(start, trips)
        reach = (entry.extent - 1) * entry.step
        if smallest + min(0, reach) >= low and largest + max(0, reach) < high:
            return AxisSpec(entry.extent)
        if not start.terms:
            return AxisSpec(count_in_bounds(start.constant, entry.step, entry.extent, low, high))
        return AxisSpec(None, start, entry.step, entry.extent, low, high)


def mask_depths(mask: Any) -> tuple[int, ...]:
    """The set bits of a mask."""
    return tuple(bit for bit in range(int(mask).bit_length()) if mask >> bit & 1)
