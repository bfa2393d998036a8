"""Concatenations whose pieces are written where they belong: no copies, the same values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from bound_checks import check_bounds
from graph_maker import GraphMaker
from machines import with_quick_link
from pipeline import compile_graph, compiled_plans, finished
from small_networks import CONV, POOL

from birc.compiler.ir.interpreter import run_graph
from birc.compiler.passes.local_chains import local_chains
from birc.compiler.passes.partition import partitions
from birc.compiler.prove import new_prover
from birc.runtime.machine import Machine, load_machine

POINT = {**CONV, "pads": (0, 0, 0, 0)}


def inception(make: GraphMaker) -> str:
    """Windows of several sizes and a pool side by side, which another pool reads."""
    x = make.input(4, 8, 8, 8)
    one = make("relu", make("conv2d", x, make.random(12, 8, 1, 1), **POINT))
    three = make("relu", make("conv2d", x, make.random(20, 8, 3, 3), **CONV))
    pool = make("max_pool2d", x, **{**POOL, "stride": (1, 1)})
    joined = make("concat", one, three, pool, axis=1)
    return make("max_pool2d", joined, **POOL)


def dense(make: GraphMaker) -> str:
    """Layers that read what all layers before made; the last ones read it all twice."""
    x = make("max_pool2d", make.input(4, 16, 12, 12), **POOL)
    for _ in range(3):
        channels = make.type_of(x).sizes[1]
        scaled = make("relu", make("mul", x, make.random(channels, 1, 1)))
        inner = make("relu", make("conv2d", scaled, make.random(24, channels, 1, 1), **POINT))
        x = make("concat", x, make("conv2d", inner, make.random(8, 24, 3, 3), **CONV), axis=1)
    scaled = make("relu", make("mul", x, make.random(make.type_of(x).sizes[1], 1, 1)))
    return make("conv2d", scaled, make.random(9, make.type_of(x).sizes[1], 3, 3), **CONV)


def reductions(make: GraphMaker) -> str:
    """Reductions over an axis in the middle, and over the last one."""
    x = make.input(4, 3, 10, 13)
    middle = make("reduce_sum", make("mul", x, make.random(13)), axes=(1,), keepdims=0)
    other = make("reduce_max", make.input(4, 10, 6, 13), axes=(2,), keepdims=0)
    last = make("reduce_mean", make.input(4, 10, 7, 90), axes=(3,), keepdims=1)
    spread = make("mul", make("reshape", last, shape=(4, 10, 7)), make("reshape", make.input(4, 70), shape=(4, 10, 7)))
    joined = make("concat", middle, other, axis=2)
    columns = make(
        "concat", make("reduce_sum", spread, axes=(2,), keepdims=1), make("neg", make.input(4, 10, 2)), axis=2
    )
    return make("relu", make("concat", joined, columns, axis=2))


@cache
def machines() -> dict[str, Machine]:
    tiny = load_machine("tiny")
    return {"tiny": tiny, "one die": tiny.with_dies(1), "quick link": with_quick_link("tiny")}


@pytest.mark.parametrize("target", ["tiny", "one die", "quick link"])
@pytest.mark.parametrize("build", [inception, dense, reductions])
def test_every_plan_gives_the_same(build: Callable[[GraphMaker], str], target: str) -> None:
    make = GraphMaker()
    graph = make.graph(build(make))
    inputs = {v.name: np.random.default_rng(1).normal(size=v.type.sizes).astype(np.float32) for v in graph.inputs}
    (expected,) = run_graph(graph, inputs).values()
    for number, compiled in enumerate(compiled_plans(graph, machines()[target])):
        assert not [kernel.name for kernel in compiled.lowered.kernels if "." in kernel.name], "nothing is copied"
        compiled.verify()
        check_bounds(compiled)
        new_prover().prove(compiled.plan, compiled.machine)
        found = [compiled.values(inputs), *([compiled.step(inputs, "random", 1)] if number == 0 else [])]
        for values in found:
            (actual,) = values.values()
            np.testing.assert_allclose(actual, expected, rtol=5e-3, atol=1e-3 * float(np.abs(expected).max()))


def copied_last(make: GraphMaker) -> str:
    """Of two pieces the first one is copied when the other one is there; a pool reads both."""
    x = make("conv2d", make.input(1, 8, 32, 32), make.random(32, 8, 1, 1), **POINT)
    x = make("lrn", x, size=3, alpha=0.1, beta=0.5, k=1.0)
    joined = make("concat", x, make("conv2d", x, make.random(32, 32, 3, 3), **CONV), axis=1)
    return make("max_pool2d", joined, **{**POOL, "kernel": (2, 2), "pads": (0, 0, 0, 0)})


@pytest.mark.parametrize("target", ["br100", "br104", "tiny"])
@pytest.mark.parametrize("build", [inception, dense, copied_last, reductions])
def test_chains_read_what_they_make(build: Callable[[GraphMaker], str], target: str) -> None:
    """Every chain of kernels that can be is there: an SPC has of a tensor what the chain itself writes."""
    make, machine = GraphMaker(), load_machine(target)
    graph = make.graph(build(make))
    inputs = {v.name: np.random.default_rng(3).normal(size=v.type.sizes).astype(np.float32) for v in graph.inputs}
    (expected,) = run_graph(graph, inputs).values()
    compiled = compile_graph(graph, machine)
    for plan in partitions(compiled.graph, compiled.lowered, machine):
        chained = local_chains(plan, machine, lambda _, memories: 1 if memories.local else 10_000)
        if chained is not None:
            made = finished(compiled.graph, compiled.lowered, chained, machine)
            made.verify()
            (actual,) = made.values(inputs).values()
            np.testing.assert_allclose(actual, expected, rtol=5e-3, atol=1e-3 * float(np.abs(expected).max()))


@pytest.mark.parametrize("reader", ["output", "reshape", "twice"])
def test_what_has_to_lie_otherwise_is_copied(reader: str) -> None:
    make = GraphMaker()
    x = make.input(2, 4, 6, 6)
    one = make("conv2d", x, make.random(5, 4, 3, 3), **CONV)
    joined = make("relu", make("concat", one, one if reader == "twice" else x, axis=1))
    more = {"output": [one], "reshape": [make("relu", make("reshape", one, shape=(2, 180)))], "twice": []}[reader]
    graph = make.graph(joined, *more)
    compiled = compile_graph(graph, "tiny")
    assert any("." in kernel.name for kernel in compiled.lowered.kernels)
    inputs = {"x0": np.random.default_rng(2).normal(size=(2, 4, 6, 6)).astype(np.float32)}
    expected = run_graph(graph, inputs)
    for name, actual in compiled.values(inputs).items():
        np.testing.assert_allclose(actual, expected[name], rtol=5e-3, atol=5e-3)
