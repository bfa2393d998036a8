"""Tiles of kernels that turn what they move: what they take, and that values are right whatever turns."""

from __future__ import annotations

from dataclasses import replace

import pytest
from compiled_checks import check_compiled
from graph_maker import GraphMaker
from pipeline import Compiled

from birc.codegen.program_code import generate
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Kernel
from birc.compiler.ir.plan_verify_tiling import tiling_problems
from birc.compiler.kernel_clock import KernelClock
from birc.compiler.passes.allocate import allocate
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.fuse import Fuse
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.lower import lower_graph
from birc.compiler.passes.partition import partition
from birc.compiler.passes.schedule import schedule
from birc.compiler.passes.tile import tile, tiled
from birc.compiler.passes.tile_vector import INNER_SHARES, tile_vector_kernel, with_square_tiles
from birc.runtime.machine import load_machine
from birc.runtime.timing.kernels import KernelTimer

BR100 = load_machine("br100")


def turned(rows: int, columns: int, *, images: int = 1) -> Graph:
    """Matrices whose columns become rows, negated."""
    make = GraphMaker()
    return make.graph(make("neg", make("transpose", make.input(images, rows, columns), perm=(0, 2, 1))))


def kernels(graph: Graph) -> tuple[list[Kernel], Memories]:
    lowered = lower_graph(run_passes(graph, (*LEGALIZE, Fuse())), BR100, "bf16")
    return list(lowered.kernels), Memories({b.name: b.dtype for b in lowered.buffers}, frozenset())


@pytest.mark.parametrize(("rows", "columns", "gain"), [(1600, 144, 2), (4096, 64, 2), (144, 1600, 1), (100, 3000, 1)])
def test_turning_takes_less(rows: int, columns: int, gain: int) -> None:
    """A tile that is long along one dimension touches a granule for each element; short rows leave room for others."""
    (kernel, *others), memories = kernels(turned(rows, columns))
    assert not others
    clock = KernelClock(KernelTimer(BR100))
    chosen = tiled(kernel, BR100, memories, {}, clock.cycles)
    long = replace(kernel, tiling=tile_vector_kernel(kernel, BR100))
    took, took_long = (clock.cycles(one, memories, BR100, float("inf")) for one in (chosen, long))
    assert took <= took_long / gain
    assert all(extent >= 16 for extent in dict(chosen.tiling.tile).values() if extent > 1)


def test_what_lies_alike_has_none() -> None:
    make = GraphMaker()
    (kernel,), _ = kernels(make.graph(make("neg", make.input(64, 64))))
    assert not list(with_square_tiles(kernel, BR100))


@pytest.mark.parametrize("target", ["tiny", "br100"])
@pytest.mark.parametrize("shape", [(70, 33), (5, 130), (64, 64)])
def test_values(shape: tuple[int, int], target: str) -> None:
    machine = load_machine(target)
    graph = run_passes(turned(*shape, images=2), (*LEGALIZE, Fuse()))
    lowered = lower_graph(graph, machine, "model")
    plan = tile(partition(graph, lowered, machine), machine)
    for number in range(len(INNER_SHARES)):

        def square(kernel: Kernel, number: int = number) -> Kernel:
            tiling = list(with_square_tiles(kernel, machine))[number]
            assert not any(True for _ in tiling_problems(replace(kernel, tiling=tiling), machine))
            return replace(kernel, tiling=tiling)

        steps = (replace(step, kernels=tuple(k and square(k) for k in step.kernels)) for step in plan.steps)
        made = allocate(schedule(replace(plan, steps=tuple(steps)), machine), machine)
        generated = generate(made, machine)
        check_compiled(
            Compiled(graph, lowered, made, generated.program, generated.weights(lowered.data), machine), 1e-6
        )
