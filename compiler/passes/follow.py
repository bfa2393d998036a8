"""Products that follow each other as one kernel of the machine, where that takes less time (plan_following.py).

The product of an attention with its values starts with a load of shares that are in the tensor buffer already, and with
values that could have been loaded long before: as one kernel the second product begins when the first row is there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Final

from birc.compiler.ir.depth_steps import resident_steps
from birc.compiler.ir.found_once import found_once
from birc.compiler.ir.plan import TILE, Contraction, Kernel, KernelStep, Plan, Tiling
from birc.compiler.ir.plan_beside import spans, together
from birc.compiler.ir.plan_following import (
    followed,
    following_problems,
    kernels_problems,
    left_by,
    most_taken,
    pairs_of,
    taken,
)
from birc.compiler.ir.plan_patch import slot_bytes
from birc.compiler.passes.allocation.blocks import aligned
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.lifetimes import most_at_once, users
from birc.compiler.passes.tile import memories_of, signature
from birc.runtime.machine import Machine

Clock = Callable[[Sequence[Kernel], Memories, Machine], int]
"""The cycles of kernels that are tiled, as one kernel of the machine."""

Tilings = tuple[Tiling, ...]

Known = dict[object, Tilings | None]
"""The tilings of kernels that are one; None where they are no faster so."""

Uses = dict[str, list[int]]
"""By buffer in the tensor buffers the steps that touch it."""

LITTLE: Final = 1 / 64
"""Share of an SPC's memory by which the tensor buffers may grow."""

SHARES: Final = (Fraction(1), Fraction(3, 4), Fraction(1, 2))
"""Shares of the slots for columns that the first product keeps: the second one gets what is left."""


def following(plan: Plan, machine: Machine, clock: Clock, known: Known) -> Plan:
    """The tiled plan in which products follow others; what was found for pairs of kernels is kept in `known`."""
    memories = memories_of(plan)
    local = {b.name for b in plan.buffers if b.space == "tb"}
    uses = {name: steps for name, steps in users(plan).items() if name in local}
    for number in range(1, len(plan.steps)):
        first, second = plan.steps[number - 1 : number + 1]
        if not isinstance(first, KernelStep) or not isinstance(second, KernelStep):
            continue
        if first.beside or first.follows or second.beside:
            continue
        made = _following(first, second, memories, machine, clock, known)
        if made is not None:
            plan = _with_steps(plan, number - 1, made, uses, machine) or plan
    return _pairs_together(plan, memories, uses, machine, clock, known)


def _with_steps(plan: Plan, number: int, made: Sequence[KernelStep], uses: Uses, machine: Machine) -> Plan | None:
    """The plan with some steps, from a number on, if what the tensor buffers hold is about as much as before.

    They touch the same buffers as those in their places.
    """
    steps = (*plan.steps[:number], *made, *plan.steps[number + len(made) :])
    result = replace(plan, steps=steps)
    room, before = _local_bytes(result, uses, machine), _local_bytes(plan, uses, machine)
    if room > before + LITTLE * machine.spc_sram_bytes:
        return None
    return replace(result, tensor_buffer_bytes=plan.tensor_buffer_bytes + max(0, room - before))


def _pairs_together(plan: Plan, memories: Memories, uses: Uses, machine: Machine, clock: Clock, known: Known) -> Plan:
    """The plan in which pairs of products that follow each other stay one kernel, as long as that takes less."""
    starts = _starts(plan)
    for number in range(2, len(plan.steps) - 1):
        start = starts[number - 1]
        steps = [step for step in plan.steps[start : number + 2] if isinstance(step, KernelStep)]
        whole = len(steps) == number + 2 - start > 3
        if whole and steps[1].follows and not steps[-2].follows and steps[-1].follows:
            made = _behind(steps, memories, machine, clock, known)
            joined = made and _with_steps(plan, start, made, uses, machine)
            if joined:
                plan, starts = joined, _starts(joined)
    return plan


def _starts(plan: Plan) -> dict[int, int]:
    """For every step the first one of those that run with it."""
    return {number: group.start for group in together(plan.steps) for number in group}


def _behind(
    steps: Sequence[KernelStep], memories: Memories, machine: Machine, clock: Clock, known: Known
) -> list[KernelStep] | None:
    """The steps as one kernel, of which those of the last pair are one of their own; None where that is no faster."""
    columns: list[list[Kernel | None]] = []
    for column in zip(*(step.kernels for step in steps), strict=True):
        kernels = [kernel for kernel in column if kernel is not None]
        if kernels and len(kernels) < len(column):
            return None
        key = tuple((signature(kernel, memories), kernel.tiling) for kernel in kernels)
        tilings = found_once(known, key, partial(_fitting, kernels, memories, machine, clock) if kernels else tuple)
        if tilings is None or (
            kernels and any(True for _ in kernels_problems(with_tilings(kernels, tilings), machine))
        ):
            return None
        columns.append(list(with_tilings(kernels, tilings)) if kernels else [None] * len(column))
    return [
        replace(step, kernels=tuple(column[place] for column in columns), follows=place > 0)
        for place, step in enumerate(steps)
    ]


def with_tilings(kernels: Sequence[Kernel], tilings: Tilings) -> list[Kernel]:
    """The kernels, each with another tiling."""
    return [replace(kernel, tiling=tiling) for kernel, tiling in zip(kernels, tilings, strict=True)]


def _fitting(kernels: Sequence[Kernel], memories: Memories, machine: Machine, clock: Clock) -> Tilings | None:
    """The tilings of pairs as one kernel, with slots for which there is room; None where they take less apart."""
    rest = left_by(most_taken(pairs_of(kernels), machine), machine)
    tilings = [kernel.tiling for kernel in kernels if kernel.tiling is not None]
    for place, (kernel, tiling) in enumerate(zip(kernels, tilings, strict=True)):
        if place % 2 and kernel.contraction is not None:
            a_bytes, b_bytes = slot_bytes(kernel, kernel.contraction, tiling, machine)
            a_slots = min(tiling.a_slots, rest.gib_a_bytes // a_bytes)
            b_slots = min(tiling.b_slots, rest.gib_b_bytes // b_bytes)
            tilings[place] = replace(tiling, a_slots=a_slots, b_slots=b_slots)
    fitted = with_tilings(kernels, tuple(tilings))
    if any(True for _ in kernels_problems(fitted, machine)):
        return None
    apart = [clock(part, memories, machine) for part in (kernels[:-2], kernels[-2:])]
    is_faster = clock(fitted, memories, machine) < sum(apart) + machine.spc_barrier_cycles
    return tuple(tilings) if is_faster else None


def _local_bytes(plan: Plan, uses: Uses, machine: Machine) -> int:
    """The most bytes of the tensor buffers in use at once."""
    lives = spans(plan, uses)
    local = (b for b in plan.buffers if b.name in lives)
    return most_at_once((aligned(b.num_bytes, machine.l2_line_bytes), *lives[b.name]) for b in local)


def _following(
    first: KernelStep, second: KernelStep, memories: Memories, machine: Machine, clock: Clock, known: Known
) -> tuple[KernelStep, KernelStep] | None:
    """Both steps, the second following the first; None where it cannot, or is no faster so."""
    made: list[tuple[Kernel | None, Kernel | None]] = []
    for one, other in zip(first.kernels, second.kernels, strict=True):
        if one is None and other is None:
            made.append((None, None))
            continue
        if one is None or other is None or not _may_follow(one, other):
            return None
        key = (signature(one, memories), one.tiling, signature(other, memories), other.tiling)
        tilings = found_once(known, key, partial(_best, one, other, memories, machine, clock))
        if tilings is None:
            return None
        made.append((replace(one, tiling=tilings[0]), replace(other, tiling=tilings[1])))
    ahead, behind = (tuple(pair[n] for pair in made) for n in range(2))
    return replace(first, kernels=ahead), replace(second, kernels=behind, follows=True)


def _may_follow(first: Kernel, second: Kernel) -> bool:
    """Whether it is worth a closer look: the second product takes what each SPC keeps of the first."""
    if first.contraction is None or second.contraction is None or not first.has_own_parts:
        return False
    if second.contraction.further:
        return False
    name = second.contraction.a.view.buffer
    return any(s.op == "vst" and s.access and s.access.view.buffer == name for p in first.phases for s in p.statements)


def _best(first: Kernel, second: Kernel, memories: Memories, machine: Machine, clock: Clock) -> Tilings | None:
    """The tilings with which both take least as one kernel; None where they take less apart."""
    fitting, best = fitting_tilings(first, second, machine), None
    least = cycles_apart(first, second, memories, machine, clock) if fitting else 0
    for tilings in fitting:
        cycles = clock(with_tilings((first, second), tilings), memories, machine)
        if cycles < least:
            least, best = cycles, tilings
    return best


def cycles_apart(first: Kernel, second: Kernel, memories: Memories, machine: Machine, clock: Clock) -> int:
    """The cycles of two kernels of the machine, and of the barrier between them."""
    return sum(clock((kernel,), memories, machine) for kernel in (first, second)) + machine.spc_barrier_cycles


def fitting_tilings(first: Kernel, second: Kernel, machine: Machine) -> list[Tilings]:
    """The tilings with which a product can follow another one, all with values whole, or all bit by bit."""
    for tilings in attempts(first, second, machine):
        fitting = [pair for pair in tilings if not any(True for _ in problems(first, second, pair, machine))]
        if fitting:
            return fitting
    return []


def problems(first: Kernel, second: Kernel, tilings: Tilings, machine: Machine) -> Iterator[str]:
    """Why a product cannot follow another one by some tilings."""
    ahead, behind = with_tilings((first, second), tilings)
    return following_problems(ahead, behind, machine)


def attempts(first: Kernel, second: Kernel, machine: Machine) -> Iterator[list[Tilings]]:
    """Tile by tile, with what the first product leaves of the input buffers: tilings that may have problems."""
    if first.tiling is None or second.tiling is None or first.contraction is None or second.contraction is None:
        return
    rows = {name: extent for name, extent in first.tiling.tile if name in second.contraction.row_dims}
    tile = dict(second.tiling.tile) | rows
    plain = Tiling(tuple(tile.items()), second.tiling.spcs, programs=1, turns=TILE)
    a_bytes, b_bytes = slot_bytes(second, second.contraction, plain, machine)
    for forms in _forms(second, second.contraction, plain):
        found: list[Tilings] = []
        for form, ahead in itertools.product(forms, _with_slots_left(first, first.tiling)):
            rest = left_by(taken(first, first.contraction, ahead, followed(machine)), machine)
            most = max(2 * _tiles(second, form), machine.outstanding_loads_per_tcore_queue)
            a_slots, b_slots = rest.gib_a_bytes // a_bytes, rest.gib_b_bytes // b_bytes
            found.append((ahead, replace(form, a_slots=min(a_slots, most), b_slots=min(b_slots, most))))
        yield found


def _with_slots_left(kernel: Kernel, tiling: Tiling) -> Iterator[Tiling]:
    """The tiling of the first product with slots that it may keep; columns that do not stay in them pass."""
    for slots in dict.fromkeys(max(1, int(tiling.b_slots * share)) for share in SHARES):
        hoist = "" if tiling.hoist == "b" and slots < _tiles(kernel, tiling) else tiling.hoist
        yield replace(tiling, b_slots=slots, hoist=hoist)


def _forms(kernel: Kernel, contraction: Contraction, plain: Tiling) -> Iterator[list[Tiling]]:
    """How a second product may go: values whole, or if need be bit by bit.

    Whole values of several columns of tiles are all there for each row, or column by column for all rows.
    """
    name = contraction.column
    columns = -(-kernel.dimension(name).extent // dict(plain.tile)[name])
    whole = replace(plain, hoist="b", resident=len(kernel.red_dims))
    yield [replace(whole, columns=count) for count in dict.fromkeys((columns, 1))]
    yield [plain]


def _tiles(kernel: Kernel, tiling: Tiling) -> int:
    """The tiles of values that are in use at once."""
    return tiling.columns * resident_steps(kernel, tiling)
