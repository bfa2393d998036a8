"""What kernels take roughly: windows and special functions occupy the vector cores, and dies divide such work."""

from __future__ import annotations

import pytest
from graph_maker import GraphMaker
from pipeline import fusing

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import KernelStep
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.lower import Lowered, lower_graph
from birc.compiler.passes.partition import partition
from birc.compiler.passes.rough_cycles import KERNEL_OVERHEAD_CYCLES, kernel_cycles, least_cycles
from birc.runtime.machine import load_machine

MACHINE = load_machine("br100")
LANES = MACHINE.vector_lanes_per_spc * MACHINE.spcs_per_die
CHANNELS, SIDE, TAPS = 128, 56, 7


def window(blocks: int) -> Graph:
    """Depthwise convolutions of 7 x 7 taps behind each other, with a product of channels between them."""
    make = GraphMaker()
    x = make.input(1, CHANNELS, SIDE, SIDE)
    common = {"stride": (1, 1), "dilation": (1, 1)}
    for _ in range(blocks):
        x = make("conv2d", x, make.random(CHANNELS, CHANNELS, 1, 1), pads=(0,) * 4, group=1, **common)
        taps = make.random(CHANNELS, 1, TAPS, TAPS)
        x = make("conv2d", x, taps, pads=(TAPS // 2,) * 4, group=CHANNELS, **common)
    return make.graph(x)


def lowered(graph: Graph) -> tuple[Graph, Lowered]:
    fused = run_passes(canonicalize(graph), (*LEGALIZE, *fusing(MACHINE, "bf16")))
    return fused, lower_graph(fused, MACHINE, "bf16")


def test_a_window_takes_a_product_and_a_sum_for_each_tap() -> None:
    _, found = lowered(window(1))
    (kernel,) = (k for k in found.kernels if k.contraction is None and k.macs)
    cycles = kernel_cycles(kernel, {b.name: b for b in found.buffers}, MACHINE) - KERNEL_OVERHEAD_CYCLES
    assert cycles == 2 * CHANNELS * SIDE**2 * TAPS**2 / LANES


@pytest.mark.parametrize(("times", "op"), [(8, "exp"), (1, "relu")])
def test_special_functions_take_their_lanes(times: int, op: str) -> None:
    """Where there is little to do for the lanes a kernel takes as long as its bytes."""
    make = GraphMaker()
    x = make.input(1024, 4096)
    for _ in range(times):
        x = make(op, x)
    _, found = lowered(make.graph(x))
    (kernel,) = found.kernels
    cycles = kernel_cycles(kernel, {b.name: b for b in found.buffers}, MACHINE) - KERNEL_OVERHEAD_CYCLES
    moved = 1.5 * sum(b.num_bytes for b in found.buffers) / (MACHINE.spcs_per_die * MACHINE.noc_bytes_per_cycle)
    on_lanes = times * 1024 * 4096 / (MACHINE.sfu_lanes_per_spc * MACHINE.spcs_per_die)
    assert cycles == (moved if op == "relu" else max(moved, on_lanes))
    assert (on_lanes > moved) == (op == "exp")


def test_the_least_of_a_part_is_no_more_than_what_a_part_takes() -> None:
    _, found = lowered(window(2))
    buffers = {b.name: b for b in found.buffers}
    for kernel in found.kernels:
        assert least_cycles(kernel, MACHINE, 1) <= kernel_cycles(kernel, buffers, MACHINE)


def test_dies_divide_windows() -> None:
    """An exchange takes less than half of the taps."""
    fused, found = lowered(window(3))
    plan = partition(fused, found, MACHINE)
    windows = [s for s in plan.steps if isinstance(s, KernelStep) and s.kernel.contraction is None and s.kernel.macs]
    assert windows
    assert all(step.is_divided for step in windows)
