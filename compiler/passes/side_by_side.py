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

    It may be a product, and each SPC may have samples of its own in it.
    """

    cycles: int
    alu_cycles: int
    multiplies: bool
    is_own: bool

    def may_go_beside(self, other: Work) -> bool:
        """Whether two steps can be executed side by side."""
        return self.is_own and other.is_own and self.multiplies != other.multiplies


def side_by_side(plan: Plan, machine: Machine, busy: Busy) -> Plan | None:
    """The plan with two rounds at a time; None where it has none, or there is no room for two, or nothing is gained."""
    steps = [step for step in plan.steps if isinstance(step, KernelStep)]
    if plan.repeat % 2 or not plan.tensor_buffer_bytes or len(steps) < len(plan.steps):
        return None
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
    taken = [busy(kernel, memories) for kernel in dict.fromkeys(instances(step))]
    is_own = all((k.space[0].name, k.space[0].extent) == (SPC, machine.spcs_per_die) for k in instances(step))
    return Work(max(c for c, _ in taken), max(a for _, a in taken), step.kernel.contraction is not None, is_own)


def turns(works: Sequence[Work], machine: Machine) -> list[Turn]:
    """The order in which the steps of two rounds take least: one of either, or one of each side by side.

    The fastest way to have done so many steps of each goes over a fastest way to have done one less of one or of both.
    """
    count = len(works)
    least = np.full((count + 1, count + 1), np.inf)
    before = np.zeros((count + 1, count + 1), np.int8)
    least[0, 0] = 0
    for done in np.ndindex(count + 1, count + 1):
        for number, move in enumerate(MOVES):
            cycles = _turn_cycles(works, done, move)
            if cycles is not None:
                start = done[0] - move[0], done[1] - move[1]
                total = least[start] + cycles + machine.spc_barrier_cycles
                if total < least[done]:
                    least[done], before[done] = total, number
    found: list[Turn] = []
    one = other = count
    while one or other:
        first, second = MOVES[before[one, other]]
        one, other = one - first, other - second
        found.append((one if first else None, other if second else None))
    return found[::-1]


def _turn_cycles(works: Sequence[Work], done: tuple[int, ...], move: tuple[int, int]) -> int | None:
    """What the turn takes after which so many steps are done; None when there is no such turn."""
    if any(moved > count for moved, count in zip(move, done, strict=True)):
        return None
    of_turn = [works[count - 1] for moved, count in zip(move, done, strict=True) if moved]
    if len(of_turn) > 1 and not of_turn[0].may_go_beside(of_turn[1]):
        return None
    return max(*(work.cycles for work in of_turn), sum(work.alu_cycles for work in of_turn))


def _steps(both: Plan, order: Sequence[Turn]) -> Iterator[KernelStep]:
    """The steps of both rounds, which stand one after the other, in turns."""
    steps = [step for step in both.steps if isinstance(step, KernelStep)]
    count = len(steps) // 2
    for first, second in order:
        if first is not None:
            yield steps[first]
        if second is not None:
            yield replace(steps[count + second], beside=first is not None)
