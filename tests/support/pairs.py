"""Graphs compiled by plans with pairs of kernels that keep a tensor in the tensor buffers, whatever that gains."""

from __future__ import annotations

from pipeline import Compiled, finished, fusing

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import OWN_DIMENSIONS, Kernel, Plan
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.chain_gain import Cycles
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.local_chains import local_chains
from birc.compiler.passes.lower.lower import Lowered, lower_graph
from birc.compiler.passes.partition import partitions
from birc.runtime.machine import Machine, load_machine


def local_is_faster(_: Kernel, memories: Memories) -> int:
    """Cycles by which every pair pays, whether it saves a barrier or not."""
    return 1 if memories.local else 1000


def paired_plan(graph: Graph, machine: Machine, cycles: Cycles = local_is_faster) -> tuple[Graph, Lowered, Plan] | None:
    """The first plan with pairs, the graph as it is fused, and what that is lowered to."""
    fused = run_passes(canonicalize(graph), (*LEGALIZE, *fusing(machine, "model")))
    lowered = lower_graph(fused, machine, "model")
    plans = (local_chains(plan, machine, cycles) for plan in partitions(fused, lowered, machine))
    return next(((fused, lowered, plan) for plan in plans if plan is not None), None)


def paired(graph: Graph, target: str | Machine = "tiny", cycles: Cycles = local_is_faster) -> Compiled | None:
    """The graph by its first plan with pairs."""
    machine = target if isinstance(target, Machine) else load_machine(target)
    found = paired_plan(graph, machine, cycles)
    return None if found is None else finished(*found, machine)


def own(kernel: Kernel) -> dict[str, int]:
    """The parts of a kernel that SPCs have of their own."""
    return {d.name: d.extent for d in kernel.space if d.name in OWN_DIMENSIONS}
