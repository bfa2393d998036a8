"""How often a tiled product loads its operands, and which inputs of a graph are better brought to the chip for that."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Set

from birc.compiler.ir.plan import Contraction, Kernel, KernelStep, Plan, Tiling
from birc.compiler.passes.lifetimes import instances
from birc.runtime.machine import Machine


def operand_loads(kernel: Kernel, contraction: Contraction, tiling: Tiling) -> tuple[int, int]:
    """How often all SPCs together load the whole of operand a, and of operand b."""
    tile = kernel.tile_extents(tiling.tile)
    spcs = dict(tiling.spcs)
    blocked = kernel.blocked_row(tile)

    def times(name: str, in_block: int, is_hoisted: bool) -> int:
        count, split = -(-kernel.dimension(name).extent // tile[name]), spcs.get(name, 1)
        return split if is_hoisted else min(count, split * math.ceil(math.ceil(count / split) / in_block))

    moved = {term for index in contraction.b.index for term, _ in index.terms}
    rows = [name for name in contraction.row_dims if name not in moved]
    in_block = {blocked.name: tiling.rows} if blocked is not None else {}
    return (
        times(contraction.column, tiling.columns, tiling.hoist == "a"),
        math.prod(times(name, in_block.get(name, 1), tiling.hoist == "b") for name in rows),
    )


def inputs_to_copy(plan: Plan, machine: Machine) -> set[str]:
    """The inputs that products load from HBM again and again, so that one copy to the chip takes less time.

    A plan of several rounds has none: a round sees another part of the input.
    """
    if plan.repeat > 1:
        return set()
    inputs = {b.name for b in plan.buffers if b.role == "input"}
    loads: defaultdict[str, int] = defaultdict(int)
    for step in plan.steps:
        if isinstance(step, KernelStep):
            for name, times in _loads(step, inputs).items():
                loads[name] += times
    rate = machine.streamed_hbm_bytes_per_cycle()
    fixed = machine.dma_start_cycles + machine.hbm_latency_cycles
    return {
        b.name
        for b in plan.buffers
        if b.name in inputs and (loads[b.name] - 1) * b.num_bytes / rate > fixed + b.num_bytes / rate
    }


def _loads(step: KernelStep, inputs: Set[str]) -> dict[str, int]:
    """How often the busiest die loads each operand in a step, of products that read inputs."""
    found: dict[str, int] = {}
    for kernel in instances(step):
        if kernel.contraction is None or kernel.tiling is None:
            continue
        contraction = kernel.contraction
        if inputs.isdisjoint(access.view.buffer for access in contraction.operands):
            continue
        of_a, of_b = operand_loads(kernel, contraction, kernel.tiling)
        times_of = [*((panel, of_a) for panel in contraction.panels), (contraction.b, of_b)]
        for access, times in times_of:
            found[access.view.buffer] = max(found.get(access.view.buffer, 0), times)
    return found
