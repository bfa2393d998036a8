"""What is estimated of chunks before a plan is cut into them, and the plans that are not cut for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from graph_maker import GraphMaker
from small_networks import attention, few_rows, image_classifier, wide_blocks

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Plan
from birc.compiler.passes import chunk as chunk_phase
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.chunk import CHUNKS, cut_into, estimated_cycles, least_estimate
from birc.compiler.passes.fuse import fuse_for
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.lower import lower_graph
from birc.compiler.passes.partition import partitions
from birc.runtime.machine import Machine, load_machine


def plans(graph: Graph, machine: Machine) -> tuple[Plan, ...]:
    fused = run_passes(graph, (*LEGALIZE, fuse_for(machine, "bf16")))
    return partitions(fused, lower_graph(fused, machine, "bf16"), machine)


def chain(make: GraphMaker, products: int) -> Graph:
    """Products of a small matrix with one weight after the other."""
    x = make.input(192, 192)
    for _ in range(products):
        x = make("matmul", x, make.random(192, 192))
    return make.graph(x)


@pytest.mark.parametrize("target", ["tiny", "br104"])
@pytest.mark.parametrize("network", [attention, image_classifier, wide_blocks, few_rows])
def test_no_chunk_is_estimated_below_what_is_told_of_it_before(
    network: Callable[[GraphMaker], str], target: str
) -> None:
    machine, make = load_machine(target), GraphMaker()
    compared = 0
    for plan in plans(make.graph(network(make)), machine):
        for count in CHUNKS if plan.repeat == 1 else ():
            cut = cut_into(plan, machine, count)
            if cut is not None:
                assert 0 < least_estimate(plan, machine, count) <= estimated_cycles(cut, machine)
                compared += 1
    assert (compared > 0) == (network is not few_rows)


@pytest.mark.parametrize("products", [4, 12])
def test_what_begins_kernels_for_the_most_part_is_not_cut(products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All fits, and weights are more than activations: neither chunks nor a sample an SPC can pay."""
    asked: list[int] = []
    monkeypatch.setattr(chunk_phase, "cut_into", lambda plan, machine, count: asked.append(count))
    make = GraphMaker()
    assert all(plan.repeat == 1 for plan in plans(chain(make, products), load_machine("br100")))
    assert not asked
    plans(make.graph(wide_blocks(make)), load_machine("tiny"))
    assert asked
