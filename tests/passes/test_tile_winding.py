"""Rows that wind through a depth a little too deep for the input buffer: it is offered there, and is faster."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from graph_maker import GraphMaker
from pipeline import Compiled, compile_graph
from small_networks import CONV

from birc.compiler.ir.plan import Kernel
from birc.compiler.ir.plan_spread import spreads
from birc.compiler.ir.plan_winding import winds_through_depth
from birc.compiler.kernel_clock import KernelClock
from birc.compiler.passes.tile import memories_of, tiled
from birc.compiler.passes.tile_contraction import TiledDepth, contraction_tilings
from birc.runtime.timing.kernels import KernelTimer

MOST = 100
"""More tilings than there are of one product."""


def convolution(images: int, channels: int, side: int) -> tuple[Compiled, Kernel]:
    """A convolution with 3 x 3 taps, and its kernel: of 256 channels a tile of the weights takes 288 KB."""
    make = GraphMaker()
    weights = np.ones((channels, channels, 3, 3), np.float32)
    graph = make.graph(make("conv2d", make.input(images, channels, side, side), make.constant(weights), **CONV))
    compiled = compile_graph(graph, "br100", "bf16")
    return compiled, next(kernel for kernel in compiled.kernels if kernel.contraction is not None)


def tilings(compiled: Compiled, kernel: Kernel) -> list[Kernel]:
    """The kernel by each of its tilings."""
    assert kernel.contraction is not None
    found = contraction_tilings(kernel, kernel.contraction, compiled.machine, memories_of(compiled.plan), MOST)
    return [one.of(kernel) for one in found if isinstance(one, TiledDepth)]


def winds(kernel: Kernel) -> bool:
    return kernel.tiling is not None and winds_through_depth(kernel, kernel.tiling)


def tiles(kernel: Kernel) -> int:
    """The tiles of an SPC."""
    assert kernel.tiling is not None
    spread = spreads(kernel, kernel.tiling)
    return math.prod(spread[d.name].share for d in kernel.par_dims)


@pytest.mark.parametrize(("channels", "is_offered"), [(128, False), (256, True), (512, False)])
def test_it_is_offered_where_a_depth_is_a_little_too_deep(channels: int, is_offered: bool) -> None:
    """Weights that fit are there for all rows; of those twice as deep most would have to come for each of them."""
    compiled, kernel = convolution(8, channels, 14)
    assert any(map(winds, tilings(compiled, kernel))) == is_offered


def test_it_saves_more_than_half_of_the_second_sums() -> None:
    """In chunks a tile has two sums, and between two sums the T-core waits until the first one is drained."""
    compiled, kernel = convolution(8, 256, 14)
    machine, memories = compiled.machine, replace(memories_of(compiled.plan), far=frozenset())
    clock = KernelClock(KernelTimer(machine))
    best = tiled(kernel, machine, memories, {}, clock.cycles)
    assert winds(best)
    in_chunks = min(clock.cycles(one, memories, machine) for one in tilings(compiled, kernel) if not winds(one))
    assert in_chunks - clock.cycles(best, memories, machine) > tiles(best) * machine.tile_gap_cycles() // 2
