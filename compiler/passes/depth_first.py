"""Kernels that go part by part with the one behind them: what lies between the two is then one part at a time.

The scores of an attention are its largest tensor, and what follows them takes them head by head: with the heads in
groups, both kernels for one group before the next, a group of scores lies in memory and not all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from birc.compiler.ir.plan import Access, Buffer, Kernel, KernelStep, Plan, Step, View
from birc.compiler.ir.plan_access import accesses, axis_alone, named_dims, with_views
from birc.compiler.passes.allocation.blocks import aligned
from birc.compiler.passes.bounds_work import moving
from birc.compiler.passes.lifetimes import instances, lifetimes, most_at_once, users
from birc.compiler.passes.restrict import restrict
from birc.runtime.machine import Machine


def depth_first(plan: Plan, largest_bytes: float, *, local: bool = False) -> Plan:
    """The plan with neighbouring kernels in as few parts as bring what lies between them down to `largest_bytes`.

    What has no dimension along which both kernels can be cut, or not far enough, stays as it is; so do products of
    which a part would load again what another one has. With `local` only what lies in tensor buffers counts, and what
    is loaded again does not.
    """
    used = users(plan)
    buffers = {b.name: b for b in plan.buffers}
    steps: list[Step] = []
    passed: dict[int, list[Buffer]] = {}  # by the first of two steps
    for b in plan.buffers:
        first, *others = used.get(b.name, [-1])
        if b.role == "scratch" and others == [first + 1] and (b.space == "tb" or not local):
            passed.setdefault(first, []).append(b)
    number = 0
    while number < len(plan.steps):
        pair = plan.steps[number : number + 2]
        between = passed.get(number, [])
        parts = _parts(pair, between, largest_bytes, local)
        if parts > 1:
            steps += _in_parts(pair, between, parts, local)
            buffers |= {b.name: replace(b, num_bytes=b.num_bytes // parts) for b in between}
            number += 2
        else:
            steps.append(plan.steps[number])
            number += 1
    return replace(plan, steps=tuple(steps), buffers=tuple(buffers[b.name] for b in plan.buffers))


def with_less_room(plan: Plan, machine: Machine) -> Iterator[Plan]:
    """The plan with its largest pairs of kernels in parts, if the tensor buffers need less then: L2 has the more."""
    parts = depth_first(plan, plan.tensor_buffer_bytes / 2, local=True)
    spans = lifetimes(parts)
    local = [b for b in parts.buffers if b.space == "tb"]
    room = most_at_once((aligned(b.num_bytes, machine.l2_line_bytes), *spans[b.name]) for b in local)
    if room < plan.tensor_buffer_bytes:
        yield replace(parts, tensor_buffer_bytes=room)


def _parts(pair: Sequence[Step], between: Sequence[Buffer], largest_bytes: float, again: bool) -> int:
    """In how many parts two steps go; 1 for as they are."""
    total = sum(b.num_bytes for b in between)
    if total <= largest_bytes:
        return 1
    extent = math.gcd(*(_outermost(kernel, between, again)[0] for kernel in _kernels(pair)))
    return next((n for n in range(2, extent + 1) if extent % n == 0 and total <= n * largest_bytes), 1)


def _kernels(steps: Sequence[Step]) -> list[Kernel]:
    return [kernel for step in steps if isinstance(step, KernelStep) for kernel in instances(step)]


def _outermost(kernel: Kernel, between: Sequence[Buffer], again: bool) -> tuple[int, str]:
    """The dimension that goes through all of the buffers part after part, and its extent; (1, "") when none does.

    With `again` each part may load what another one has loaded.
    """
    for d in kernel.par_dims:
        if d.extent == 1 or d.name in named_dims(kernel) or not (again or _is_apart(kernel, d.name)):
            continue
        if all(_goes_through(kernel, d.name, d.extent, buffer) for buffer in between):
            return d.extent, d.name
    return 1, ""


def _is_apart(kernel: Kernel, name: str) -> bool:
    """Whether what a product multiplies in one part it does not multiply in another: nothing is loaded again."""
    contraction = kernel.contraction
    return contraction is None or all(name in moving(access) for access in contraction.operands)


def _goes_through(kernel: Kernel, name: str, extent: int, buffer: Buffer) -> bool:
    reached = [access for access in accesses(kernel) if access.view.buffer == buffer.name]
    return all(_moved_by(access, name) * extent == buffer.num_elements for access in reached)


def _moved_by(access: Access, name: str) -> int:
    """The elements by which a dimension moves an access in which it is an axis of its own; else 0."""
    view, axis = access.view, axis_alone(access, name)
    return 0 if axis is None or view.seen or view.word else view.strides[axis]


def _in_parts(pair: Sequence[Step], between: Sequence[Buffer], parts: int, again: bool) -> Iterator[KernelStep]:
    """Both steps for one part after the other."""
    for number in range(parts):
        for step in pair:
            if isinstance(step, KernelStep):
                yield KernelStep(tuple(k and _part(k, between, number, parts, again) for k in step.kernels))


def _part(kernel: Kernel, between: Sequence[Buffer], number: int, parts: int, again: bool) -> Kernel:
    extent, name = _outermost(kernel, between, again)
    share = extent // parts
    own = {b.name: b.num_elements // parts * number for b in between}

    def to_the_front(view: View) -> View:
        return replace(view, offset=view.offset - own.get(view.buffer, 0))

    return with_views(restrict(kernel, name, number * share, share, f".{number}"), to_the_front)
