"""Results that take the place of an operand: what is read element by element for the last time is written over.

A kernel that adds a tensor to its sums, for one, reads every element of it just before it writes the one of the result
with the same coordinates. When nothing reads that tensor later both can be one buffer. What dies send each other has
one of its own. In a chain of kernels without barriers between them another SPC may still be reading for an earlier one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

from birc.compiler.ir.kernel_form import of_buffer
from birc.compiler.ir.plan import Access, Buffer, Kernel, KernelStep, Plan, Step
from birc.compiler.ir.plan_access import accesses
from birc.compiler.passes.lifetimes import instances, lifetimes, reads_of, touched, users, writes_of
from birc.compiler.passes.schedule import redirected


def in_place(plan: Plan) -> Plan:
    """The plan with results in the buffers of operands wherever that is possible."""
    buffers = {b.name: b for b in plan.buffers}
    spans = lifetimes(plan)
    local = {b.name for b in plan.buffers if b.space == "tb"}
    sent = {name for step in plan.steps if not isinstance(step, KernelStep) for name in touched(step)}
    used = users(plan)
    firsts: dict[int, list[str]] = {}
    for name, (first, _) in spans.items():
        if name not in sent:
            firsts.setdefault(first, []).append(name)
    homes: dict[str, str] = {}
    taken: set[str] = set()
    begin = 0
    for number, step in enumerate(plan.steps):
        if local.isdisjoint(_read(step)):
            begin = number
        if not isinstance(step, KernelStep):
            continue
        for name in firsts.get(number, ()):
            # From `begin` on no barrier of the die is between: each step reads what its SPC made before.
            own = {other for other in touched(step) - sent - {name} if not _is_used(used[other], begin, number)}
            home = _operand(step, buffers[name], [buffers[other] for other in own if spans[other][1] == number])
            if home is not None and home not in taken:
                taken.add(home)
                homes[name] = homes.get(home, home)
    return _renamed(plan, homes) if homes else plan


def _is_used(users: Sequence[int], begin: int, end: int) -> bool:
    """Whether any of the steps begin <= step < end is among the users, which are in order."""
    return bisect_left(users, begin) < bisect_left(users, end)


def _read(step: Step) -> set[str]:
    return set[str]().union(*map(reads_of, instances(step))) if isinstance(step, KernelStep) else set()


def _operand(step: KernelStep, result: Buffer, last_read: Sequence[Buffer]) -> str | None:
    """Of the buffers that are not used later the one that the result can be written over; None when there is none."""
    kernels = list(instances(step))
    if result.role != "scratch" or result.space == "tb" or any(result.name not in writes_of(k) for k in kernels):
        return None
    found = (
        operand.name
        for operand in last_read
        if of_buffer(operand) == of_buffer(result)
        and all(_goes_over(kernel, operand.name, result.name) for kernel in kernels)
    )
    return min(found, default=None)


def _goes_over(kernel: Kernel, operand: str, result: str) -> bool:
    """Whether a kernel reads of an operand what it writes of a result, and that alone."""
    of_operand = {_place(access) for access in accesses(kernel) if access.view.buffer == operand}
    of_result = {_place(access) for access in accesses(kernel) if access.view.buffer == result}
    reads = [s for p in kernel.phases for s in p.statements if s.access and s.access.view.buffer == operand]
    return len(of_operand) == 1 and of_operand == of_result and len(reads) == 1 and reads[0].op == "vld"


def _place(access: Access) -> tuple[object, ...]:
    view = access.view
    return view.offset, view.dims, view.strides, view.lower, view.seen, view.word, access.index


def _renamed(plan: Plan, homes: dict[str, str]) -> Plan:
    """The plan with some buffers merged into others."""
    steps = tuple(redirected(step, homes) for step in plan.steps)
    return replace(plan, buffers=tuple(b for b in plan.buffers if b.name not in homes), steps=steps)
