"""Vector programs that load their next tile while they work on one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from pipeline import Compiled

from birc.codegen.program_code import generate
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import KernelStep, Tiling
from birc.compiler.ir.plan_spread import spreads
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.ir.plan_verify_tiling import tiling_problems
from birc.compiler.kernel_clock import KernelClock
from birc.compiler.passes.allocate import allocate
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.fuse import Fuse
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.lower import lower_graph
from birc.compiler.passes.partition import partitions
from birc.compiler.passes.row_parts import in_row_parts
from birc.compiler.passes.schedule import schedule
from birc.compiler.passes.tile import tile
from birc.compiler.passes.tile_vector import with_tile_ahead
from birc.compiler.prove import new_prover
from birc.runtime.machine import load_machine
from birc.runtime.timing import simulate
from birc.runtime.timing.kernels import KernelTimer

MACHINE = load_machine("tiny")
COLUMNS = 256


def compiled(graph: Graph, height: int, programs: int, parts: int = 1) -> Compiled:
    """A graph of vector kernels, with tiles of so many rows and so many programs that load ahead."""
    fused = run_passes(graph, (*LEGALIZE, Fuse()))
    lowered = lower_graph(fused, MACHINE, "model")
    plan = partitions(fused, lowered, MACHINE)[-1]

    def cut(step: KernelStep) -> KernelStep:
        return KernelStep(tuple(kernel and (in_row_parts(kernel, parts) or kernel) for kernel in step.kernels))

    def ahead(step: KernelStep) -> KernelStep:
        tiling = step.kernel.tiling
        assert tiling is not None
        small = tuple((name, height if name == "d0" else extent) for name, extent in tiling.tile)
        tiling = replace(tiling, tile=small, spcs=(("d0", 2),), programs=programs, ahead=True)
        return KernelStep(tuple(kernel and replace(kernel, tiling=tiling) for kernel in step.kernels))

    plan = replace(plan, steps=tuple(cut(s) if isinstance(s, KernelStep) else s for s in plan.steps))
    plan = tile(plan, MACHINE)
    plan = replace(plan, steps=tuple(ahead(s) if isinstance(s, KernelStep) else s for s in plan.steps))
    plan = allocate(schedule(plan, MACHINE), MACHINE)
    verify_plan(plan, "allocate", MACHINE)
    generated = generate(plan, MACHINE)
    return Compiled(fused, lowered, plan, generated.program, generated.weights(lowered.data), MACHINE)


def check(found: Compiled, inputs: dict[str, np.ndarray], expected: np.ndarray) -> None:
    """Proved, verified, with the right values in every engine, in any order of the queues."""
    found.verify()
    assert not list(new_prover().flaws(found.plan, found.machine))
    values, counts = found.values_counted(inputs)
    for outputs in (values, found.step(inputs, "random", 2)):
        (actual,) = outputs.values()
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)
    assert simulate(found.program, found.machine).counts == counts


@pytest.mark.parametrize(
    ("rows", "height", "programs", "parts"), [(24, 3, 1, 1), (24, 2, 3, 2), (45, 2, 2, 1), (46, 4, 1, 4)]
)
def test_layer_norms(rows: int, height: int, programs: int, parts: int) -> None:
    """Also where the last tiles are not full; the factors along a row are loaded once by each program."""
    make = GraphMaker()
    x = make.input(2 * rows, COLUMNS)
    scale, shift = make.input(COLUMNS), make.input(COLUMNS)
    graph = make.graph(make("layer_norm", x, scale, shift, axis=1, epsilon=1e-5))
    found = compiled(graph, height, programs, parts)
    inputs = random_inputs(graph)
    values, factors, offsets = (inputs[name].astype(np.float64) for name in ("x0", "x1", "x2"))
    centred = values - values.mean(axis=1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5) * factors + offsets
    check(found, inputs, expected)
    loads: Counter[tuple[int, ...]] = Counter()
    instructions = list(found.program.kernels[0].instructions())
    for (_, number), done in simulate(found.program, MACHINE).counts.instructions.items():
        if instructions[number].mnemonic == "vld":
            loads[tuple(axis.extent for axis in instructions[number].operands[1].axes)] += done.executions
    tiles = {extents[0]: count for extents, count in loads.items()}
    spcs, turns = 2, -(-rows // (height * programs))
    assert tiles[1] == spcs * 2 * parts * programs
    assert tiles[height] == spcs * parts * programs * turns


def test_rows_of_a_table() -> None:
    """Indices come a tile ahead, what lies there does not."""
    make, rows = GraphMaker(), 48
    indices = make.input(rows, element="i32")
    read = make("gather", make.constant(np.arange(7 * COLUMNS).reshape(7, COLUMNS)), indices, axis=0)
    graph = make.graph(make("relu", make("sub", read, make.input(rows, COLUMNS))))
    inputs = random_inputs(graph)
    inputs["x0"] = np.arange(rows, dtype=np.int32) % 7
    table = np.arange(7 * COLUMNS).reshape(7, COLUMNS)
    expected = np.maximum(table[inputs["x0"]] - inputs["x1"].astype(np.float64), 0)
    check(compiled(graph, 3, 2), inputs, expected)


def test_it_is_faster_where_loads_take_long() -> None:
    make = GraphMaker()
    weights = make.random(COLUMNS), make.random(COLUMNS)
    graph = make.graph(make("layer_norm", make.input(128, COLUMNS), *weights, axis=1, epsilon=1e-5))
    kernel = compiled(graph, 4, 2).kernels[0]
    assert kernel.tiling is not None
    buffers = {s.access.view.buffer for p in kernel.phases for s in p.statements if s.access is not None}
    places = Memories(dict.fromkeys(buffers, "f32"), frozenset())
    clock = KernelClock(KernelTimer(MACHINE))
    without = replace(kernel, tiling=replace(kernel.tiling, ahead=False))
    assert clock.cycles(kernel, places, MACHINE) < clock.cycles(without, places, MACHINE)


def test_spcs_are_shared_out_so_that_a_program_goes_along_one_dimension() -> None:
    """2 samples of 96 rows: either the two SPCs of a die have rows of both samples, or each one has a sample."""
    make = GraphMaker()
    indices = make.input(2, 96, element="i32")
    read = make("gather", make.random(7, COLUMNS), indices, axis=0)
    fused = run_passes(make.graph(make("relu", read)), (*LEGALIZE, Fuse()))
    (kernel,) = lower_graph(fused, MACHINE, "model").kernels
    samples, rows, columns = kernel.par_dims
    tiling = Tiling(((rows.name, 4), (columns.name, COLUMNS)), ((rows.name, 2),), programs=6)
    assert list(tiling_problems(replace(kernel, tiling=replace(tiling, ahead=True)), MACHINE))
    (found,) = with_tile_ahead(kernel, tiling, MACHINE)
    assert found.spcs == ((samples.name, 2),)
    assert not list(tiling_problems(replace(kernel, tiling=found), MACHINE))
    spread = spreads(kernel, found)
    assert [spread[d.name].share for d in kernel.par_dims] == [1, 24, 1]
