"""How long a tiled kernel takes alone on a die with its operands on the chip: what decides between tilings."""

from __future__ import annotations

from dataclasses import dataclass

from birc.codegen.kernel_code import descriptor, emit_kernel
from birc.compiler.ir.plan import Buffer, Kernel
from birc.compiler.passes.contraction_cost import Memories
from birc.runtime.machine import Machine
from birc.runtime.timing.kernels import KernelTimer


@dataclass(frozen=True, slots=True)
class KernelClock:
    """Times kernels with the timing engine; the timer remembers what it has walked."""

    machine: Machine
    timer: KernelTimer

    def cycles(self, kernel: Kernel, memories: Memories) -> int:
        """Cycles of the busiest SPC, from the first instruction to the last."""
        code, slots = emit_kernel(kernel, self.machine)
        bindings = {
            slot: descriptor(
                view,
                Buffer(
                    view.buffer,
                    memories.elements[view.buffer],
                    0,
                    "scratch",
                    space="tb" if view.buffer in memories.local else "l2",
                    address=0,
                ),
            )
            for slot, view in enumerate(slots.views)
        }
        classes = self.timer.classes(code, bindings, tuple(range(self.machine.spcs_per_die)))
        return max((c.result.cycles for c in classes), default=0)
