"""Products that are parts of one go on as one kernel of the machine (plan_continuing.py)."""

from __future__ import annotations

from dataclasses import replace

from birc.compiler.ir.plan import KernelStep, Plan
from birc.compiler.ir.plan_continuing import continuing_problems


def continuing(plan: Plan) -> Plan:
    """The allocated plan in which products continue those before them where they can; the same one if none does.

    What waits for its own copy of weights may be better off alone: the caller compares.
    """
    steps = list(plan.steps)
    start = 0  # of the kernel of the machine so far
    for number in range(1, len(steps)):
        step = steps[number]
        if isinstance(step, KernelStep) and not (step.beside or step.follows):
            whole = [*steps[start:number], replace(step, continues=True)]
            if not any(True for _ in continuing_problems(whole)):
                steps[number] = whole[-1]
                continue
        start = number
    return replace(plan, steps=tuple(steps)) if any(map(_continues, steps)) else plan


def _continues(step: object) -> bool:
    return isinstance(step, KernelStep) and step.continues
