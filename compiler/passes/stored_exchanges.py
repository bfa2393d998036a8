"""What dies send each other goes over the link while it is computed, where the kernels before can store it themselves.

A transfer begins when the last kernel has ended: a barrier, the start of the DMA engine, all bytes at the rate of the
link and the flag of the other die follow each other. Stores to the L2 of the other die are on their way beside the
work that makes the rest, and only the flag is left to wait for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from math import prod
from typing import Final

from birc.compiler.ir.plan import Access, Exchange, ExchangeStep, Kernel, KernelStep, Plan, Statement, Step, View
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.region import Region, region
from birc.runtime.program import Descriptor
from birc.runtime.verifier.boxes import overlaps, whole_view

MOST_BOXES: Final = 4
"""Boxes of what a store makes that are stored to the other die: each is an instruction."""


@dataclass(frozen=True, slots=True)
class Writer:
    """A store of the kernel of a step, and the parts of what it stores that the other die needs."""

    step: int
    die: int
    access: Access
    parts: tuple[View, ...]


def stored_exchanges(plan: Plan) -> Plan:
    """The plan whose kernels store on the other die what it needs of them, as if all scratch buffers lay in L2."""
    scratch = {b.name for b in plan.buffers if b.role == "scratch" and b.space != "tb"}
    steps = list(plan.steps)
    last = -1
    for number, step in enumerate(plan.steps):
        if not isinstance(step, ExchangeStep):
            continue
        writers = [_writer(e, plan.steps, range(last + 1, number)) for e in step.exchanges if e.view.buffer in scratch]
        found = [writer for writer in writers if writer is not None]
        if len(found) == len(step.exchanges):
            steps[number] = replace(step, stored=True)
            for writer in found:
                steps[writer.step] = _with_store(steps[writer.step], writer)
        last = number
    return replace(plan, steps=tuple(steps))


def transferred(plan: Plan) -> Plan:
    """The plan that transfers what does not lie in L2, where alone kernels can store it on the other die."""
    elsewhere = {b.name for b in plan.buffers if b.space != "l2"}

    def settled(step: Step) -> Step:
        is_off = isinstance(step, ExchangeStep) and any(e.view.buffer in elsewhere for e in step.exchanges)
        return replace(step, stored=False) if isinstance(step, ExchangeStep) and is_off else step

    steps = [settled(step) for step in plan.steps]
    kept = {e.view.buffer for s in steps if isinstance(s, ExchangeStep) and s.stored for e in s.exchanges}
    return replace(plan, steps=tuple(_at_home(step, kept) for step in steps))


def _at_home(step: Step, kept: Set[str]) -> Step:
    """The step without the stores to the other die, but for those of the buffers that are kept."""
    if not isinstance(step, KernelStep):
        return step
    kernels = (None if kernel is None else _storing_at_home(kernel, kept) for kernel in step.kernels)
    return replace(step, kernels=tuple(kernels))


def _storing_at_home(kernel: Kernel, kept: Set[str]) -> Kernel:
    def stays(statement: Statement) -> bool:
        access = statement.access
        return access is None or not access.view.away or access.view.buffer in kept

    phases = (replace(p, statements=tuple(s for s in p.statements if stays(s))) for p in kernel.phases)
    return replace(kernel, phases=tuple(phases))


def _writer(exchange: Exchange, steps: Sequence[Step], between: range) -> Writer | None:
    """The store that makes what is sent, if nothing else touches it, here or there, until it is sent."""
    sent = region(exchange.view)
    touched: list[Access] = []  # by the other die
    for number in reversed(between):
        step = steps[number]
        if not isinstance(step, KernelStep):
            if isinstance(step, ExchangeStep):
                return None
            continue
        here, there = step.kernels[exchange.sender], step.kernels[1 - exchange.sender]
        touched += accesses(there) if there is not None else ()
        stores = [access for access in _stores(here) if not region(access.view).is_apart(sent)]
        if stores:
            parts = _parts(stores[0].view, sent) if len(stores) == 1 else ()
            if any(_may_meet(part, access.view) for part in parts for access in touched):
                return None
            return Writer(number, exchange.sender, stores[0], parts) if parts else None
    return None


def _stores(kernel: Kernel | None) -> Iterator[Access]:
    statements = (s for phase in kernel.phases for s in phase.statements) if kernel is not None else ()
    return (s.access for s in statements if s.op == "vst" and s.access is not None)


def _may_meet(part: View, other: View) -> bool:
    """Whether the other die may touch what is stored meanwhile, as far as the verifier of streams can tell."""
    if part.buffer != other.buffer:
        return False
    if part.strides != other.strides:
        return not _is_behind(part, other)
    one, two = (Descriptor("l2", v.offset, "u8", v.dims or (1,), v.strides or (1,), v.lower) for v in (part, other))
    return bool(overlaps(one, whole_view(one), two, whole_view(two)).any())


def _is_behind(one: View, other: View) -> bool:
    """Whether the elements of one view come all before those of the other."""
    left, right = region(one), region(other)
    return left.end <= right.offset or right.end <= left.offset


def _parts(view: View, needed: Region) -> tuple[View, ...]:
    """The boxes of a view that are all of what is needed, in the other die's memory; none where it is not in a few."""
    if view.seen or any(stride <= 0 for stride, extent in zip(view.strides, view.dims, strict=True) if extent > 1):
        return ()
    axes = sorted((n for n, extent in enumerate(view.dims) if extent > 1), key=lambda n: -view.strides[n])
    dims = _cut(needed.dims, [view.strides[n] for n in axes])
    first = tuple(view.lower) or (0,) * len(view.dims)
    rest = needed.offset - view.offset - sum(low * s for low, s in zip(first, view.strides, strict=True))
    sides: dict[int, list[tuple[int, int]]] = {}
    outer = 0  # the stride around
    for axis in axes:
        stride = view.strides[axis]
        start, rest = divmod(rest, stride)
        own = [(s // stride, e) for s, e in dims if s >= stride and not 0 < outer <= s]
        sides[axis] = [(start + low, start + low + count) for low, count in _runs(own)]
        if any(s % stride for s, _ in dims if s >= stride) or start < 0 or sides[axis][-1][1] > view.dims[axis]:
            return ()
        outer = stride
    if rest or any(0 < s < outer or not outer for s, _ in dims) or prod(map(len, sides.values())) > MOST_BOXES:
        return ()
    return tuple(
        replace(
            view,
            lower=tuple(low + box.get(n, (0, 0))[0] for n, low in enumerate(first)),
            dims=tuple(box[n][1] - box[n][0] if n in box else extent for n, extent in enumerate(view.dims)),
            away=True,
        )
        for chosen in itertools.product(*sides.values())
        for box in (dict(zip(sides, chosen, strict=True)),)
    )


def _cut(dims: Sequence[tuple[int, int]], strides: Sequence[int]) -> list[tuple[int, int]]:
    """(stride, extent) of a region, those that reach over one of `strides` cut in two there."""
    result = list(dims)
    for row in strides:
        for place, (stride, extent) in enumerate(result):
            if stride < row < stride * extent and row % stride == 0 and stride * extent % row == 0:
                result[place : place + 1] = [(row, stride * extent // row), (stride, row // stride)]
                break
    return result


def _runs(digits: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(first, count) of the runs of numbers that are sums of multiples below extents, by (step, extent)."""
    inner = next((extent for step, extent in digits if step == 1), 1)
    outer = [range(0, step * extent, step) for step, extent in digits if step > 1]
    return [(sum(starts), inner) for starts in itertools.product(*outer)]


def _with_store(step: Step, writer: Writer) -> Step:
    """The step whose kernel on a die stores on the other one, too."""
    if not isinstance(step, KernelStep):
        return step
    kernels = (_storing(k, writer) if die == writer.die else k for die, k in enumerate(step.kernels))
    return replace(step, kernels=tuple(kernels))


def _storing(kernel: Kernel | None, writer: Writer) -> Kernel | None:
    if kernel is None:
        return None
    phases = []
    for phase in kernel.phases:
        statements = []
        for statement in phase.statements:
            statements.append(statement)
            if statement.op == "vst" and statement.access == writer.access:
                away = (replace(writer.access, view=part) for part in writer.parts)
                statements.extend(replace(statement, access=access) for access in away)
        phases.append(replace(phase, statements=tuple(statements)))
    return replace(kernel, phases=tuple(phases))
