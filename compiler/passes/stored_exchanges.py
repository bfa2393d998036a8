"""What dies send each other goes over the link while it is computed, where the kernels before can store it themselves.

A transfer begins when the last kernel has ended: a barrier, the start of the DMA engine, all bytes at the rate of the
link and the flag of the other die follow each other. Stores to the L2 of the other die are on their way beside the
work that makes the rest, and only the flag is left to wait for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Final

from birc.compiler.ir.plan import Access, Exchange, ExchangeStep, Kernel, KernelStep, Phase, Plan, Statement, Step, View
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.region import Region, cut_at, region
from birc.compiler.ir.view_overlap import ViewOverlap

MOST_BOXES: Final = 4
"""Boxes of what a store makes that are stored to the other die: each is an instruction."""


@dataclass(frozen=True, slots=True)
class Writer:
    """A store of the kernel of a step, and the parts of what it stores that the other die needs."""

    step: int
    die: int
    access: Access
    parts: tuple[View, ...]

    def storing(self, statement: Statement) -> tuple[Statement, ...]:
        """The statement, and if it is the store, before it those to the other die, which take longer."""
        if statement.op != "vst" or statement.access != self.access:
            return (statement,)
        away = (replace(self.access, view=part) for part in self.parts)
        return (*(replace(statement, access=access) for access in away), statement)


def stored_exchanges(plan: Plan) -> Plan:
    """The plan whose kernels store on the other die what it needs of them, as if all scratch buffers lay in L2."""
    scratch = {b.name for b in plan.buffers if b.role == "scratch" and b.space != "tb"}
    steps = list(plan.steps)
    for number, step in enumerate(plan.steps):
        if not isinstance(step, ExchangeStep):
            continue
        writers = [_writer(e, plan.steps[:number]) for e in step.exchanges if e.view.buffer in scratch]
        found = [writer for writer in writers if writer is not None]
        if len(found) == len(step.exchanges):
            steps[number] = replace(step, stored=True)
            for writer in found:
                steps[writer.step] = _with_statements(steps[writer.step], writer.storing, writer.die)
    return replace(plan, steps=tuple(steps))


def transferred(plan: Plan) -> Plan:
    """The plan that transfers what does not lie in L2, where alone kernels can store it on the other die."""
    elsewhere = {b.name for b in plan.buffers if b.space != "l2"}

    def settled(step: Step) -> Step:
        if isinstance(step, ExchangeStep) and any(e.view.buffer in elsewhere for e in step.exchanges):
            return replace(step, stored=False)
        return step

    steps = [settled(step) for step in plan.steps]
    kept = {e.view.buffer for s in steps if isinstance(s, ExchangeStep) and s.stored for e in s.exchanges}

    def staying(statement: Statement) -> tuple[Statement, ...]:
        access = statement.access
        return (statement,) if access is None or not access.view.away or access.view.buffer in kept else ()

    return replace(plan, steps=tuple(_with_statements(step, staying) for step in steps))


def _with_statements(step: Step, change: Callable[[Statement], tuple[Statement, ...]], die: int | None = None) -> Step:
    """The step in whose kernels, or that of a die, other statements stand for each one."""
    if not isinstance(step, KernelStep):
        return step

    def of_phase(phase: Phase) -> Phase:
        statements = tuple(new for s in phase.statements for new in change(s))
        return phase if statements == phase.statements else replace(phase, statements=statements)

    def changed(kernel: Kernel) -> Kernel:
        phases = tuple(map(of_phase, kernel.phases))
        return kernel if phases == kernel.phases else replace(kernel, phases=phases)

    kernels = tuple(
        changed(k) if k is not None and die in (None, number) else k for number, k in enumerate(step.kernels)
    )
    return step if kernels == step.kernels else replace(step, kernels=kernels)


def _writer(exchange: Exchange, before: Sequence[Step]) -> Writer | None:
    """The store that makes what is sent, if nothing else touches it, here or there, until it is sent."""
    sent = region(exchange.view)
    touched: list[Access] = []  # by the other die
    for number, step in reversed([*enumerate(before)]):
        if isinstance(step, ExchangeStep) and any(e.view.buffer == sent.buffer for e in step.exchanges):
            return None
        if not isinstance(step, KernelStep):
            continue
        here, there = step.kernels[exchange.sender], step.kernels[1 - exchange.sender]
        touched += accesses(there) if there is not None else ()
        stores = [access for access in _stores(here) if not region(access.view).is_apart(sent)]
        if stores:
            parts = _parts(stores[0].view, sent) if len(stores) == 1 else ()
            overlap = ViewOverlap()
            if any(overlap.may_meet(p, a.view) and not _is_behind(p, a.view) for p in parts for a in touched):
                return None
            return Writer(number, exchange.sender, stores[0], parts) if parts else None
    return None


def _stores(kernel: Kernel | None) -> Iterator[Access]:
    statements = (s for phase in kernel.phases for s in phase.statements) if kernel is not None else ()
    return (s.access for s in statements if s.op == "vst" and s.access is not None)


def _is_behind(one: View, other: View) -> bool:
    """Whether the elements of one view come all before those of the other."""
    left, right = region(one), region(other)
    return left.end <= right.offset or right.end <= left.offset


def _parts(view: View, needed: Region) -> tuple[View, ...]:
    """The boxes of a view that are all of what is needed, in the other die's memory; none where it is not in a few."""
    if view.seen or any(stride <= 0 for stride, extent in zip(view.strides, view.dims, strict=True) if extent > 1):
        return ()
    axes = sorted((n for n, extent in enumerate(view.dims) if extent > 1), key=lambda n: -view.strides[n])
    dims = cut_at(needed.dims, [view.strides[n] for n in axes])
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


def _runs(digits: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(first, count) of the runs of numbers that are sums of multiples below extents, by (step, extent)."""
    inner = next((extent for step, extent in digits if step == 1), 1)
    outer = [range(0, step * extent, step) for step, extent in digits if step > 1]
    return [(sum(starts), inner) for starts in itertools.product(*outer)]
