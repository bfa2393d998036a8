"""Products with weights near: columns of a row pass through fewer slots than there are columns, and values stay."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from graph_maker import GraphMaker
from near import Planned, behind_others, planned, whole_numbers
from pipeline import Compiled

from birc.codegen.program_code import generate
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import Kernel, KernelStep, Plan
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.ir.plan_verify_tiling import may_pass_columns
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.tile import memories_of
from birc.compiler.passes.tile_contraction import TiledDepth, contraction_tilings
from birc.compiler.prove import new_prover
from birc.runtime.machine import Machine, load_machine

FOUR = load_machine("tiny").with_values({"spcs_per_die": 4})
TILE_BYTES = 16 * 64 * 4
"""Of weights: as deep as the product, or half as deep."""


def graph_of(rows: int, depth: int, columns: int) -> Graph:
    make = GraphMaker()
    x = behind_others(make, make.input(rows, depth))
    return make.graph(make("matmul", x, make.constant(whole_numbers(depth, columns))))


@cache
def by_rows(depth: int, slots: int) -> tuple[Graph, Planned, Compiled]:
    """A product of which every SPC has some rows, and all columns near, in an input buffer with so many slots."""
    graph = graph_of(16, depth, 1024 * 16 // depth)
    machine = FOUR.with_values({"gib_b_bytes": slots * TILE_BYTES})
    one = next(one for one in planned(graph, machine) if one.plan.repeat == 1)
    _, offers = next((kernel, offers) for kernel, offers in one.ways() if kernel.dimension("m").extent == 4)
    return graph, one, one.near(offers)


def product(found: Compiled) -> Kernel:
    (kernel, *_) = (k for k in found.kernels if k.contraction is not None and k.has_own_parts)
    return kernel


def columns_of(tiled: TiledDepth, kernel: Kernel) -> int:
    """Tiles of columns of a row that stay, or pass: of each as many as the depth has steps that are there at once."""
    tiling, cut = tiled.tiling, tiled.of(kernel)
    tile = dict(tiling.tile)
    steps = (-(-d.extent // tile.get(d.name, 1)) for d in cut.red_dims[len(cut.red_dims) - tiling.resident :])
    return tiling.columns * math.prod(steps)


def passing(kernel: Kernel, machine: Machine, memories: Memories) -> list[TiledDepth]:
    """The tilings of a product whose columns pass."""
    assert kernel.contraction is not None
    plain = replace(kernel, tiling=None)
    assert plain.contraction is not None
    found = contraction_tilings(plain, plain.contraction, machine, memories, 1 << 20)
    few = [tiled for tiled in found if not tiled.tiling.hoist and tiled.tiling.b_slots < columns_of(tiled, plain)]
    assert all(may_pass_columns(tiled.tiling) for tiled in few)
    return few


def with_tiling(found: Compiled, tiled: TiledDepth) -> Plan:
    """The plan with another tiling of its product with weights near."""

    def of(kernel: Kernel | None) -> Kernel | None:
        is_near = kernel is not None and kernel.contraction is not None and kernel.has_own_parts
        return tiled.of(replace(kernel, tiling=None)) if kernel is not None and is_near else kernel

    steps = [
        replace(s, kernels=tuple(map(of, s.kernels))) if isinstance(s, KernelStep) else s for s in found.plan.steps
    ]
    return replace(found.plan, steps=tuple(steps))


@pytest.mark.parametrize(("depth", "slots"), [(16, 2), (16, 3), (16, 4), (32, 4), (32, 5)])
def test_columns_pass_through_few_slots(depth: int, slots: int) -> None:
    graph, _, found = by_rows(depth, slots)
    tilings = passing(product(found), found.machine, memories_of(found.plan))
    assert tilings
    inputs = {"x0": whole_numbers(16, depth)}
    (expected,) = run_graph(graph, inputs).values()
    for tiled in tilings:
        plan = with_tiling(found, tiled)
        verify_plan(plan, "allocate", found.machine)
        assert not [*new_prover().flaws(plan, found.machine)]
        generated = generate(plan, found.machine)
        data = generated.weights(found.lowered.data)
        case = replace(found, plan=plan, program=generated.program, data=data)
        case.verify()
        for outputs in (case.values(inputs), case.step(inputs, "random", 1)):
            (value,) = outputs.values()
            np.testing.assert_array_equal(value, expected)


def test_each_passes_once_for_its_row() -> None:
    """A block of one row: of several a column would have to come again, or stay."""
    _, _, found = by_rows(16, 4)
    tilings = [tiled.tiling for tiled in passing(product(found), found.machine, memories_of(found.plan))]
    assert {tiling.rows for tiling in tilings} == {1}
    assert all(tiling.columns > tiling.b_slots == 4 for tiling in tilings)


def test_columns_from_far_stay() -> None:
    """What comes through the NoC waits longer than two slots can hide."""
    _, _, found = by_rows(16, 4)
    near = memories_of(found.plan)
    assert passing(product(found), found.machine, near)
    assert not passing(product(found), found.machine, replace(near, local=frozenset()))


def test_more_slots_than_columns_let_none_pass() -> None:
    _, _, found = by_rows(16, 32)
    assert not passing(product(found), found.machine, memories_of(found.plan))


def test_fewer_than_two_slots_a_column_let_none_pass() -> None:
    """While one is multiplied the next is loaded."""
    _, _, found = by_rows(16, 1)
    assert not passing(product(found), found.machine, memories_of(found.plan))
