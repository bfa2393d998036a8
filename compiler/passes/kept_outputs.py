"""Outputs that products read lie on the chip, too: the kernels that make them store them twice.

Each SPC that multiplies such a tensor, rows or columns of it, would bring it from HBM again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from birc.compiler.ir.names import unused_name
from birc.compiler.ir.plan import Kernel, KernelStep, Phase, Plan, Statement, Step
from birc.compiler.ir.plan_access import accesses
from birc.compiler.passes.lifetimes import instances, reads_of, touched, users, writes_of
from birc.compiler.passes.schedule import redirect

KEPT_SUFFIX = ".kept"


def kept_outputs(plan: Plan) -> Plan:
    """The plan whose kernels read such outputs where they lie on the chip; the same one if there is none.

    A plan of several rounds has none: each part of an output is made in another round.
    """
    outputs = {b.name for b in plan.buffers if b.role == "output"} if plan.repeat == 1 else set()
    used = users(plan)
    names = outputs & _multiplied(plan)
    names = {name for name in names if _is_made_first(name, [plan.steps[number] for number in used[name]])}
    if not names:
        return plan
    taken = {b.name for b in plan.buffers}
    twins = {name: unused_name(name + KEPT_SUFFIX, taken) for name in names}
    buffers = [replace(b, name=twins[b.name], role="scratch") for b in plan.buffers if b.name in twins]
    steps = tuple(_changed(step, twins) for step in plan.steps)
    return replace(plan, buffers=(*plan.buffers, *buffers), steps=steps)


def _multiplied(plan: Plan) -> set[str]:
    """The buffers of which products read operands."""
    kernels = (kernel for step in plan.steps if isinstance(step, KernelStep) for kernel in instances(step))
    return {a.view.buffer for k in kernels if k.contraction is not None for a in k.contraction.operands}


def _is_made_first(name: str, steps: list[Step]) -> bool:
    """Whether an output is made by kernels, for their own die, before the first reads it; `steps` touch it."""
    kernels = [list(instances(step)) for step in steps if isinstance(step, KernelStep)]
    if len(kernels) < len(steps):
        return False
    reads = [any(name in reads_of(kernel) for kernel in of_step) for of_step in kernels]
    writes = [any(name in writes_of(kernel) for kernel in of_step) for of_step in kernels]
    if any(writes[reads.index(True) :]):
        return False
    return not any(a.view.away for of_step in kernels for k in of_step for a in accesses(k) if a.view.buffer == name)


def _changed(step: Step, twins: Mapping[str, str]) -> Step:
    """The step whose kernels read twins, and store there what they store in outputs."""
    if not isinstance(step, KernelStep) or touched(step).isdisjoint(twins):
        return step
    return replace(step, kernels=tuple(kernel and _with_twins(kernel, twins) for kernel in step.kernels))


def _with_twins(kernel: Kernel, twins: Mapping[str, str]) -> Kernel:
    read = {name: twin for name, twin in twins.items() if name in reads_of(kernel)}
    stored = {name: twin for name, twin in twins.items() if name in writes_of(kernel)}
    if stored:
        phases = (replace(p, statements=tuple(_stored_twice(p, stored))) for p in kernel.phases)
        kernel = replace(kernel, phases=tuple(phases))
    return redirect(kernel, read)


def _stored_twice(phase: Phase, twins: Mapping[str, str]) -> Iterator[Statement]:
    for statement in phase.statements:
        yield statement
        access = statement.access
        if access is not None and statement.op == "vst" and access.view.buffer in twins:
            view = replace(access.view, buffer=twins[access.view.buffer])
            yield replace(statement, access=replace(access, view=view))
