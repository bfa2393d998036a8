"""Small constants in the tensor buffers: what kernels on SPCs' own parts read is brought there once, for all.

Weights of a window are many loads of few bytes, each of which takes the latency of L2: from the tensor buffer it takes
a third of that. So is a bias, which a vector program loads for every tile. A kernel in front of the first that reads
them copies what all read of a buffer. Operands of the T-core stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from birc.compiler.ir.names import unused_name
from birc.compiler.ir.plan import (
    PAR,
    SPC,
    Access,
    Buffer,
    Dimension,
    Index,
    Kernel,
    KernelStep,
    Phase,
    Plan,
    Statement,
    View,
)
from birc.compiler.ir.plan_access import accesses_of, with_statements
from birc.compiler.ir.plan_beside import together
from birc.compiler.ir.region import region
from birc.compiler.passes.allocation.blocks import aligned
from birc.compiler.passes.lifetimes import instances
from birc.compiler.passes.lower.frame import unit
from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine

LEAST_WINDOWS = 4
"""Fewer windows gain less than copying takes."""
LARGEST_BYTES = 1 << 18
WIDTH = 128
"""Elements of a row of what is copied."""


def near_constants(plan: Plan, machine: Machine) -> Plan | None:
    """The plan with constants near the kernels on their own parts; None when few read any."""
    readers = {
        number: step
        for number, step in enumerate(plan.steps)
        if isinstance(step, KernelStep) and all(kernel.has_own_parts for kernel in instances(step))
    }
    if sum(step.kernel.contraction is None and bool(step.kernel.red_dims) for step in readers.values()) < LEAST_WINDOWS:
        return None
    begin, first_reader = next(iter(readers.items()))
    reached = _reached(plan, readers.values())
    taken = {b.name for b in plan.buffers}
    near: dict[str, Buffer] = {}
    copies: list[KernelStep] = []
    for name, (first, elements) in reached.items():
        home = plan.buffer(name)
        num_bytes = elements * dtype(home.dtype).bits // 8
        near[name] = Buffer(unused_name(f"{name}.near", taken), home.dtype, num_bytes, "scratch", "tb")
        kernel = _copy(near[name].name, View(name, first, (), ()), elements, machine)
        copies.append(KernelStep(tuple(reader and kernel for reader in first_reader.kernels)))
    if not near:
        return None

    def changed(access: Access) -> Access:
        view = access.view
        if view.buffer not in near:
            return access
        moved = replace(view, buffer=near[view.buffer].name, offset=view.offset - reached[view.buffer][0])
        return replace(access, view=moved)

    steps = [
        replace(readers[number], kernels=tuple(k and with_statements(k, changed) for k in readers[number].kernels))
        if number in readers
        else step
        for number, step in enumerate(plan.steps)
    ]
    start = next(group.start for group in together(plan.steps) if max(0, begin - 1) in group)
    more = sum(aligned(b.num_bytes, machine.l2_line_bytes) for b in near.values())
    if plan.tensor_buffer_bytes + more > machine.spc_sram_bytes:
        return None
    return replace(
        plan,
        buffers=(*plan.buffers, *near.values()),
        steps=(*steps[:start], *copies, *steps[start:]),
        tensor_buffer_bytes=plan.tensor_buffer_bytes + more,
    )


def _reached(plan: Plan, readers: Iterable[KernelStep]) -> Mapping[str, tuple[int, int]]:
    """Of each constant that may be near the first element that is read, and how many there are in rows from there."""
    constants = {b.name: b for b in plan.buffers if b.role == "constant" and not b.part_offsets}
    ends: dict[str, tuple[int, int]] = {}
    for op, access in (found for step in readers for kernel in instances(step) for found in accesses_of(kernel)):
        if access.view.buffer in constants and op not in ("a", "b"):
            box = region(access.view)
            low, high = ends.get(box.buffer, (box.offset, box.end))
            ends[box.buffer] = min(low, box.offset), max(high, box.end)
    found: dict[str, tuple[int, int]] = {}
    for name, (low, high) in ends.items():
        elements = min(-(-(high - low) // WIDTH) * WIDTH, constants[name].num_elements // WIDTH * WIDTH)
        first = min(low, constants[name].num_elements - elements)
        if high <= first + elements and elements * dtype(constants[name].dtype).bits // 8 <= LARGEST_BYTES:
            found[name] = first, elements
    return found


def _copy(target: str, source: View, elements: int, machine: Machine) -> Kernel:
    """A kernel in which each SPC copies so many elements into its tensor buffer."""
    rows = elements // WIDTH
    index = (Index(), unit("row"), unit("element"))
    dims, strides = (1, rows, WIDTH), (0, WIDTH, 1)
    load = Statement("vld", "v0", (), Access(replace(source, dims=dims, strides=strides), index))
    store = Statement("vst", "", ("v0",), Access(View(target, 0, dims, strides), index))
    space = (
        Dimension(SPC, machine.spcs_per_die, PAR),
        Dimension("row", rows, PAR),
        Dimension("element", WIDTH, PAR),
    )
    return Kernel(target, space, (Phase((load, store)),))
