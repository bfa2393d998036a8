"""What kernels take, roughly, as it is known before they have tilings: to divide them, and to compare divisions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from birc.compiler.ir.plan import Buffer, Kernel
from birc.compiler.ir.plan_access import accesses, dims_taken
from birc.compiler.ir.region import num_elements
from birc.runtime.dtypes import dtype
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.machine import Machine

KERNEL_OVERHEAD_CYCLES: Final = 1500
"""Start, first loads and barrier of a kernel, which splitting does not shorten."""

PIPES: Final = {"alu": "alu", "cross": "alu", "sfu": "sfu"}
"""The pipe that operations occupy: reductions across lanes go through that of the arithmetic."""


def kernel_cycles(kernel: Kernel, buffers: Mapping[str, Buffer], machine: Machine) -> float:
    """A rough count: T-core at half rate, vector cores at full rate, or bytes through the ports."""
    moved = sum(num_bytes for _, num_bytes in _moved(kernel, buffers))
    through_ports = 1.5 * moved / (machine.spcs_per_die * machine.noc_bytes_per_cycle)
    computing = max(_multiplying(kernel, kernel.macs, machine), _on_vector_cores(kernel, machine))
    return max(computing, through_ports) + KERNEL_OVERHEAD_CYCLES


def least_cycles(kernel: Kernel, machine: Machine, parts: int) -> float:
    """What that count is at least of one of so many equal parts of a kernel, whatever it moves."""
    return _multiplying(kernel, round(kernel.macs * (1 / parts)), machine) + KERNEL_OVERHEAD_CYCLES


def constant_bytes(kernel: Kernel, buffers: Mapping[str, Buffer]) -> float:
    """The bytes of constants that a kernel reads; of a table no more than one row an index."""
    return sum(num_bytes for name, num_bytes in _moved(kernel, buffers) if buffers[name].role == "constant")


def _multiplying(kernel: Kernel, macs: int, machine: Machine) -> float:
    """Cycles of the T-core."""
    if kernel.contraction is None:
        return 0.0
    return 2.0 * macs / (machine.format(kernel.contraction.format).macs_per_cycle_per_spc * machine.spcs_per_die)


def _on_vector_cores(kernel: Kernel, machine: Machine) -> float:
    """Cycles of the busier of the pipes, by the elements that each statement takes.

    A product that is folded counts besides the sum, though one operation does both: a window waits for its loads.
    """
    taken, extents = dims_taken(kernel), {d.name: d.extent for d in kernel.space}
    elements = Counter[str]()
    for statement in (s for phase in kernel.phases for s in phase.statements):
        pipe = PIPES.get(BY_MNEMONIC[statement.op].pipe)
        if pipe is not None:
            elements[pipe] += math.prod(extents[name] for name in taken[id(statement)])
    alu, sfu = elements["alu"] / machine.vector_lanes_per_spc, elements["sfu"] / machine.sfu_lanes_per_spc
    return max(alu, sfu) / machine.spcs_per_die


def _moved(kernel: Kernel, buffers: Mapping[str, Buffer]) -> Iterator[tuple[str, float]]:
    """For each access the buffer and its bytes: of a table read at indices no more than one row an index."""
    indexed = {s.access for phase in kernel.phases for s in phase.statements if s.op == "vldx"}
    iterations = math.prod(d.extent for d in kernel.par_dims)
    for access in accesses(kernel):
        elements = num_elements(access.view)
        if indexed and access in indexed:
            elements = min(elements, iterations)
        yield access.view.buffer, elements * dtype(buffers[access.view.buffer].dtype).bits / 8
