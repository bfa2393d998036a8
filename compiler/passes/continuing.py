"""Products that are parts of one go on as one kernel of the machine (plan_continuing.py)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from birc.compiler.ir.plan import Buffer, KernelStep, Plan, Step
from birc.compiler.ir.plan_continuing import continuing_problems
from birc.compiler.passes.lifetimes import touched


def continuing(plan: Plan) -> Plan:
    """The allocated plan in which products continue those before them where they can; the same one if none does.

    What waits for its own copy of weights may be better off alone: the caller compares.
    """
    steps, buffers = list(plan.steps), {b.name: b for b in plan.buffers}
    start = 0  # of the kernel of the machine so far
    for number in range(1, len(steps)):
        step = steps[number]
        if isinstance(step, KernelStep) and not (step.beside or step.follows):
            whole = [*steps[start:number], replace(step, continues=True)]
            live = _live_throughout(whole, range(start, number + 1), buffers)
            if live and not any(True for _ in continuing_problems(whole)):
                steps[number] = whole[-1]
                continue
        start = number
    return replace(plan, steps=tuple(steps)) if any(map(_continues, steps)) else plan


def _live_throughout(steps: Iterable[Step], numbers: range, buffers: Mapping[str, Buffer]) -> bool:
    """Whether what steps touch has its place in all of them: they run at the same time."""
    used = [buffers[name] for name in set().union(*map(touched, steps))]
    return all(b.first <= numbers[0] and numbers[-1] <= b.last for b in used)


def _continues(step: object) -> bool:
    return isinstance(step, KernelStep) and step.continues
