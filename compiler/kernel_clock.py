"""How long a tiled kernel takes alone on a die with its operands where they lie: what decides between tilings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from birc.codegen.kernel_code import KernelWriter, descriptor, emit_kernel
from birc.codegen.slots import Slots
from birc.compiler.ir.plan import Buffer, Kernel
from birc.compiler.passes.contraction_cost import Memories
from birc.runtime.machine import Machine
from birc.runtime.program import Descriptor
from birc.runtime.program import Kernel as KernelCode
from birc.runtime.timing.kernels import KernelTimer


@dataclass(frozen=True, slots=True)
class KernelClock:
    """Times kernels with the timing engine; the timer remembers what it has walked."""

    timer: KernelTimer

    def cycles(self, kernel: Kernel, memories: Memories, machine: Machine, most: float = math.inf) -> int:
        """Cycles of the busiest SPC, from the first instruction to the last, as the kernel is written for a machine.

        Some number above `most` when they are more. What comes ahead of it comes while SPCs wait for the last
        stores of the kernel before, and for each other.
        """
        return self.timer.cycles(*_timed(emit_kernel(kernel, machine), kernel, memories, machine), most)

    def together(self, kernels: Sequence[Kernel], memories: Memories, machine: Machine) -> int:
        """The same of kernels that are one of the machine, or of one that is not to be followed."""
        code, slots, _ = KernelWriter(machine).emit(kernels)
        return self.timer.cycles(*_timed((code, slots), kernels[0], memories, machine))

    def busy(self, kernel: Kernel, memories: Memories, machine: Machine) -> tuple[int, int]:
        """The same, and the cycles in which the ALU of the busiest SPC works."""
        timed = _timed(emit_kernel(kernel, machine), kernel, memories, machine)
        walks = [known.result for known in self.timer.classes(*timed)]
        return max((r.cycles for r in walks), default=0), max((r.alu_cycles for r in walks), default=0)


def _timed(
    written: tuple[KernelCode, Slots], kernel: Kernel, memories: Memories, machine: Machine
) -> tuple[KernelCode, dict[int, Descriptor], tuple[int, ...], int]:
    """The code as it was written, what is bound to its slots, the SPCs that are looked at, and what comes ahead."""
    code, slots = written
    bindings = {
        slot: descriptor(
            view,
            Buffer(
                view.buffer,
                memories.elements[view.buffer],
                0,
                "scratch",
                space=_space(view.buffer, memories),
                address=0,
            ),
        )
        for slot, view in enumerate(slots.views)
    }
    last = machine.spcs_per_die - 1
    # Parts that SPCs have of their own are alike, but for those at the edges of an image; the link is shared by all.
    sends = any(view.away for view in slots.views)
    spcs = sorted({0, min(1, last), last}) if kernel.has_own_parts and not sends else range(last + 1)
    ahead = 0 if kernel.contraction is None else memories.ahead_cycles(kernel.contraction, machine)
    return code, bindings, tuple(spcs), ahead


def _space(name: str, memories: Memories) -> str:
    """The memory that a buffer lies in."""
    if name in memories.local:
        return "tb"
    return "hbm" if name in memories.far else "l2"
