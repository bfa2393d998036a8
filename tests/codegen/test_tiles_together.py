"""Vector programs with several tiles under way together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from pipeline import Compiled

from birc.codegen.program_code import generate
from birc.compiler.ir.plan import KernelStep
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.kernel_clock import KernelClock
from birc.compiler.passes.allocate import allocate
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.fuse import Fuse
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.lower import lower_graph
from birc.compiler.passes.partition import partitions
from birc.compiler.passes.schedule import schedule
from birc.compiler.passes.tile import tile
from birc.compiler.prove import new_prover
from birc.runtime.machine import load_machine
from birc.runtime.timing.kernels import KernelTimer

MACHINE = load_machine("tiny")
ROWS, COLUMNS = 50, 96


def compiled(programs: int, together: int) -> Compiled:
    """A table read at indices, scaled, by a tiling with so many programs and tiles under way."""
    make = GraphMaker()
    indices = make.input(ROWS, element="i32")
    read = make("gather", make.constant(np.arange(7 * COLUMNS).reshape(7, COLUMNS)), indices, axis=0)
    graph = make.graph(make("relu", make("sub", read, make.input(ROWS, COLUMNS))))
    fused = run_passes(graph, (*LEGALIZE, Fuse()))
    lowered = lower_graph(fused, MACHINE, "model")
    plan = tile(partitions(fused, lowered, MACHINE)[-1], MACHINE)

    def changed(step: KernelStep) -> KernelStep:
        tiling = step.kernel.tiling
        assert tiling is not None
        small = tuple((name, min(extent, 4 if name == "d0" else COLUMNS)) for name, extent in tiling.tile)
        tiling = replace(tiling, tile=small, programs=programs, rows=together)
        return KernelStep(tuple(kernel and replace(kernel, tiling=tiling) for kernel in step.kernels))

    plan = replace(plan, steps=tuple(changed(s) if isinstance(s, KernelStep) else s for s in plan.steps))
    plan = allocate(schedule(plan, MACHINE), MACHINE)
    verify_plan(plan, "allocate", MACHINE)
    generated = generate(plan, MACHINE)
    return Compiled(fused, lowered, plan, generated.program, generated.weights(lowered.data), MACHINE)


@pytest.mark.parametrize(("programs", "together"), [(1, 2), (1, 4), (2, 3), (3, 2)])
def test_several_tiles_are_under_way(programs: int, together: int) -> None:
    """Also where they do not come out even; proved, verified, with the values of the network."""
    found = compiled(programs, together)
    found.verify()
    assert not list(new_prover().flaws(found.plan, found.machine))
    inputs = random_inputs(found.graph)
    inputs["x0"] = np.arange(ROWS, dtype=np.int32) % 7
    expected = np.maximum(np.arange(7 * COLUMNS).reshape(7, COLUMNS)[inputs["x0"]] - inputs["x1"].astype(np.float64), 0)
    for outputs in (found.step(inputs, "random"), found.values(inputs)):
        (actual,) = outputs.values()
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_they_wait_for_their_loads_together() -> None:
    """A program with several tiles under way is done sooner, if it is the only one."""
    timer = KernelTimer(MACHINE)

    def cycles(together: int) -> int:
        found = compiled(1, together)
        types = {b.name: b.dtype for b in found.plan.buffers}
        from_hbm = Memories(types, frozenset(), frozenset(b.name for b in found.plan.buffers if b.role == "input"))
        return max(KernelClock(timer).cycles(kernel, from_hbm, MACHINE) for kernel in found.kernels)

    assert cycles(4) < cycles(2) < cycles(1)
