"""Columns of which the other die needs some are dealt out so that the link is never long behind the T-cores."""

from __future__ import annotations

from dataclasses import replace

import pytest

from birc.compiler.ir.plan import PAR, RED, Access, Contraction, Dimension, Index, Kernel, Phase, Statement, View
from birc.compiler.kernel_clock import KernelClock
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.tile import tiled
from birc.runtime.machine import load_machine
from birc.runtime.timing.kernels import KernelTimer

MACHINE = load_machine("br100")
ROWS, DEPTH, COLUMNS, PART = 512, 768, 2304, 384
PLACES = Memories({"x": "bf16", "w": "bf16", "t": "bf16"}, frozenset(), constants=frozenset({"w"}))


def product(*away: View) -> Kernel:
    """Some rows times weights, all stored here and some views of it on the other die."""
    space = (Dimension("m", ROWS, PAR), Dimension("n", COLUMNS, PAR), Dimension("k0", DEPTH, RED))
    m, n, k = (Index(((d.name, 1),)) for d in space)
    contraction = Contraction(
        Access(View("x", 0, (ROWS, DEPTH), (DEPTH, 1)), (m, k)),
        Access(View("w", 0, (DEPTH, COLUMNS), (COLUMNS, 1)), (k, n)),
        1, 1, ("m",), ("n",), "bf16",
    )  # fmt: skip
    stores = (Statement("vst", "", ("v0",), Access(view, (m, n))) for view in (*away, stored()))
    return Kernel("product", space, (Phase((Statement("vacc", "v0"), *stores)),), contraction)


def stored(first: int = 0, columns: int = COLUMNS, *, away: bool = False) -> View:
    """The columns of the result from the first one on."""
    return View("t", 0, (ROWS, columns), (COLUMNS, 1), (0, first) if first else (), away=away)


def best(kernel: Kernel) -> Kernel:
    clock = KernelClock(KernelTimer(MACHINE))
    return tiled(kernel, MACHINE, PLACES, {}, clock.cycles)


def cycles(kernel: Kernel) -> int:
    return KernelClock(KernelTimer(MACHINE)).cycles(kernel, PLACES, MACHINE)


@pytest.mark.parametrize("die", [0, 1])
def test_an_spc_has_some_of_the_columns_that_are_sent_early(die: int) -> None:
    """Queries, keys and values of half of the heads are sent: the link takes half of the kernel's time."""
    sent = (stored(part * PART, PART, away=True) for part in range(1 - die, COLUMNS // PART, 2))
    kernel = best(product(*sent))
    assert kernel.tiling is not None and kernel.tiling.deals > 1
    alone, once = best(product()), replace(kernel, tiling=replace(kernel.tiling, deals=1))
    farther = MACHINE.l2_other_die_latency_cycles - MACHINE.l2_remote_latency_cycles
    assert cycles(kernel) < cycles(alone) + 2 * farther < cycles(once)


def test_columns_that_are_all_sent_or_none_are_dealt_once() -> None:
    for kernel in (product(), product(stored(away=True))):
        tiling = best(kernel).tiling
        assert tiling is not None and tiling.deals == 1
