"""Pairs of kernels that differ in names alone: what is made of one is what would be made of each by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from pairs import local_is_faster
from pipeline import finished, fusing

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import KernelStep, Plan
from birc.compiler.passes import local_chains as chains
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.chain_gain import OWN
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.local_pairs import Pairs
from birc.compiler.passes.lower.lower import Lowered, lower_graph
from birc.compiler.passes.partition import partitions
from birc.runtime.machine import load_machine

TINY = load_machine("tiny")
LAYERS, WIDTH = 6, 32


class Forgetful(dict[object, object]):
    """Never has what was put into it: each pair is solved by itself."""

    def __getitem__(self, key: object) -> object:
        raise KeyError(key)


def weights(number: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(number).integers(-1, 2, shape).astype(np.float32)


def chain() -> Graph:
    """Products one behind the other."""
    make = GraphMaker()
    value = make.input(WIDTH, WIDTH)
    for number in range(LAYERS):
        value = make("matmul", value, make.constant(weights(number, WIDTH, WIDTH)))
    return make.graph(value)


def biased(is_read_again: bool) -> Graph:
    """Products with one bias each, small constants that share a buffer; others may read their results, too."""
    make = GraphMaker()
    value, results = make.input(WIDTH, WIDTH), []
    for number in range(LAYERS):
        product = make("matmul", value, make.constant(weights(number, WIDTH, WIDTH)))
        value = make("relu", make("add", product, make.constant(weights(number, 1, WIDTH))))
        results.append(value)
    return make.graph(*results) if is_read_again else make.graph(value)


def windows() -> Graph:
    """Products over channels with a depthwise window behind each."""
    make = GraphMaker()
    value = make.input(2, 16, 6, 6)
    for number in range(3):
        filters = make.constant(weights(number, 16, 16, 1, 1)), make.constant(weights(number + 9, 16, 1, 3, 3))
        point = {"stride": (1, 1), "pads": (0, 0, 0, 0), "dilation": (1, 1), "group": 1}
        value = make("relu", make("conv2d", value, filters[0], **point))
        value = make("relu", make("conv2d", value, filters[1], **{**point, "pads": (1, 1, 1, 1), "group": 16}))
    return make.graph(value)


GRAPHS: dict[str, Callable[[], Graph]] = {
    "chain": chain,
    "biased": partial(biased, False),
    "read again": partial(biased, True),
    "windows": windows,
}


def lowered_plans(graph: Graph) -> tuple[Graph, Lowered, tuple[Plan, ...]]:
    fused = run_passes(canonicalize(graph), (*LEGALIZE, *fusing(TINY, "model")))
    lowered = lower_graph(fused, TINY, "model")
    return fused, lowered, partitions(fused, lowered, TINY)


def pairs_in(plan: Plan) -> int:
    """How many tensors stay between two steps."""
    local = {b.name for b in plan.buffers if b.space == "tb"}
    touched = [
        {s.access.view.buffer for p in step.kernel.phases for s in p.statements if s.access and s.op == "vst"} & local
        for step in plan.steps
        if isinstance(step, KernelStep)
    ]
    return sum(bool(made) for made, _ in pairwise(touched))


@pytest.mark.parametrize("name", GRAPHS)
def test_pairs_that_are_alike_are_as_if_each_was_solved(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, plans = lowered_plans(GRAPHS[name]())
    together = [chains.local_chains(plan, TINY, local_is_faster) for plan in plans]
    monkeypatch.setattr(chains, "Pairs", lambda gains: Pairs(gains, Forgetful()))
    apart = [chains.local_chains(plan, TINY, local_is_faster) for plan in plans]
    assert together == apart
    assert max(pairs_in(plan) for plan in together if plan is not None) > 1


@pytest.mark.parametrize("name", GRAPHS)
def test_pairs_that_are_alike_have_the_values_of_the_graph(name: str) -> None:
    graph = GRAPHS[name]()
    fused, lowered, plans = lowered_plans(graph)
    found = (chains.local_chains(plan, TINY, local_is_faster) for plan in plans)
    compiled = finished(fused, lowered, next(plan for plan in found if plan is not None), TINY)
    compiled.verify()
    inputs = random_inputs(graph)
    actual = compiled.values(inputs)
    for output, wanted in run_graph(graph, inputs).items():
        np.testing.assert_allclose(actual[output], wanted, rtol=2e-2, atol=2e-2 * np.abs(wanted).max())


def test_what_others_read_is_stored_once_more_under_each_name() -> None:
    """The copies of a pair made like another one are called after its own tensors."""
    _, _, plans = lowered_plans(biased(is_read_again=True))
    found = next(p for plan in plans if (p := chains.local_chains(plan, TINY, local_is_faster)) is not None)
    names = {b.name for b in found.buffers}
    copies = {b.name for b in found.buffers if b.name.endswith(OWN)}
    assert len(copies) > 1
    assert all(name.removesuffix(OWN) in names for name in copies)
