"""Copies of constants that come long before their use begin together, where nothing waits for one.

Each copy to where a kernel was at work has the command processor wait for that kernel, which takes longer than the
flags by which SPCs wait for each other. One wait is enough for several copies, and where the SPCs of both dies meet,
which takes longest, it costs nothing.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Final

from birc.compiler.ir.plan import CopyStep, ExchangeStep, KernelStep, Plan
from birc.compiler.passes.lifetimes import in_order, users

PART_OF_TIME: Final = 2
"""A copy is put off by no more than this part of the kernels until it is needed."""


def gather_copies(plan: Plan) -> Plan:
    """The allocated plan in which copies of constants are put off to begin with others; the same one if none is."""
    latest = _latest(plan)
    if plan.repeat > 1 or not latest:
        return plan
    order: list[int] = []
    waiting: list[int] = []  # copies
    gap: list[int] = []
    kernels, due = 0, math.inf
    for number, step in enumerate(plan.steps):
        if number in latest:
            waiting.append(number)
            due = min(due, latest[number])
        elif not isinstance(step, KernelStep):
            gap.append(number)
        else:
            meets = any(isinstance(s, ExchangeStep) and s.stored for s in (plan.steps[n] for n in gap))
            if not (step.beside or step.follows or step.continues) and (meets or due <= kernels):
                gap += waiting
                waiting, due = [], math.inf
            order += [*gap, number]
            kernels, gap = kernels + 1, []
    order += [*waiting, *gap]
    return plan if order == sorted(order) else in_order(plan, order)


def _latest(plan: Plan) -> dict[int, int]:
    """The copies that may begin later, by number, and how many kernels of the plan may be in front of them then."""
    uses = users(plan)
    homes = {buffer.name for buffer in plan.buffers if buffer.role == "constant"}
    kernels = list(accumulate((isinstance(step, KernelStep) for step in plan.steps), initial=0))  # in front of each
    found = {}
    for number, step in enumerate(plan.steps):
        if isinstance(step, CopyStep) and step.source in homes and not step.resident:
            first = min((use for use in uses[step.target] if use > number), default=number)
            later = (kernels[first] - kernels[number]) // PART_OF_TIME
            if later:
                found[number] = kernels[number] + later
    return found
