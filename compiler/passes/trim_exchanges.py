"""Exchanges send no more than what the other die goes on to read.

A die that divides the rows of a product of queries, keys and values, say, needs the keys and values of the other one's
rows, but not their queries.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from birc.compiler.ir.plan import Exchange, ExchangeStep, KernelStep, Plan, Step, View
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.region import Axis, Region, cut_at, region
from birc.runtime.program import MAX_BOX_RANK

Reads = Mapping[tuple[str, int], Sequence[tuple[int, Region]]]  # by buffer and die: the steps, and what they read
Interval = tuple[int, int]  # the first digit, and one past the last


def trim_exchanges(plan: Plan) -> Plan:
    """The plan whose exchanges send boxes around what is read later on; those of which nothing is read are gone."""
    steps: list[Step] = []
    reads = _reads(plan)
    for number, step in enumerate(plan.steps):
        if not isinstance(step, ExchangeStep):
            steps.append(step)
            continue
        exchanges = _exchanges(step, number, reads)
        if exchanges:
            steps.append(ExchangeStep(exchanges))
    return replace(plan, steps=tuple(steps))


def _exchanges(step: ExchangeStep, number: int, reads: Reads) -> tuple[Exchange, ...]:
    """The exchanges of a step, trimmed; those of a buffer stay as they are where boxes of different strides would come
    of it, which nobody can tell apart."""
    trimmed: dict[Exchange, Exchange | None] = {}
    for exchange in step.exchanges:
        found = reads.get((exchange.view.buffer, 1 - exchange.sender), ())
        trimmed[exchange] = _trimmed(exchange, (box for later, box in found if later > number))
    strides: dict[tuple[str, int], set[tuple[int, ...]]] = {}
    for result in trimmed.values():
        if result is not None:
            strides.setdefault((result.view.buffer, result.sender), set()).add(result.view.strides)
    kept = (
        exchange if result and len(strides[exchange.view.buffer, exchange.sender]) > 1 else result
        for exchange, result in trimmed.items()
    )
    return tuple(exchange for exchange in kept if exchange is not None)


def _reads(plan: Plan) -> Reads:
    """What each die reads of the buffers that are exchanged; what it gives out it reads after the last step."""
    exchanged = {e.view.buffer for step in plan.steps if isinstance(step, ExchangeStep) for e in step.exchanges}
    found: dict[tuple[str, int], list[tuple[int, Region]]] = {}

    def add(number: int, die: int, view: View) -> None:
        if view.buffer in exchanged:
            found.setdefault((view.buffer, die), []).append((number, region(view)))

    for number, step in enumerate(plan.steps):
        for die, kernel in enumerate(step.kernels if isinstance(step, KernelStep) else ()):
            for access in accesses(kernel) if kernel is not None else ():
                add(number, die, access.view)
    for output in plan.outputs:
        for dies, _, view in output.pieces:
            for die in (die for die in range(plan.dies) if dies >> die & 1):
                add(len(plan.steps), die, view)
    return found


def _trimmed(exchange: Exchange, reads: Iterable[Region]) -> Exchange | None:
    """The exchange of the box around what is read of its view; None when that is nothing."""
    sent, found = region(exchange.view), tuple(dict.fromkeys(reads))
    axes = _split(sent.dims, found)
    boxes = [box for read in found if (box := _common(sent.offset, axes, read)) is not None]
    if not boxes:
        return None
    box = [(min(low for low, _ in sides), max(high for _, high in sides)) for sides in zip(*boxes, strict=True)]
    offset = sent.offset + sum(low * stride for (low, _), (stride, _) in zip(box, axes, strict=True))
    strides, extents = tuple(stride for stride, _ in axes) or (1,), tuple(high - low for low, high in box) or (1,)
    dims = region(View(sent.buffer, offset, extents, strides)).dims or ((1, 1),)
    view = View(sent.buffer, offset, tuple(extent for _, extent in dims), tuple(stride for stride, _ in dims))
    return replace(exchange, view=view) if len(dims) <= MAX_BOX_RANK else exchange


def _split(axes: Sequence[Axis], reads: Sequence[Region]) -> list[Axis]:
    """The axes, those that hold several of the strides or distances of what is read cut in two at each."""
    offsets = sorted({read.offset for read in reads})
    strides = {stride for read in reads for stride, _ in read.dims}
    strides |= {later - earlier for earlier, later in itertools.pairwise(offsets)}
    return cut_at(axes, sorted(strides, reverse=True))


def _common(offset: int, axes: Sequence[Axis], read: Region) -> list[Interval] | None:
    """By axis, from the largest stride down, the digits outside which nothing of a region lies; None for none."""
    box = [(0, extent) for _, extent in axes]
    first, dims = read.offset - offset, read.dims
    for place, (stride, extent) in enumerate(axes):
        inside = sum((e - 1) * s for s, e in axes[place + 1 :])
        last = first + sum((e - 1) * s for s, e in dims)
        low, high = max(0, -((inside - first) // stride)), min(extent, last // stride + 1)
        if low >= high:
            return None
        box[place] = low, high
        # What lies within one step of this axis goes on to the axes inside it, where it is the same at every step.
        outer = [s for s, _ in dims if s >= stride]
        dims = tuple((s, e) for s, e in dims if s < stride)
        first %= stride
        if any(s % stride for s in outer) or first + sum((e - 1) * s for s, e in dims) >= stride:
            break
    return box
