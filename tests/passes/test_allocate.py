"""Allocation: nothing overlaps that lives at the same time, and what finds no room on the chip is still right."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from graph_maker import GraphMaker, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import EXPORTED, exported_network, relative_error
from pipeline import Compiled, compile_graph, compile_network, compiled_plans

from birc.compiler.importer.importer import import_model
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import Plan
from birc.compiler.passes.allocate import Arena, allocate
from birc.compiler.passes.lifetimes import lifetimes
from birc.runtime.errors import DoesNotFitError
from birc.runtime.machine import Machine, load_machine

POOL = {"kernel": (3, 3), "stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1)}


def check_places(plan: Plan, machine: Machine) -> None:
    """Every buffer lies inside its memory, and away from those that live while it does."""
    capacity = {
        "hbm": machine.hbm_bytes_per_die,
        "l2": machine.spcs_per_die * (machine.spc_sram_bytes - plan.tensor_buffer_bytes),
        "tb": plan.tensor_buffer_bytes,
    }
    spans = lifetimes(plan)
    forever = (0, len(plan.steps))
    for buffer in plan.buffers:
        assert 0 <= buffer.address <= capacity[buffer.space] - buffer.num_bytes
    for one, other in itertools.combinations(plan.buffers, 2):
        if one.space != other.space:
            continue
        apart = one.address + one.num_bytes <= other.address or other.address + other.num_bytes <= one.address
        first, second = (spans.get(b.name, forever) if b.role == "scratch" else forever for b in (one, other))
        assert apart or first[1] < second[0] or second[1] < first[0], (one, other)


@pytest.mark.parametrize("target", ["br100", "tiny"])
@pytest.mark.parametrize("name", EXPORTED)
def test_buffers_of_networks_do_not_overlap(name: str, target: str) -> None:
    graph = import_model(exported_network(name).model)
    for compiled in compiled_plans(graph, target):
        check_places(compiled.plan, compiled.machine)


def big_images(make: GraphMaker) -> str:
    """Activations of 400 KB: more than all the SRAM of `tiny`."""
    x = make.input(1, 64, 40, 40)
    pooled = make("max_pool2d", x, **POOL)
    deeper = make("conv2d", pooled, make.random(64, 64, 1, 1), stride=(1, 1), pads=(0,) * 4, dilation=(1, 1), group=1)
    return make("max_pool2d", make("relu", deeper), **POOL)


def long_sequence(make: GraphMaker) -> str:
    """Scores of 512 by 512."""
    x = make.input(512, 32)
    scores = make("matmul", x, make("transpose", make.input(512, 32), perm=(1, 0)))
    return make("matmul", make("softmax", scores, axis=1), x)


@pytest.mark.parametrize("build", [big_images, long_sequence], ids=lambda build: build.__name__)
def test_what_does_not_fit_the_chip_spills_and_is_right(build: Callable[[GraphMaker], str]) -> None:
    make = GraphMaker()
    graph = make.graph(build(make))
    on_tiny, on_br100 = compile_graph(graph, "tiny"), compile_graph(graph, "br100")
    assert not scratch_in_hbm(on_br100)
    assert scratch_in_hbm(on_tiny)
    inputs = random_inputs(graph)
    (expected,) = run_graph(graph, inputs).values()
    for compiled in (on_tiny, on_br100):
        check_places(compiled.plan, compiled.machine)
        compiled.verify()
        (actual,) = compiled.values(inputs).values()
        assert relative_error(actual, expected) <= 2e-3


def scratch_in_hbm(compiled: Compiled) -> list[str]:
    """Intermediate tensors that lie in HBM."""
    return [b.name for b in compiled.plan.buffers if b.role == "scratch" and b.space == "hbm"]


def test_weights_that_do_not_fit_are_read_from_hbm() -> None:
    make = GraphMaker()
    graph = make.graph(make("matmul", make.input(3, 300), make.random(300, 300)))
    compiled = compile_graph(graph, "tiny")
    assert not [b for b in compiled.plan.buffers if b.home]
    twins = [b for b in compile_graph(graph, "br100").plan.buffers if b.home]
    assert [b.space for b in twins] == ["l2"]


def test_too_little_hbm_is_an_error_with_names_and_sizes() -> None:
    make = GraphMaker()
    graph: Graph = make.graph(make("neg", make.input(1000, 1000)))
    machine = replace(load_machine("tiny"), hbm_bytes_per_die=1 << 20)
    compiled = compile_graph(graph, "tiny")
    with pytest.raises(DoesNotFitError, match=r"needs \d+ B of HBM"):
        allocate(compiled.plan, machine)


def test_compilation_is_deterministic() -> None:
    model = exported_network("mobilenet_v2").model
    assert compile_network(model, "tiny").program == compile_network(model, "tiny").program


blocks = st.tuples(st.integers(1, 40), st.integers(0, 10), st.integers(0, 10))


@settings(deadline=None)
@given(st.lists(blocks, max_size=30), st.integers(40, 200))
def test_arena_keeps_blocks_apart(requests: list[tuple[int, int, int]], capacity: int) -> None:
    arena = Arena(capacity)
    placed: list[tuple[int, int, int, int]] = []
    for num_bytes, one, other in requests:
        first, last = min(one, other), max(one, other)
        address = arena.place(num_bytes, first, last)
        living = [block for block in placed if block[2] <= last and first <= block[3]]
        if address is None:
            edges = sorted({0, *(end for _, end, _, _ in living)})
            assert not any(_is_free(edge, edge + num_bytes, capacity, living) for edge in edges)
        else:
            assert _is_free(address, address + num_bytes, capacity, living)
            placed.append((address, address + num_bytes, first, last))
    assert arena.peak_bytes == max((end for _, end, _, _ in placed), default=0)


def _is_free(start: int, end: int, capacity: int, living: list[tuple[int, int, int, int]]) -> bool:
    return end <= capacity and all(end <= low or high <= start for low, high, _, _ in living)
