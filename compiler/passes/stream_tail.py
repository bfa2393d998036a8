"""The last product that waits for its weights is cut along its columns, so that it goes on while they arrive.

While a network streams more weights than it computes, its kernels wait for HBM. The work of one is hidden behind the
weights of the next, but for the last one: when its weights have come, all of its own work is still to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import Final

from birc.compiler.ir.plan import Buffer, Kernel, KernelStep, Plan
from birc.compiler.ir.plan_access import named_dims
from birc.compiler.passes.restrict import restrict
from birc.compiler.passes.rough_cycles import constant_bytes, kernel_cycles
from birc.runtime.machine import Machine

PIECE_BYTES: Final = 1 << 22
"""The weights of a piece. HBM takes longer for them than a kernel takes to begin and to end."""


def cut_stream_tail(plan: Plan, machine: Machine) -> Plan:
    """The plan with the last kernels that stream many weights in pieces, if they wait for HBM."""
    buffers = {b.name: b for b in plan.buffers}
    for number in reversed(range(len(plan.steps))):
        step = plan.steps[number]
        if not isinstance(step, KernelStep) or constant_bytes(step.kernel, buffers) < 2 * PIECE_BYTES:
            continue
        column = _column(step.kernel)
        if column and _waits(step.kernel, buffers, machine):
            steps = (*plan.steps[:number], *_cut(step, column, buffers, machine), *plan.steps[number + 1 :])
            return replace(plan, steps=steps)
        return plan
    return plan


def _column(kernel: Kernel) -> str:
    """The dimension of columns of a product, if it is the only one and nothing in the kernel goes along it; else ""."""
    columns = kernel.contraction.column_dims if kernel.contraction is not None else ()
    return columns[0] if len(columns) == 1 and not named_dims(kernel).intersection(columns) else ""


def _waits(kernel: Kernel, buffers: Mapping[str, Buffer], machine: Machine) -> bool:
    """Whether the weights of a kernel take longer than its work, by a rough count."""
    stream = constant_bytes(kernel, buffers) / machine.streamed_hbm_bytes_per_cycle()
    return stream > kernel_cycles(kernel, buffers, machine)


def _cut(step: KernelStep, column: str, buffers: Mapping[str, Buffer], machine: Machine) -> list[KernelStep]:
    """The step in pieces that keep all SPCs busy."""
    width = step.kernel.dimension(column).extent
    count = math.ceil(constant_bytes(step.kernel, buffers) / PIECE_BYTES)
    least = machine.spcs_per_die * machine.tcore_cols
    most = max(1, round(width / count / least)) * least
    cut = [_pieces(kernel, column, most) if kernel is not None else [] for kernel in step.kernels]
    return [KernelStep(kernels) for kernels in zip_longest(*cut)]


def _pieces(kernel: Kernel, column: str, most: int) -> list[Kernel]:
    width = kernel.dimension(column).extent
    parts = [(start, min(most, width - start)) for start in range(0, width, most)]
    return [restrict(kernel, column, start, extent, f".{n}") for n, (start, extent) in enumerate(parts)]
