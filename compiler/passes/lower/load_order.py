"""The order of the loads of a vector kernel: all of a phase first, so that their latencies are paid together."""

from __future__ import annotations

from dataclasses import replace

from birc.compiler.ir.plan import Kernel, Phase
from birc.compiler.ir.registers import assign

ENOUGH_PROGRAMS = 4
"""Vector programs that keep the pipes of an SPC busy; more are not worth waiting for loads."""


def loads_first(kernel: Kernel, vector_registers: int) -> Kernel:
    """The kernel with the loads of each phase in front, unless too few vector programs then find registers."""
    if kernel.contraction is not None:
        return kernel
    phases = tuple(_sorted(phase) for phase in kernel.phases)
    programs, before = (vector_registers // max(1, assign(p).count) for p in (phases, kernel.phases))
    return replace(kernel, phases=phases) if programs >= min(before, ENOUGH_PROGRAMS) else kernel


def _sorted(phase: Phase) -> Phase:
    return replace(phase, statements=tuple(sorted(phase.statements, key=lambda s: s.op != "vld")))
