"""Halves of shared constants are sent to the other die longer before their use, where they queue for the link.

Allocation has them sent as late as one transfer alone may be. Where kernels are short and their weights are not, the
link is busy with the halves for the kernels before: all of them come in time only when they are sent further ahead.
"""

from __future__ import annotations

from typing import Final

from birc.compiler.ir.plan import CopyStep, KernelStep, Plan, ShareStep
from birc.compiler.ir.plan_beside import together
from birc.compiler.passes.lifetimes import in_order, users

KERNELS_AHEAD: Final = 8
"""So many kernels before their use halves are sent: at the time of the layer before, in most networks."""


def early_shares(plan: Plan) -> Plan:
    """The allocated plan with halves sent earlier, as soon as they are on their way; the same one if none is."""
    places = _places(plan) if plan.repeat == 1 else {}
    if not places:
        return plan
    order = sorted(range(len(plan.steps)), key=lambda n: (places.get(n, n), n not in places, n))
    return in_order(plan, order)


def _places(plan: Plan) -> dict[int, int]:
    """By step that sends halves too late the number of the one in front of which it is to come."""
    uses = users(plan)
    kernels = [g.start for g in together(plan.steps) if isinstance(plan.steps[g.start], KernelStep)]
    copied = {step.target: number for number, step in enumerate(plan.steps) if isinstance(step, CopyStep)}
    found: dict[int, int] = {}
    for number, step in enumerate(plan.steps):
        if not isinstance(step, ShareStep):
            continue
        first_use = next(use for use in uses[step.buffer] if use > number)
        before = [start for start in kernels if start <= first_use]  # the last one is, or has with it, the first use
        ahead = before[-KERNELS_AHEAD - 1] if len(before) > KERNELS_AHEAD else 0
        place = max(ahead, copied[step.buffer] + 1)
        if any(isinstance(between, KernelStep) for between in plan.steps[place:number]):
            found[number] = place
    return found
