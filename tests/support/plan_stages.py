"""The plans of small exported networks after every phase that makes or changes one.

for phase, plan in plan_stages("gpt2", "tiny").plans.items(): ...
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from networks import exported_network

from birc.compiler.importer.importer import import_model
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Plan
from birc.compiler.passes.allocate import allocate
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.fuse import fuse_for
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.lower import lower_graph
from birc.compiler.passes.merge_products import MergeProducts
from birc.compiler.passes.partition import partition
from birc.compiler.passes.schedule import schedule
from birc.compiler.passes.tile import tile
from birc.runtime.machine import load_machine


@dataclass(frozen=True)
class Stages:
    """The fused graph, the plan after each phase, and the data of its constants."""

    graph: Graph
    plans: Mapping[str, Plan]
    data: Mapping[str, np.ndarray]


@cache
def plan_stages(network: str, target: str) -> Stages:
    """Compile one of `networks.EXPORTED` as far as plans go."""
    machine = load_machine(target)
    graph = canonicalize(import_model(exported_network(network).model))
    graph = run_passes(graph, (*LEGALIZE, MergeProducts(), fuse_for(machine, "model")))
    lowered = lower_graph(graph, machine, "model")
    plans = {"partition": partition(graph, lowered, machine)}
    plans["tile"] = tile(plans["partition"], machine)
    plans["schedule"] = schedule(plans["tile"], machine)
    plans["allocate"] = allocate(plans["schedule"], machine)
    return Stages(graph, plans, lowered.data)
