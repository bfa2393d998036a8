"""Whether products that read each other's rows are one kernel of the machine, and why not: what the plan decided."""

from __future__ import annotations

from collections.abc import Set

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Plan
from birc.compiler.kernel_clock import KernelClock
from birc.compiler.passes.follow_reasons import FollowReasons
from birc.compiler.passes.refusal import Reason, Refusal
from birc.runtime.machine import Machine
from birc.runtime.timing.kernels import KernelTimer

FOLLOWS = "one kernel of the machine all the same: the product takes rows as they are finished"


def products_in_plan(plan: Plan, fused: Graph, machine: Machine) -> dict[tuple[str, str], Refusal]:
    """By the names of two kernels what became of them, where the second one's product reads rows of the first one's.

    The plan is that of the fused graph, tiled.
    """
    names = {node.name for node in fused.nodes}
    found: dict[tuple[str, str], Refusal] = {}
    for pair in FollowReasons(plan, machine, KernelClock(KernelTimer(machine)).together).pairs():
        key = _whole(pair.first, names), _whole(pair.second, names)
        if pair.words:
            found[key] = Refusal(Reason.APART, pair.words)
        else:
            found.setdefault(key, Refusal(Reason.FOLLOWS, FOLLOWS))
    return found


def _whole(name: str, names: Set[str]) -> str:
    """The kernel of which the plan has a part by a name: those of chunks, for one, end with a number."""
    while name not in names and "." in name:
        name = name.rpartition(".")[0]
    return name
