"""Vector kernels with rows in parts: values, what they take of the machine, and which kernels have none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from compiled_checks import check_compiled
from graph_maker import GraphMaker
from pipeline import finished

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Kernel, KernelStep, Phase, Plan, Statement
from birc.compiler.ir.plan_access import accesses
from birc.compiler.kernel_clock import KernelClock
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.fuse import Fuse
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.lower import Lowered, lower_graph
from birc.compiler.passes.partition import partition
from birc.compiler.passes.row_parts import TiledParts, in_row_parts
from birc.compiler.passes.tile import Solved, tiled
from birc.runtime.machine import Machine, load_machine
from birc.runtime.timing.kernels import KernelTimer

TINY, BR100 = load_machine("tiny"), load_machine("br100")
COLUMNS = 256


def layer_norm(make: GraphMaker) -> str:
    weights = make.random(COLUMNS), make.random(COLUMNS)
    return make("layer_norm", make.input(24, COLUMNS), *weights, axis=1, epsilon=1e-5)


def softmax(make: GraphMaker) -> str:
    return make("softmax", make("add", make.input(24, COLUMNS), make.input(1, COLUMNS)), axis=1)


def sum_of_products(make: GraphMaker) -> str:
    return make("reduce_sum", make("mul", make.input(24, COLUMNS), make.input(24, COLUMNS)), axes=(1,), keepdims=0)


def least(make: GraphMaker) -> str:
    return make("reduce_min", make.input(24, COLUMNS), axes=(1,), keepdims=1)


NETWORKS = (layer_norm, softmax, sum_of_products, least)


def planned(graph: Graph, machine: Machine = TINY) -> tuple[Graph, Lowered, Plan]:
    fused = run_passes(graph, (*LEGALIZE, Fuse()))
    lowered = lower_graph(fused, machine, "model")
    return fused, lowered, partition(fused, lowered, machine)


def in_parts(plan: Plan, parts: int) -> Plan:
    """The plan with the rows of every kernel in parts that can have them; at least one can."""
    cut = [
        KernelStep(tuple(kernel and (in_row_parts(kernel, parts) or kernel) for kernel in step.kernels))
        if isinstance(step, KernelStep)
        else step
        for step in plan.steps
    ]
    assert cut != list(plan.steps)
    return replace(plan, steps=tuple(cut))


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_values_are_those_of_the_graph(network, parts) -> None:
    make = GraphMaker()
    fused, lowered, plan = planned(make.graph(network(make)))
    check_compiled(finished(fused, lowered, in_parts(plan, parts), TINY), 2e-5)


def operations(kernel: Kernel) -> list[str]:
    return [s.op for phase in kernel.phases for s in phase.statements]


def only_kernel(network) -> Kernel:
    make = GraphMaker()
    _, _, plan = planned(make.graph(network(make)))
    (step,) = plan.steps
    assert isinstance(step, KernelStep)
    return step.kernel


def test_squares_are_added_as_they_are_made() -> None:
    """Each of four parts gives a factor; the sum across lanes is of one register."""
    cut = in_row_parts(only_kernel(sum_of_products), 4)
    assert cut is not None
    assert [op for op in operations(cut) if op != "vld"] == [
        "vmul",
        "vfma",
        "vfma",
        "vfma",
        "vredsum",
        "vst",
    ]


def test_a_product_that_is_stored_too_is_made_once_for_each_part() -> None:
    kernel = only_kernel(sum_of_products)
    (phase,) = kernel.phases
    product = next(s for s in phase.statements if s.op == "vmul")
    load = next(s for s in phase.statements if s.op == "vld")
    store = Statement("vst", "", (product.result,), load.access)
    cut = in_row_parts(replace(kernel, phases=(Phase((*phase.statements, store)),)), 2)
    assert cut is not None
    assert [op for op in operations(cut) if op != "vld"] == ["vmul", "vmul", "vadd", "vredsum", "vst", "vst", "vst"]


@pytest.mark.parametrize("parts", [3, 8])
def test_rows_that_do_not_come_out_even_or_are_narrow_stay(parts: int) -> None:
    assert in_row_parts(only_kernel(layer_norm), parts) is None


def test_kernels_without_rows_stay() -> None:
    def plain(make: GraphMaker) -> str:
        return make("relu", make.input(24, COLUMNS))

    assert in_row_parts(only_kernel(plain), 2) is None


def test_the_clock_takes_parts_where_they_are_faster() -> None:
    """A layer norm of 3072 rows of 1024 on the chip: two reductions across lanes are half as long in parts."""
    make = GraphMaker()
    weights = make.random(1024), make.random(1024)
    graph = make.graph(make("layer_norm", make.input(3072, 1024), *weights, axis=1, epsilon=1e-5))
    _, lowered, _ = planned(graph, BR100)
    (kernel,) = lowered.kernels
    on_chip = Memories(dict.fromkeys((access.view.buffer for access in accesses(kernel)), "f32"), frozenset())
    solved: Solved = {}
    tiled(kernel, BR100, on_chip, solved, KernelClock(KernelTimer(BR100)).cycles)
    assert any(isinstance(found, TiledParts) for found in solved.values())
