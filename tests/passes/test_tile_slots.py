"""Slots of the input buffers: fewer are taken where that is measured faster, and never too few."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from graph_maker import GraphMaker
from pipeline import Compiled, compile_graph
from small_networks import CONV

from birc.codegen.program_code import generate
from birc.compiler.ir.plan import Kernel, KernelStep, Plan, Step, Tiling
from birc.compiler.ir.plan_verify_tiling import tiling_problems
from birc.compiler.kernel_clock import KernelClock
from birc.compiler.passes.tile import MOST_TIMED, memories_of
from birc.compiler.passes.tile_contraction import TiledDepth, contraction_tilings
from birc.compiler.passes.tile_slots import LEAST_CYCLES, fewer_slots
from birc.runtime.timing.kernels import KernelTimer

WEIGHTS = [np.random.default_rng(seed).integers(-2, 3, (256, 256, 3, 3)).astype(np.float32) for seed in (0, 1)]


@cache
def convolutions() -> Compiled:
    """Two convolutions whose weights do not fit into the input buffer: they come in chunks."""
    make = GraphMaker()
    inner = make("relu", make("conv2d", make.input(4, 256, 14, 14), make.constant(WEIGHTS[0]), **CONV))
    return compile_graph(make.graph(make("conv2d", inner, make.constant(WEIGHTS[1]), **CONV)), "br100", "bf16")


def expected(x: np.ndarray) -> np.ndarray:
    """The network in double precision."""
    for weights in WEIGHTS:
        padded = np.pad(np.maximum(x, 0) if weights is WEIGHTS[1] else x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        taps = [(padded[:, :, r : r + 14, s : s + 14], weights[:, :, r, s]) for r in range(3) for s in range(3)]
        x = sum(np.einsum("nchw,oc->nohw", pixels, weight, optimize=True) for pixels, weight in taps)
    return x


def product(case: Compiled) -> tuple[Kernel, TiledDepth]:
    """The last convolution, and of its tilings in chunks of the depth the one with the best estimate."""
    kernel = [kernel for kernel in case.kernels if kernel.contraction is not None][-1]
    assert kernel.contraction is not None
    tilings = contraction_tilings(kernel, kernel.contraction, case.machine, memories_of(case.plan), MOST_TIMED)
    return kernel, next(tiled for tiled in tilings if tiled.tiling.resident < len(kernel.red_dims))


def _with_kernel(plan: Plan, old: Kernel, new: Kernel) -> Plan:
    def changed(step: Step) -> Step:
        if not isinstance(step, KernelStep):
            return step
        return replace(step, kernels=tuple(new if kernel == old else kernel for kernel in step.kernels))

    return replace(plan, steps=tuple(map(changed, plan.steps)))


def slots(tiling: Tiling) -> tuple[int, int]:
    return tiling.a_slots, tiling.b_slots


def test_the_least_measured_wins_for_one_operand_after_the_other() -> None:
    case = convolutions()
    kernel, chosen = product(case)
    tried: list[tuple[int, int]] = []

    def cycles(tiled: TiledDepth, _: float = math.inf) -> int:
        tried.append(slots(tiled.tiling))
        a, b = slots(tiled.tiling)
        return LEAST_CYCLES + 100 * abs(a - 4) + abs(b - 12)

    found = fewer_slots(kernel, chosen, cycles(chosen), case.machine, cycles)
    assert slots(found.tiling) == min(tried, key=lambda s: (abs(s[0] - 4), abs(s[1] - 12)))
    assert len(tried) > 4
    for a, b in tried:
        assert 1 <= a <= chosen.tiling.a_slots
        assert 1 <= b <= chosen.tiling.b_slots
    assert not list(tiling_problems(found.of(kernel), case.machine))


@pytest.mark.parametrize(("least", "is_tried"), [(LEAST_CYCLES - 1, False), (LEAST_CYCLES, True)])
def test_short_kernels_keep_their_slots(least: int, is_tried: bool) -> None:
    case = convolutions()
    kernel, chosen = product(case)
    calls: list[TiledDepth] = []

    def cycles(tiled: TiledDepth, _: float = math.inf) -> int:
        calls.append(tiled)
        return least

    assert fewer_slots(kernel, chosen, least, case.machine, cycles) == chosen
    assert bool(calls) == is_tried


def test_fewer_slots_are_faster_and_the_values_right() -> None:
    case = convolutions()
    kernel, chosen = product(case)
    clock = KernelClock(KernelTimer(case.machine))

    def cycles(tiled: TiledDepth, most: float = math.inf) -> int:
        return clock.cycles(tiled.of(kernel), memories_of(case.plan), case.machine, most)

    found = fewer_slots(kernel, chosen, cycles(chosen), case.machine, cycles)
    assert cycles(found) < cycles(chosen)
    assert slots(found.tiling) < slots(chosen.tiling)
    timed = _with_kernel(case.plan, kernel, found.of(kernel))
    changed = replace(case, plan=timed, program=generate(timed, case.machine).program)
    changed.verify()
    x = np.random.default_rng(2).integers(-1, 2, (4, 256, 14, 14)).astype(np.float32)
    (actual,) = changed.values({case.graph.inputs[0].name: x}).values()
    right = expected(x.astype(np.float64))
    assert np.linalg.norm(actual - right) < 2**-7 * np.linalg.norm(right)  # what lies between is rounded to BF16
