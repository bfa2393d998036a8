"""Two rounds of samples at a time, one a few kernels behind the other: its windows go beside the other's products.

Where every SPC takes samples of its own through the network, the T-core waits while the vector cores fold the windows
of a depthwise convolution, and they wait for the most part while it multiplies. What is done for one sample needs
nothing of another one: a kernel of one round and a kernel of the next, of which one alone multiplies, are executed side
by side (plan_beside.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from birc.compiler.ir.plan import SPC, Kernel, KernelStep, Plan
from birc.compiler.passes.chunk import constant_bytes
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.lifetimes import instances
from birc.compiler.passes.per_sample import tensor_buffer_bytes
from birc.compiler.passes.segments import Segments, in_segments
from birc.compiler.passes.tile import memories_of
from birc.runtime.machine import Machine

Busy = Callable[[Kernel, Memories], tuple[int, int]]
"""The cycles of a kernel that is not tiled yet, by its best tiling, and those in which the ALU works."""

Turn = tuple[int | None, int | None]
"""The next step of the first round and that of the second; None for one that waits."""

MOVES: Final = ((1, 0), (0, 1), (1, 1))
"""How many steps further each round is after a turn."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a step takes: cycles, and those of them in which the ALU works.

    It may be a product, and each SPC may have samples of its own in it. Two steps of which each SPC has its own can be
    executed side by side if one alone multiplies.
    """

    cycles: int
    alu_cycles: int
    multiplies: bool
    is_own: bool


def side_by_side(plan: Plan, machine: Machine, busy: Busy) -> Plan | None:
    """The plan with two rounds at a time; None where it has none, or there is no room for two, or nothing is gained."""
    steps = [step for step in plan.steps if isinstance(step, KernelStep)]
    if plan.repeat % 2 or not plan.tensor_buffer_bytes or len(steps) < len(plan.steps):
        return None
    if len({_multiplies(step) for step in steps if _is_own(step, machine)}) < 2:
        return None  # no two can be executed side by side
    memories = memories_of(plan)
    order = turns([_work(step, memories, busy, machine) for step in steps], machine)
    if all(None in turn for turn in order):
        return None
    both = in_segments(plan, 2, Segments((len(steps),), 0))
    result = replace(both, steps=tuple(_steps(both, order)))
    local = tuple(b for b in result.buffers if b.space == "tb")
    room = tensor_buffer_bytes(replace(result, buffers=local))
    if room + constant_bytes(result) // machine.spcs_per_die > machine.spc_sram_bytes:
        return None
    return replace(result, tensor_buffer_bytes=room)


def _work(step: KernelStep, memories: Memories, busy: Busy, machine: Machine) -> Work:
    taken = [busy(kernel, memories) for kernel in step.distinct]
    return Work(max(c for c, _ in taken), max(a for _, a in taken), _multiplies(step), _is_own(step, machine))


def _multiplies(step: KernelStep) -> bool:
    return step.kernel.contraction is not None


def _is_own(step: KernelStep, machine: Machine) -> bool:
    """Whether each SPC has samples of its own."""
    return all((k.space[0].name, k.space[0].extent) == (SPC, machine.spcs_per_die) for k in instances(step))


def turns(works: Sequence[Work], machine: Machine) -> list[Turn]:
    """The order in which the steps of two rounds take least: one of either, or one of each side by side.

    The fastest way to have done so many steps of each goes over a fastest way to have done one less of one or of both.
    """
    count = len(works)
    before = _last_moves(works, machine)
    found: list[Turn] = []
    one = other = count
    while one or other:
        first, second = MOVES[before[one, other]]
        one, other = one - first, other - second
        found.append((one if first else None, other if second else None))
    return found[::-1]


def _last_moves(works: Sequence[Work], machine: Machine) -> np.ndarray:
    """The number of the move that is the last one of the fastest way to have done so many steps of each round.

    Of moves that are equally fast it is the first. Ways of as many steps of both rounds together are found at once.
    """
    count = len(works)
    cycles, alu = (np.array(of) for of in ([w.cycles for w in works], [w.alu_cycles for w in works]))
    alone = np.maximum(cycles, alu)
    own, multiplies = (np.array(of) for of in ([w.is_own for w in works], [w.multiplies for w in works]))
    before = np.zeros((count + 1, count + 1), np.int8)
    barrier = machine.spc_barrier_cycles
    # By steps done of the first round: the cycles of the fastest ways of one step less together, and of two less.
    least, earlier = (np.full(count + 1, np.inf) for _ in range(2))
    least[0] = 0
    for total in range(1, 2 * count + 1):
        one = np.arange(max(0, total - count), min(total, count) + 1)
        other = total - one
        first, second = np.maximum(one - 1, 0), np.maximum(other - 1, 0)
        together = np.maximum(np.maximum(cycles[first], cycles[second]), alu[first] + alu[second])
        may = (one > 0) & (other > 0) & own[first] & own[second] & (multiplies[first] != multiplies[second])
        ways = np.stack(
            (
                np.where(one > 0, least[first] + alone[first], np.inf),
                np.where(other > 0, least[one] + alone[second], np.inf),
                np.where(may, earlier[first] + together, np.inf),
            )
        )
        moves = np.argmin(ways, axis=0)
        before[one, other] = moves
        earlier, least = least, np.full(count + 1, np.inf)
        least[one] = ways[moves, np.arange(len(one))] + barrier
    return before


def _steps(both: Plan, order: Sequence[Turn]) -> Iterator[KernelStep]:
    """The steps of both rounds, which stand one after the other, in turns."""
    steps = [step for step in both.steps if isinstance(step, KernelStep)]
    count = len(steps) // 2
    for first, second in order:
        if first is not None:
            yield steps[first]
        if second is not None:
            yield replace(steps[count + second], beside=first is not None)
