"""Copies of constants that come long before their use begin together, where nothing waits for one.

Each copy to where a kernel was at work has the command processor wait for that kernel, which takes longer than the
flags by which SPCs wait for each other. One wait is enough for several copies, and where the SPCs of both dies meet,
which takes longest, it costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from birc.compiler.ir.plan import Buffer, CopyStep, ExchangeStep, KernelStep, Plan, Step
from birc.compiler.passes.lifetimes import users

PART_OF_TIME: Final = 2
"""A copy is put off by no more than this part of the kernels until it is needed."""


def gather_copies(plan: Plan) -> Plan:
    """The allocated plan in which copies of constants are put off to begin with others."""
    needed = _needed(plan)
    if plan.repeat > 1 or not needed:
        return plan
    order: list[int] = []
    waiting: dict[int, int] = {}  # copies by number, and the kernels that may come before
    gap: list[int] = []
    for number, step in enumerate(plan.steps):
        if number in needed:
            waiting[number] = needed[number]
        elif not isinstance(step, KernelStep):
            gap.append(number)
        else:
            meets = any(isinstance(s, ExchangeStep) and s.stored for s in (plan.steps[n] for n in gap))
            if not (step.beside or step.follows) and (meets or 0 in waiting.values()):
                gap += waiting
                waiting = {}
            order += [*gap, number]
            waiting = {copy: max(0, kernels - 1) for copy, kernels in waiting.items()}
            gap = []
    return _in_order(plan, [*order, *waiting, *gap])


def _needed(plan: Plan) -> dict[int, int]:
    """The copies that may begin later, by number, and how many kernels later at most."""
    uses = users(plan)
    homes = {buffer.name for buffer in plan.buffers if buffer.role == "constant"}
    found = {}
    for number, step in enumerate(plan.steps):
        if isinstance(step, CopyStep) and step.source in homes and not step.resident:
            first = min((use for use in uses[step.target] if use > number), default=number)
            between = sum(isinstance(s, KernelStep) for s in plan.steps[number:first])
            found[number] = between // PART_OF_TIME
    return {number: kernels for number, kernels in found.items() if kernels}


def _in_order(plan: Plan, order: Sequence[int]) -> Plan:
    """The plan with its steps in another order, and lifetimes that are right there."""
    places = {number: place for place, number in enumerate(order)}
    steps: list[Step] = [plan.steps[number] for number in order]

    def moved(buffer: Buffer) -> Buffer:
        return replace(buffer, first=places.get(buffer.first, -1), last=places.get(buffer.last, -1))

    return replace(plan, steps=tuple(steps), buffers=tuple(map(moved, plan.buffers)))
