"""Checks that a program needs no less than the bounds of the graph that it was compiled from.

    check_bounds(compiled)

Not only the latency: every resource is used at least as much as its bound says, since launch and barriers hide much.
"""

from __future__ import annotations

from pipeline import Compiled

from birc.compiler.passes.bounds import Bounds, bounds
from birc.compiler.passes.bounds_work import tcore_work, traffic
from birc.runtime.timing import TimingResult, simulate


def check_bounds(compiled: Compiled) -> tuple[Bounds, TimingResult]:
    """The bounds and the simulation that they were compared with."""
    least, result = bounds(compiled.lowered, compiled.machine), simulate(compiled.program, compiled.machine)
    machine, slack = compiled.machine, 1e-9
    assert least.largest <= result.latency_cycles, least
    busy = float(result.ledger["tcore_useful"] + result.ledger["tcore_padding"])
    work = [tcore_work(k, k.contraction, machine) for k in compiled.lowered.kernels if k.contraction is not None]
    assert sum(entry.operation_cycles for entry in work) <= busy * (1 + slack)
    assert sum(entry.cycles(machine) for entry in work) <= result.tcore_cycles * (1 + slack)
    assert least.tcore * machine.spcs <= result.tcore_cycles <= machine.spcs * result.latency_cycles
    assert least.vector * machine.spcs <= max(result.alu_cycles, result.sfu_cycles)
    moved = traffic(compiled.lowered)
    used = {name: float(num_bytes) for name, num_bytes in result.traffic.items()}
    assert moved.read + moved.written <= used.get("hbm", 0.0)
    assert moved.read <= used.get("noc in", 0.0)
    assert moved.written <= used.get("noc out", 0.0)
    return least, result
