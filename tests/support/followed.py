"""Graphs compiled by plans in which products follow each other as one kernel, whatever that gains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pairs import local_is_faster
from pipeline import Compiled, fusing

from birc.codegen.program_code import generate
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Kernel, KernelStep, Plan
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.passes.allocate import allocate
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.follow import Clock, following
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.local_chains import local_chains
from birc.compiler.passes.lower.lower import Lowered, lower_graph
from birc.compiler.passes.partition import partitions
from birc.compiler.passes.schedule import schedule
from birc.compiler.passes.tile import tile
from birc.runtime.machine import Machine


def one_is_faster(kernels: Sequence[Kernel], _: Memories, __: Machine) -> int:
    """Cycles by which two kernels always take less as one."""
    return 1 if len(kernels) > 1 else 1000


def followed(
    graph: Graph, machine: Machine, precision: str = "model", clock: Clock = one_is_faster
) -> Iterator[Compiled]:
    """The graph by every plan in which a product follows another one."""
    fused = run_passes(canonicalize(graph), (*LEGALIZE, *fusing(machine, precision)))
    lowered = lower_graph(fused, machine, precision)
    for plan in partitions(fused, lowered, machine):
        paired = local_chains(plan, machine, local_is_faster)
        found = paired and following(tile(paired, machine), machine, clock, {})
        if found is not None and any(isinstance(step, KernelStep) and step.follows for step in found.steps):
            yield finished(fused, lowered, found, machine)


def finished(fused: Graph, lowered: Lowered, plan: Plan, machine: Machine) -> Compiled:
    """The lowered kernels compiled by a plan that is tiled."""
    verify_plan(plan, "tile", machine)
    plan = allocate(schedule(plan, machine), machine)
    verify_plan(plan, "allocate", machine)
    generated = generate(plan, machine)
    return Compiled(fused, lowered, plan, generated.program, generated.weights(lowered.data), machine)
