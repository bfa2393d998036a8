"""Which steps of a plan read and write which buffers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from birc.compiler.ir.plan import Boundary, CopyStep, ExchangeStep, FillStep, Kernel, KernelStep, Plan, ShareStep, Step
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.plan_beside import spans
from birc.compiler.passes.allocation.blocks import aligned
from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine


def reads_of(kernel: Kernel) -> set[str]:
    """Buffers that a kernel reads."""
    found = {s.access.view.buffer for p in kernel.phases for s in p.statements if s.access and s.op != "vst"}
    if kernel.contraction is not None:
        found |= {access.view.buffer for access in kernel.contraction.operands}
    return found


def writes_of(kernel: Kernel) -> set[str]:
    """Buffers that a kernel writes."""
    return {s.access.view.buffer for p in kernel.phases for s in p.statements if s.access and s.op == "vst"}


def tables(kernel: Kernel) -> set[str]:
    """Buffers that a kernel reads at indices from data."""
    return {s.access.view.buffer for p in kernel.phases for s in p.statements if s.op == "vldx" and s.access}


def gathered(plan: Plan) -> dict[str, int]:
    """By table the elements that kernels read of it at indices from data, in all rounds."""
    found: dict[str, int] = {}
    for step in plan.steps:
        for kernel in instances(step) if isinstance(step, KernelStep) else ():
            for name in tables(kernel):
                elements = math.prod(d.extent for d in kernel.par_dims) * plan.repeat
                found[name] = found.get(name, 0) + elements
    return found


def streamed(plan: Plan) -> set[str]:
    """The buffers that kernels read tile by tile, or parts of which tensor buffers are filled with; and small tables,
    of which they read at indices more than all."""
    kernels = [k for step in plan.steps if isinstance(step, KernelStep) for k in instances(step)]
    read = set().union(*map(reads_of, kernels), filled_from(plan))
    elements = {b.name: b.num_elements for b in plan.buffers}
    return read - {name for name, count in gathered(plan).items() if count <= elements[name]}


def filled_from(plan: Plan) -> set[str]:
    """The buffers that tensor buffers are filled from."""
    return {step.source.buffer for step in plan.steps if isinstance(step, FillStep)}


def instances(step: KernelStep) -> Iterator[Kernel]:
    """The kernels of a step, one a die that takes part."""
    return (kernel for kernel in step.kernels if kernel is not None)


def touched(step: Step) -> set[str]:
    """Every buffer a step reads or writes."""
    match step:
        case KernelStep():
            return {access.view.buffer for kernel in instances(step) for access in accesses(kernel)}
        case CopyStep(source, target):
            return {source, target}
        case FillStep(source, target, _):
            return {source.buffer, target.buffer}
        case ShareStep(name):
            return {name}
        case ExchangeStep(exchanges):
            return {exchange.view.buffer for exchange in exchanges}


def users(plan: Plan) -> dict[str, list[int]]:
    """By buffer the steps that touch it, in order."""
    found: dict[str, list[int]] = {}
    for number, step in enumerate(plan.steps):
        for name in touched(step):
            found.setdefault(name, []).append(number)
    return found


def lifetimes(plan: Plan) -> dict[str, tuple[int, int]]:
    """The first and last step in which each buffer lives: that touches it, or runs beside one that does."""
    return spans(plan, users(plan))


def in_order(plan: Plan, order: Sequence[int]) -> Plan:
    """The plan with its steps in another order, and lifetimes that are right there."""
    places = {number: place for place, number in enumerate(order)}
    steps = tuple(plan.steps[number] for number in order)
    buffers = tuple(replace(b, first=places.get(b.first, -1), last=places.get(b.last, -1)) for b in plan.buffers)
    return replace(plan, steps=steps, buffers=buffers)


def least_sram_bytes(plan: Plan, machine: Machine) -> int:
    """The most bytes that live at once in L2 and in the tensor buffers, over all SPCs of the plan's dies.

    Buffers take whole lines. No placement needs less for what the plan keeps there.
    """
    copies = {"l2": plan.dies, "tb": plan.dies * machine.spcs_per_die}
    return sum(
        count
        * most_at_once(
            (aligned(b.num_bytes, machine.l2_line_bytes), b.first, b.last)
            for b in plan.buffers
            if b.space == space and b.first >= 0
        )
        for space, count in copies.items()
    )


def most_at_once(lives: Iterable[tuple[int, int, int]]) -> int:
    """The largest sum of sizes that live at one step; `lives` are (size, first step, last step)."""
    changes: dict[int, int] = {}
    for size, first, last in lives:
        changes[first] = changes.get(first, 0) + size
        changes[last + 1] = changes.get(last + 1, 0) - size
    most = live = 0
    for step in sorted(changes):
        live += changes[step]
        most = max(most, live)
    return most


def compulsory_bytes(plan: Plan) -> int:
    """Bytes that must cross HBM once: constants, inputs and outputs; of a table read at indices only the rows read."""
    homes = {b.name: b.home or b.name for b in plan.buffers}
    counts: dict[str, int] = {}
    for name, count in gathered(plan).items():
        counts[homes[name]] = counts.get(homes[name], 0) + count
    kernels = [k for step in plan.steps if isinstance(step, KernelStep) for k in instances(step)]
    used = {homes[name] for kernel in kernels for name in reads_of(kernel) - tables(kernel)}
    used |= {homes[name] for name in filled_from(plan)}
    boundary = {view.buffer for b in (*plan.inputs, *plan.outputs) for _, _, view in b.pieces}
    total = sum(_boundary_bytes(plan, b) for b in (*plan.inputs, *plan.outputs))
    for buffer in plan.buffers:
        if buffer.role != "constant" or buffer.name in boundary:
            continue
        if buffer.name in used:
            total += buffer.num_bytes * max(1, len(buffer.part_offsets))
        elif buffer.name in counts:
            total += min(buffer.num_bytes, counts[buffer.name] * dtype(buffer.dtype).bits // 8)
    return total


def _boundary_bytes(plan: Plan, boundary: Boundary) -> int:
    if not boundary.pieces:
        return 0
    element = next(b.dtype for b in plan.buffers if b.name == boundary.pieces[0][2].buffer)
    return math.prod(boundary.shape) * dtype(element).bits // 8
