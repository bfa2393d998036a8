"""Constants that both dies need whole: each loads one half, and gets the other one over the link between them.

Then each byte of theirs crosses HBM once, and lies in the HBM of one die. A constant is only marked here, as early as
the dies are known; allocation divides those whose twins are on the chip.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from typing import Final

from birc.compiler.ir.copies import copy_dims
from birc.compiler.ir.plan import Buffer, KernelStep, Plan
from birc.compiler.passes.lifetimes import lifetimes, reads_of, streamed
from birc.runtime.machine import Machine

LEAST_BYTES: Final = 1 << 15
"""The halves that are worth a transfer."""


def share_constants(plan: Plan, machine: Machine, first_use: int = 0) -> Plan:
    """The plan with the constants marked that the dies can share, of those that no step before `first_use` reads.

    What the first steps need should come the shortest way. A plan for another number of dies than two is as it was.
    """
    if plan.dies != 2:
        return plan
    spans = lifetimes(plan)
    whole = _read_by_all(plan)
    buffers = tuple(
        replace(b, shared=True) if b.name in whole and spans[b.name][0] >= first_use and _divides(b, machine) else b
        for b in plan.buffers
    )
    return replace(plan, buffers=buffers)


def first_uses(plan: Plan, machine: Machine) -> list[int]:
    """The steps that are the first to read constants which can be shared."""
    spans = lifetimes(plan)
    return sorted({spans[b.name][0] for b in share_constants(plan, machine).buffers if b.shared})


def _read_by_all(plan: Plan) -> set[str]:
    """The buffers that kernels of every die read tile by tile."""
    steps = [step for step in plan.steps if isinstance(step, KernelStep)]
    columns = zip(*(step.kernels for step in steps), strict=True)
    reads = (set().union(*(reads_of(kernel) for kernel in column if kernel is not None)) for column in columns)
    return streamed(plan).intersection(*reads)


def _divides(buffer: Buffer, machine: Machine) -> bool:
    """Whether a buffer is a constant of two equal parts that are worth it and that commands can describe."""
    if buffer.role != "constant" or buffer.part_offsets or buffer.num_bytes < 2 * LEAST_BYTES:
        return False
    sizes = (buffer.num_bytes, buffer.num_bytes // 2)
    return buffer.num_elements % 2 == 0 and all(copy_dims(size, machine.max_dim) is not None for size in sizes)


def divided(buffer: Buffer) -> Buffer:
    """A shared constant as each die's memory holds it: die 0 the first half, die 1 the second."""
    half = buffer.num_elements // 2
    return replace(
        buffer, num_bytes=buffer.num_bytes // 2, part_offsets=(0, half), part_dims=(half,), part_strides=(1,)
    )


def settled(plan: Plan, twins: Set[str]) -> Plan:
    """The plan with shared constants divided; those whose twins are not among `twins` are whole after all.

    `twins` are on the chip, and filled once.
    """
    kept = {b.home for b in plan.buffers if b.home and b.name in twins}
    buffers = tuple(
        (divided(b) if b.name in kept else replace(b, shared=False)) if b.shared else b for b in plan.buffers
    )
    return replace(plan, buffers=buffers)
