"""Graphs compiled by plans with weights of products in the tensor buffers, whatever that gains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from graph_maker import GraphMaker
from pipeline import Compiled, finished, fusing

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import FillStep, Kernel, Plan
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.lower import Lowered, lower_graph
from birc.compiler.passes.near_weights import Offer, near_offers, with_near_weights
from birc.compiler.passes.partition import partitions
from birc.runtime.machine import Machine, load_machine

LONG = 1_000_000
"""Cycles of a kernel, so many that HBM brings what it reads in time, and any copy."""


@dataclass(frozen=True)
class Preferring:
    """Cycles by which one way to have weights near is the best; it sees the others."""

    wanted: Kernel | None = None
    asked: list[Kernel] = field(default_factory=list)

    def __call__(self, kernel: Kernel, memories: Memories) -> int:
        is_near = kernel.contraction is not None and memories.is_local(kernel.contraction.b)
        if is_near and kernel not in self.asked:
            self.asked.append(kernel)
        if is_near and kernel == self.wanted:
            return 1
        return LONG // 2 if is_near and self.wanted is None else LONG


@dataclass(frozen=True)
class Planned:
    """A graph as it is fused, what that is lowered to, and one of its plans."""

    fused: Graph
    lowered: Lowered
    plan: Plan
    machine: Machine

    def compiled(self, plan: Plan | None = None) -> Compiled:
        """By the plan, or by another one."""
        return finished(self.fused, self.lowered, plan or self.plan, self.machine)

    def near(self, offers: Sequence[Offer]) -> Compiled:
        plan = with_near_weights(self.plan, offers, self.machine)
        assert plan is not None
        return self.compiled(plan)

    def offers(self) -> list[Offer]:
        """What is offered where anything near is faster."""
        return near_offers(self.plan, self.machine, Preferring())

    def ways(self) -> Iterator[tuple[Kernel, list[Offer]]]:
        """Every way to have the weights of a product near, with the offers where that one is the best."""
        seen = Preferring()
        near_offers(self.plan, self.machine, seen)
        for kernel in seen.asked:
            offers = near_offers(self.plan, self.machine, Preferring(kernel))
            if offers:
                yield kernel, offers


def planned(graph: Graph, target: str | Machine = "tiny") -> list[Planned]:
    """The graph with each of its plans before tiles are chosen."""
    machine = target if isinstance(target, Machine) else load_machine(target)
    fused = run_passes(canonicalize(graph), (*LEGALIZE, *fusing(machine, "model")))
    lowered = lower_graph(fused, machine, "model")
    return [Planned(fused, lowered, plan, machine) for plan in partitions(fused, lowered, machine)]


def fills(plan: Plan) -> list[FillStep]:
    return [step for step in plan.steps if isinstance(step, FillStep)]


def whole_numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Small ones: products of them are exact in all types."""
    return np.random.default_rng([seed, *shape]).integers(-2, 3, shape).astype(np.float32)


def behind_others(make: GraphMaker, x: str, count: int = 2) -> str:
    """Products in front of the one that is looked at, while which its weights are copied: each swaps the columns."""
    columns = make.type_of(x).sizes[-1]
    for _ in range(count):
        x = make("relu", make("matmul", x, make.constant(np.eye(columns)[::-1])))
    return x
