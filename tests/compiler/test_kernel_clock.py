"""Kernels timed alone, and what their times decide."""

from __future__ import annotations

from dataclasses import replace

import pytest
from graph_maker import GraphMaker
from pipeline import Compiled, compile_graph

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import (
    RED,
    SPC,
    Access,
    Contraction,
    Dimension,
    Index,
    Kernel,
    KernelStep,
    Phase,
    Plan,
    Statement,
    View,
)
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.tile_order import BY_COLUMNS
from birc.compiler.kernel_clock import KernelClock
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.fuse import Fuse
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.lower import lower_graph
from birc.compiler.passes.tile import MOST_TIMED, Solved, constants_of, tile, tiled
from birc.compiler.passes.tile_contraction import contraction_tilings
from birc.runtime.machine import Machine, load_machine
from birc.runtime.program import Command, Program
from birc.runtime.timing import simulate
from birc.runtime.timing.kernels import KernelTimer


@pytest.fixture(scope="module")
def product() -> Compiled:
    make = GraphMaker()
    scores = make("matmul", make.input(192, 512), make.random(512, 640))
    return compile_graph(make.graph(make("relu", scores)), "br100", "bf16")


def memories(compiled: Compiled) -> Memories:
    buffers = compiled.plan.buffers
    types, local = {b.name: b.dtype for b in buffers}, frozenset(b.name for b in buffers if b.space == "tb")
    return Memories(types, local, constants=constants_of(compiled.plan))


def test_a_kernel_alone_takes_as_long_as_in_its_program() -> None:
    """That between others, whose operands lie on the chip; by preloads its weights come as early there or earlier."""
    make = GraphMaker()
    x = make.input(192, 512)
    for depth, columns in ((512, 384), (384, 640), (640, 256)):
        x = make("relu", make("matmul", x, make.random(depth, columns)))
    compiled = compile_graph(make.graph(x), "br100", "bf16")
    machine, steps = compiled.machine, [step for step in compiled.plan.steps if isinstance(step, KernelStep)]
    inner = [kernel for kernel in steps[1].kernels if kernel is not None]

    def in_program(program: Program) -> int:
        runs = [run for run in simulate(program, machine).runs if run.name in {kernel.name for kernel in inner}]
        return max(end - start for run in runs for _, _, start, end in run.spans)

    def alone(found: Memories) -> int:
        return max(KernelClock(KernelTimer(machine)).cycles(kernel, found, machine) for kernel in inner)

    commands = (item for item in compiled.program.commands if isinstance(item, Command))
    plain = replace(compiled.program, commands=tuple(item for item in commands if item.mnemonic != "preload"))
    assert in_program(plain) == alone(replace(memories(compiled), constants=frozenset()))
    assert in_program(compiled.program) <= alone(memories(compiled))


def test_the_clock_decides_between_the_best_estimates(product: Compiled) -> None:
    kernel = product.kernels[0]
    assert kernel.contraction is not None
    best = contraction_tilings(kernel, kernel.contraction, product.machine, memories(product), MOST_TIMED)
    assert len(best) == MOST_TIMED
    for wanted in best:
        timed: list[Kernel] = []

        def clock(
            kernel: Kernel,
            _: Memories,
            __: Machine,
            ___: float,
            wanted: object = wanted.tiling,
            timed: list[Kernel] = timed,
        ) -> int:
            timed.append(kernel)
            return 0 if kernel.tiling == wanted else 1

        (step,) = (s for s in tile(product.plan, product.machine, clock=clock).steps if isinstance(s, KernelStep))
        assert step.kernel.tiling == wanted.tiling
        assert {kernel.tiling for kernel in timed} >= {other.tiling for other in best}


def test_a_deep_product_waits_little_between_its_chunks() -> None:
    """Its tiles are finished in the last chunk, and blocks end column by column or rows are shifted."""
    machine, make = load_machine("br100"), GraphMaker()
    total = make("add", make("matmul", make.input(1536, 4096), make.input(4096, 1024)), make.input(1536, 1024))
    kernel, contraction = lowered_contraction(make.graph(total))
    buffers = {a.view.buffer for a in accesses(kernel)}
    places = Memories(dict.fromkeys(buffers, "bf16"), frozenset())
    clock = KernelClock(KernelTimer(machine))
    tilings = contraction_tilings(kernel, contraction, machine, places, MOST_TIMED)
    cycles = {tiled.tiling: clock.cycles(tiled.of(kernel), places, machine) for tiled in tilings}
    best = min(cycles, key=lambda tiling: cycles[tiling])
    assert best.order == BY_COLUMNS
    tiles, chunks, steps, gap = 24, 4, 16, 68
    assert cycles[best] < 1.13 * tiles * (steps * 64 + chunks * gap)
    shifted = tiled(kernel, machine, places, {}, clock.cycles)
    assert shifted.tiling is not None
    assert shifted.tiling.order.shifted
    assert clock.cycles(shifted, places, machine) < 1.07 * tiles * (steps * 64 + chunks * gap)


def test_the_link_is_shared_by_all_spcs() -> None:
    """Also where they are known to be alike: what all store to the other die takes as long as the link."""
    rate, rows = 2, 64
    machine = load_machine("br100").with_values({"d2d_bytes_per_cycle": rate})
    spcs = machine.spcs_per_die
    space = (Dimension(SPC, spcs), *(Dimension(name, rows) for name in "mn"), Dimension("k0", rows, RED))
    spc, m, n, k = (Index(((d.name, 1),)) for d in space)
    view = View("t", 0, (spcs, rows, rows), (rows * rows, rows, 1), away=True)
    a, b = View("a", 0, view.dims, view.strides), View("b", 0, (rows, rows), (rows, 1))
    contraction = Contraction(Access(a, (spc, m, k)), Access(b, (k, n)), 2, 1, ("m",), ("n",), "bf16")
    store = Statement("vst", "", ("v0",), Access(view, (spc, m, n)))
    kernel = Kernel("sends", space, (Phase((Statement("vacc", "v0"), store)),), contraction)
    places = Memories(dict.fromkeys("abt", "bf16"), frozenset())
    num_bytes = 2 * spcs * rows * rows
    clock = KernelClock(KernelTimer(machine))
    assert clock.cycles(tiled(kernel, machine, places, {}, None), places, machine) >= num_bytes / rate


def test_what_comes_ahead_of_a_start_makes_other_loads_eager() -> None:
    """A constant b is loaded during the barrier for a: all of a's slots may fill at once, which is faster then."""
    machine, make = load_machine("br100"), GraphMaker()
    kernel, contraction = lowered_contraction(
        make.graph(make("matmul", make.input(1536, 1024), make.input(1024, 1024)))
    )
    stored = {a.view.buffer for a in accesses(kernel)}
    cold = Memories(dict.fromkeys(stored, "bf16"), frozenset())
    warm = replace(cold, constants=frozenset({contraction.b.view.buffer}))
    clock = KernelClock(KernelTimer(machine))
    solved: Solved = {}
    held, eager = (tiled(kernel, machine, places, solved, clock.cycles) for places in (cold, warm))
    assert held.tiling is not None
    assert eager.tiling is not None
    assert [held.tiling.eager, eager.tiling.eager] == [False, True]
    alike = replace(eager, tiling=replace(eager.tiling, eager=False))
    assert clock.cycles(eager, warm, machine) < clock.cycles(alike, warm, machine) <= clock.cycles(alike, cold, machine)
    near, early = replace(cold, local=frozenset({contraction.a.view.buffer})), frozenset(stored)
    assert clock.cycles(alike, replace(near, constants=warm.constants), machine) == clock.cycles(alike, near, machine)
    assert clock.cycles(alike, replace(cold, constants=early), machine) == clock.cycles(alike, cold, machine)


def lowered_contraction(graph: Graph) -> tuple[Kernel, Contraction]:
    """The only kernel of a graph in bf16, and its contraction."""
    machine = load_machine("br100")
    fused = run_passes(graph, (*LEGALIZE, Fuse(machine.tcore_cols, machine.vector_registers // 2, machine.gib_b_bytes)))
    (kernel,) = lower_graph(fused, machine, "bf16").kernels
    assert kernel.contraction is not None
    return kernel, kernel.contraction


def test_without_a_clock_the_estimate_decides(product: Compiled) -> None:
    kernel = product.kernels[0]
    assert kernel.contraction is not None
    (best,) = contraction_tilings(kernel, kernel.contraction, product.machine, memories(product), most=1)
    plan: Plan = tile(product.plan, product.machine)
    assert {k.tiling for s in plan.steps if isinstance(s, KernelStep) for k in s.kernels if k} == {best.tiling}
