"""Fewer slots of the input buffers than there is room for.

A queue loads as far ahead as it has slots, and the queues share the port evenly: what one of them loads long before
its use makes the T-core wait for what the other one has to load now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from birc.compiler.ir.plan import Kernel, Tiling
from birc.compiler.ir.plan_verify_tiling import tiling_problems
from birc.compiler.passes.tile_contraction import TiledDepth
from birc.runtime.machine import Machine

LEAST_CYCLES = 1500
"""Shorter kernels mostly wait for latencies."""
SHARES = tuple(Fraction(eighths, 8) for eighths in (2, 3, 4, 6, 7))
"""Shares of an operand's slots that are tried, besides all of them and one less."""


def fewer_slots(
    kernel: Kernel, chosen: TiledDepth, least: int, machine: Machine, cycles: Callable[[TiledDepth, float], int]
) -> TiledDepth:
    """The tiling of a product with as many slots, first for one operand, then for the other, as take the least cycles.

    As it was `chosen` it takes `least` cycles. `cycles` gives those of a tiling, or some number above a limit.
    """
    if least < LEAST_CYCLES:
        return chosen
    for with_slots, slots in ((_with_a_slots, chosen.tiling.a_slots), (_with_b_slots, chosen.tiling.b_slots)):
        fewer = sorted({int(slots * share) for share in SHARES} | {slots - 1})
        for tiling in [with_slots(chosen.tiling, count) for count in fewer if count >= 1]:
            candidate = replace(chosen, tiling=tiling)
            if any(True for _ in tiling_problems(candidate.of(kernel), machine)):
                continue
            took = cycles(candidate, least - 1)
            if took < least:
                least, chosen = took, candidate
    return chosen


def _with_a_slots(tiling: Tiling, count: int) -> Tiling:
    return replace(tiling, a_slots=count)


def _with_b_slots(tiling: Tiling, count: int) -> Tiling:
    return replace(tiling, b_slots=count)
