"""Columns that go past rows which stay may begin row by row: the rows beyond the first come meanwhile (tile_order.py).

What this gains depends on how many of the columns are there when the first row is: their loads begin before the kernel
does, as soon as the one before it has no more for the T-core to do.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import replace
from typing import Final

from birc.compiler.ir.depth_steps import depth_steps
from birc.compiler.ir.kernel_form import form_of
from birc.compiler.ir.plan import TILE, Kernel, KernelStep, Plan
from birc.compiler.ir.plan_beside import together
from birc.compiler.ir.plan_verify_tiling import tiling_problems
from birc.compiler.ir.tile_order import IN_TURN, OPENING
from birc.runtime.machine import Machine

MOST_FORMS: Final = 8
"""Forms of products that are tried: for each the whole program is simulated once more."""


def forms_that_open(plan: Plan, machine: Machine) -> list[Hashable]:
    """The forms of the products of a tiled plan whose columns can begin row by row, a few of them."""
    found = {_form(step): None for _, step in _alone(plan) if _opened(step, machine) is not step}
    return list(found)[:MOST_FORMS]


def opening(plan: Plan, machine: Machine, form: Hashable) -> Plan:
    """The tiled plan in which the columns of all products of a form begin row by row. The caller compares.

    Products that are one kernel of the machine with others stay as they are.
    """
    steps = list(plan.steps)
    for number, step in _alone(plan):
        if _form(step) == form:
            steps[number] = _opened(step, machine)
    return replace(plan, steps=tuple(steps))


def _alone(plan: Plan) -> Iterator[tuple[int, KernelStep]]:
    """The steps that run one kernel, by number."""
    for group in together(plan.steps):
        step = plan.steps[group.start]
        if len(group) == 1 and isinstance(step, KernelStep):
            yield group.start, step


def _form(step: KernelStep) -> Hashable:
    return form_of(*step.kernels, offset=lambda _: 0).key


def _opened(step: KernelStep, machine: Machine) -> KernelStep:
    """The step with the columns of its kernels in that order; itself where they may not be."""
    kernels = tuple(kernel and _with_order(kernel, machine) for kernel in step.kernels)
    return step if kernels == step.kernels else replace(step, kernels=kernels)


def _with_order(kernel: Kernel, machine: Machine) -> Kernel:
    """The first of the columns behind has a slot: if there were more, columns would come while rows have to."""
    tiling = kernel.tiling
    if tiling is None or kernel.contraction is None or tiling.order != IN_TURN or tiling.hoist != "a":
        return kernel
    b_slots = min(tiling.b_slots, tiling.rows * depth_steps(kernel, tiling) + 1)
    changed = replace(kernel, tiling=replace(tiling, order=OPENING, eager=False, b_slots=b_slots))
    may_open = tiling.turns == TILE and not any(True for _ in tiling_problems(changed, machine))
    return changed if may_open else kernel
