"""The order of the loads of a vector kernel: all of a phase first, so that their latencies are paid together.

Where registers do not hold them all, each goes ahead by as many as a vector program has in flight.
"""

from __future__ import annotations

from dataclasses import replace

from birc.compiler.ir.plan import Kernel, Phase, Statement
from birc.compiler.ir.registers import MOST_LOADS_AHEAD, assign

ENOUGH_PROGRAMS = 4
"""Vector programs that keep the pipes of an SPC busy; more are not worth waiting for loads."""


def loads_first(kernel: Kernel, vector_registers: int) -> Kernel:
    """The kernel with the loads of each phase in front or a few ahead, whichever leaves enough programs registers."""
    if kernel.contraction is not None:
        return kernel
    programs = vector_registers // max(1, assign(kernel.phases).count)
    for ahead in (max(len(phase.statements) for phase in kernel.phases), MOST_LOADS_AHEAD):
        phases = tuple(_with_loads_ahead(phase, ahead) for phase in kernel.phases)
        if vector_registers // max(1, assign(phases).count) >= min(programs, ENOUGH_PROGRAMS):
            return replace(kernel, phases=phases)
    return kernel


def _with_loads_ahead(phase: Phase, ahead: int) -> Phase:
    """A phase in which so many loads stand before each statement that follow it otherwise."""
    loads = [statement for statement in phase.statements if statement.op == "vld"]
    order: list[Statement] = []
    passed = placed = 0
    for statement in phase.statements:
        if statement.op == "vld":
            passed += 1
            continue
        order += loads[placed : passed + ahead]
        placed = max(placed, min(passed + ahead, len(loads)))
        order.append(statement)
    return replace(phase, statements=(*order, *loads[placed:]))
