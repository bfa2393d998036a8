"""What must hold after allocation: addresses, lifetimes, no overlap of living buffers, capacities."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from heapq import heappop, heappush

from birc.compiler.ir.plan import Buffer, CopyStep, ExchangeStep, FillStep, KernelStep, Plan, ShareStep, Step
from birc.compiler.ir.plan_access import accesses_of
from birc.compiler.ir.plan_beside import spans
from birc.runtime.machine import Machine


def memory_problems(plan: Plan, machine: Machine) -> Iterator[tuple[str, str]]:
    """Every broken rule of an allocation, as (where, what)."""
    capacities = {
        "hbm": machine.hbm_bytes_per_die,
        "l2": machine.spcs_per_die * (machine.spc_sram_bytes - plan.tensor_buffer_bytes),
        "tb": plan.tensor_buffer_bytes,
    }
    if not 0 <= plan.tensor_buffer_bytes <= machine.spc_sram_bytes:
        yield "plan", f"tensor buffers of {plan.tensor_buffer_bytes} B, an SPC has {machine.spc_sram_bytes} B"
    placed: dict[str, list[Buffer]] = defaultdict(list)
    lives = _uses(plan)
    for buffer in plan.buffers:
        where = f"buffer %{buffer.name}"
        capacity = capacities.get(buffer.space)
        if capacity is None:
            yield where, f"lies in {buffer.space!r}, not in one of {', '.join(capacities)}"
        elif buffer.address < 0:
            yield where, "has no address"
        elif buffer.address + buffer.num_bytes > capacity:
            yield where, f"ends at {buffer.address + buffer.num_bytes:#x}, {buffer.space} at {capacity:#x}"
        else:
            placed[buffer.space].append(buffer)
        first, last = lives.get(buffer.name, (buffer.first, buffer.last))
        if first < buffer.first or last > buffer.last:
            yield where, f"lives in steps {buffer.first} to {buffer.last}, is used in {first} to {last}"
    lasting = {b.name for b in plan.buffers if b.role != "scratch"}
    lasting |= {step.target for step in plan.steps if isinstance(step, CopyStep) and (step.once or step.resident)}
    for space, buffers in placed.items():
        yield from _overlaps(space, buffers, lasting)


def _overlaps(space: str, buffers: list[Buffer], lasting: set[str]) -> Iterator[tuple[str, str]]:
    """Pairs that share bytes while both live; `lasting` ones live throughout.

    Where there are some, a sweep over addresses that keeps those that have not ended finds all.
    """
    if not _has_overlap(buffers, lasting):
        return
    open_buffers: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda b: (b.address, b.name)):
        open_buffers = [b for b in open_buffers if b.address + b.num_bytes > buffer.address]
        if buffer.num_bytes:
            clashing = [other for other in open_buffers if _live_together(buffer, other, lasting)]
            yield from (
                (f"buffer %{buffer.name}", f"overlaps %{other.name} in {space}, both live") for other in clashing
            )
            open_buffers.append(buffer)


def _has_overlap(buffers: list[Buffer], lasting: set[str]) -> bool:
    """Whether there are such pairs: a sweep over steps that keeps the addresses of those that live in order."""
    always = -math.inf, math.inf
    lives = [((always if b.name in lasting else (b.first, b.last)), b) for b in buffers if b.num_bytes]
    living: list[tuple[int, int]] = []
    ending: list[tuple[float, tuple[int, int]]] = []
    for (first, last), buffer in sorted(lives, key=lambda life: life[0]):
        while ending and ending[0][0] < first:
            del living[bisect_left(living, heappop(ending)[1])]
        place = buffer.address, buffer.address + buffer.num_bytes
        above = bisect_left(living, place)
        if above < len(living) and living[above][0] < place[1]:
            return True
        if above and living[above - 1][1] > place[0]:
            return True
        living.insert(above, place)
        heappush(ending, (last, place))
    return False


def _live_together(one: Buffer, other: Buffer, lasting: set[str]) -> bool:
    if one.name in lasting or other.name in lasting:
        return True
    return one.first <= other.last and other.first <= one.last


def _uses(plan: Plan) -> dict[str, tuple[int, int]]:
    """The first and last step in which each buffer is in use."""
    uses: dict[str, list[int]] = {}
    for number, step in enumerate(plan.steps):
        for name in _touched(step):
            uses.setdefault(name, []).append(number)
    return spans(plan, uses)


def _touched(step: Step) -> set[str]:
    match step:
        case CopyStep():
            return {step.source, step.target}
        case FillStep(source, target, _):
            return {source.buffer, target.buffer}
        case ShareStep(name):
            return {name}
        case ExchangeStep(exchanges):
            return {exchange.view.buffer for exchange in exchanges}
        case KernelStep(kernels):
            return {a.view.buffer for kernel in kernels if kernel is not None for _, a in accesses_of(kernel)}
