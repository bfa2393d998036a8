"""Plans in which columns open row by row, where that is faster."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from graph_maker import GraphMaker
from pipeline import compile_graph

from birc.codegen.program_code import generate
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Kernel, KernelStep, Plan
from birc.compiler.ir.plan_parser import parse_plan
from birc.compiler.ir.plan_printer import print_plan
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.ir.tile_order import IN_TURN, OPENING
from birc.compiler.passes.opening_columns import forms_that_open
from birc.compiler.plan_search import PlanSearch
from birc.runtime.machine import load_machine
from birc.runtime.timing import simulate


def behind_each_other() -> Graph:
    """Products with weights, which come while vector cores finish the one before and the SPCs wait for each other."""
    make = GraphMaker()
    generator = np.random.default_rng(3)
    x = make.input(512, 768)
    for _ in range(3):
        x = make("matmul", x, make.constant(generator.integers(-2, 3, (768, 768)).astype(np.float32)))
        for _ in range(4):
            x = make("tanh", x)
    return make.graph(x)


def products(plan: Plan) -> list[Kernel]:
    return [s.kernel for s in plan.steps if isinstance(s, KernelStep) and s.kernel.contraction is not None]


def test_columns_open_where_that_is_faster() -> None:
    machine = load_machine("br100").with_values({"dies": 1})
    search = PlanSearch(machine, "bf16", 2)
    plan = search.plan(compile_graph(behind_each_other(), machine, "bf16").graph).plan
    for _, step in search.steps:
        plan = step(plan, machine)
    orders = [kernel.tiling.order for kernel in products(plan) if kernel.tiling]
    assert OPENING in orders
    verify_plan(plan, "allocate", machine)
    assert parse_plan(print_plan(plan)) == plan

    def closed(kernel: Kernel | None) -> Kernel | None:
        return kernel and replace(kernel, tiling=kernel.tiling and replace(kernel.tiling, order=IN_TURN))

    steps = [replace(s, kernels=tuple(map(closed, s.kernels))) if isinstance(s, KernelStep) else s for s in plan.steps]
    times = [simulate(generate(p, machine).program, machine) for p in (plan, replace(plan, steps=tuple(steps)))]
    assert times[0].latency_cycles < times[1].latency_cycles


def test_a_plan_in_which_nothing_can_open_stays_as_it_is() -> None:
    make = GraphMaker()
    machine = load_machine("tiny")
    case = compile_graph(make.graph(make("relu", make.input(8, 8))), machine)
    assert forms_that_open(case.plan, machine) == []
