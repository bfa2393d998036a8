"""Kernels side by side: a product and a kernel of the vector cores alone that each SPC executes at the same time.

The T-core multiplies for the one while the lanes work for the other. Both are one kernel of the machine: each has
vector programs and registers of its own, and neither touches what the other one writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from birc.compiler.ir.plan import FillStep, Kernel, KernelStep, Plan, Step
from birc.runtime.machine import Machine

PRODUCT_PROGRAMS = 5 / 7
"""Share of the vector programs that finishes the tiles of the product."""
PRODUCT_REGISTERS = 4 / 8
"""Share of the registers that these programs have: a window keeps more values at a time than what follows a product."""


def together(steps: Sequence[Step], start: int = 0) -> Iterator[range]:
    """The numbers of the steps that are one kernel: those beside, following or continuing a step with it, others alone.

    They begin with that number.
    """
    for number in range(start + 1, len(steps) + 1):
        step = steps[number] if number < len(steps) else None
        if not (isinstance(step, KernelStep) and (step.beside or step.follows or step.continues)):
            yield range(start, number)
            start = number


def spans(plan: Plan, uses: dict[str, list[int]]) -> dict[str, tuple[int, int]]:
    """The first and last step in which each buffer lives: steps that run at the same time have the same buffers.

    Of products that follow each other, pair behind pair, the rows that one pair passes on live in its steps alone.
    What tensor buffers are filled from lives until somebody has waited for that.
    """
    uses = _until_filled(plan.steps, uses)
    groups = {number: group for group in together(plan.steps) for number in group}
    pairs = {name: range(number - 1, number + 1) for number, name in _passed(plan.steps, groups)}
    found = {}
    for name, steps in uses.items():
        first, last = groups[steps[0]], groups[steps[-1]]
        of_pair = pairs.get(name)
        is_own = of_pair is not None and all(step in of_pair for step in steps)
        found[name] = (of_pair.start, of_pair.stop - 1) if of_pair and is_own else (first.start, last.stop - 1)
    return found


def _until_filled(steps: Sequence[Step], uses: dict[str, list[int]]) -> dict[str, list[int]]:
    """The uses of buffers, of those that tensor buffers are filled from also the first one of what was filled."""
    found = dict(uses)
    for number, step in enumerate(steps):
        if isinstance(step, FillStep) and step.source.buffer in uses and step.target.buffer in uses:
            later = (use for use in uses[step.target.buffer] if use > number and not isinstance(steps[use], FillStep))
            awaited = next(later, number)
            found[step.source.buffer] = sorted([*found[step.source.buffer], awaited])
    return found


def _passed(steps: Sequence[Step], groups: Mapping[int, range]) -> Iterator[tuple[int, str]]:
    """The second steps of pairs of products that follow each other, and the rows that the first one passes on."""
    for number, step in enumerate(steps):
        if isinstance(step, KernelStep) and step.follows and (number - groups[number].start) % 2:
            contraction = step.kernel.contraction
            if contraction is not None:
                yield number, contraction.a.view.buffer


def products_share(machine: Machine) -> tuple[int, int]:
    """The vector programs and the registers of the product: the first ones of an SPC."""
    return round(PRODUCT_PROGRAMS * machine.vector_programs), round(PRODUCT_REGISTERS * machine.vector_registers)


def share_of(machine: Machine, kernel: Kernel) -> Machine:
    """The machine as a kernel sees it that runs side by side with another one."""
    programs, registers = products_share(machine)
    if kernel.contraction is None:
        programs, registers = machine.vector_programs - programs, machine.vector_registers - registers
    digest = f"{machine.digest} {programs} {registers}"
    return replace(machine, digest=digest, vector_programs=programs, vector_registers=registers)


def seen_by_steps(plan: Plan, machine: Machine) -> Iterator[Machine]:
    """For each step the machine as its kernels see it."""
    for group in together(plan.steps):
        for number in group:
            step = plan.steps[number]
            yield share_of(machine, step.kernel) if _share(plan, group) and isinstance(step, KernelStep) else machine


def _share(plan: Plan, group: range) -> bool:
    """Whether steps have parts of an SPC each: those that continue others have all of it in turn."""
    last = plan.steps[group.stop - 1]
    return len(group) > 1 and not (isinstance(last, KernelStep) and last.continues)
