"""Products that follow each other as one kernel of the machine, where that takes less time (plan_following.py).

The product of an attention with its values starts with a load of shares that are in the tensor buffer already, and with
values that could have been loaded long before: as one kernel the second product begins when the first row is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Final

from birc.compiler.ir.plan import TILE, Kernel, KernelStep, Plan, Tiling
from birc.compiler.ir.plan_following import followed, following_problems, left_by, taken
from birc.compiler.ir.plan_patch import slot_bytes
from birc.compiler.passes.allocation.blocks import aligned
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.lifetimes import lifetimes, most_at_once
from birc.compiler.passes.tile import memories_of, signature
from birc.runtime.machine import Machine

Clock = Callable[[Sequence[Kernel], Memories, Machine], int]
"""The cycles of kernels that are tiled, as one kernel of the machine."""

Tilings = tuple[Tiling, Tiling]

Known = dict[object, Tilings | None]
"""The tilings with which a product follows another one; None where that is no faster."""

SHARES: Final = (Fraction(1), Fraction(3, 4), Fraction(1, 2))
"""Shares of the slots for columns that the first product keeps: the second one gets what is left."""


def following(plan: Plan, machine: Machine, clock: Clock, known: Known) -> Plan:
    """The tiled plan in which products follow others; what was found for pairs of kernels is kept in `known`."""
    memories = memories_of(plan)
    steps, room = list(plan.steps), _local_bytes(plan, machine)
    for number in range(1, len(steps)):
        first, second = steps[number - 1], steps[number]
        if not isinstance(first, KernelStep) or not isinstance(second, KernelStep):
            continue
        if first.beside or first.follows or second.beside:
            continue
        made = _following(first, second, memories, machine, clock, known)
        if made is not None:
            together = replace(plan, steps=(*steps[: number - 1], *made, *steps[number + 1 :]))
            if _local_bytes(together, machine) <= room:
                steps = list(together.steps)
    return replace(plan, steps=tuple(steps))


def _local_bytes(plan: Plan, machine: Machine) -> int:
    """The most bytes of the tensor buffers in use at once."""
    spans = lifetimes(plan)
    local = (b for b in plan.buffers if b.space == "tb" and b.name in spans)
    return most_at_once((aligned(b.num_bytes, machine.l2_line_bytes), *spans[b.name]) for b in local)


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
        if key not in known:
            known[key] = _best(one, other, memories, machine, clock)
        tilings = known[key]
        if tilings is None:
            return None
        made.append((replace(one, tiling=tilings[0]), replace(other, tiling=tilings[1])))
    ahead, behind = (tuple(pair[n] for pair in made) for n in range(2))
    return replace(first, kernels=ahead), replace(second, kernels=behind, follows=True)


def _may_follow(first: Kernel, second: Kernel) -> bool:
    """Whether it is worth a closer look: the second product takes what each SPC keeps of the first."""
    if first.contraction is None or second.contraction is None or not first.has_own_parts:
        return False
    name = second.contraction.a.view.buffer
    return any(s.op == "vst" and s.access and s.access.view.buffer == name for p in first.phases for s in p.statements)


def _best(first: Kernel, second: Kernel, memories: Memories, machine: Machine, clock: Clock) -> Tilings | None:
    """The tilings with which both take least as one kernel; None where they take less apart."""
    least, best = None, None
    for ahead, behind in _tilings(first, second, machine):
        if least is None:
            apart = [clock((kernel,), memories, machine) for kernel in (first, second)]
            least = sum(apart) + machine.spc_barrier_cycles
        both = replace(first, tiling=ahead), replace(second, tiling=behind)
        cycles = clock(both, memories, machine)
        if cycles < least:
            least, best = cycles, (ahead, behind)
    return best


def _tilings(first: Kernel, second: Kernel, machine: Machine) -> Iterator[Tilings]:
    """Tile by tile, with what the first product leaves of the input buffers: values whole, or if need be bit by bit."""
    if first.tiling is None or second.tiling is None or first.contraction is None or second.contraction is None:
        return
    rows = {name: extent for name, extent in first.tiling.tile if name in second.contraction.row_dims}
    tile = dict(second.tiling.tile) | rows
    plain = Tiling(tuple(tile.items()), second.tiling.spcs, programs=1, turns=TILE)
    a_bytes, b_bytes = slot_bytes(second, second.contraction, plain, machine)
    steps = math.prod(-(-d.extent // tile.get(d.name, 1)) for d in second.red_dims)
    for hoist, resident, tiles in (("b", len(second.red_dims), steps), ("", 0, 1)):
        most, is_found = max(2 * tiles, machine.outstanding_loads_per_tcore_queue), False
        for slots in dict.fromkeys(int(first.tiling.b_slots * share) for share in SHARES):
            ahead = replace(first.tiling, b_slots=max(1, slots))
            rest = left_by(taken(first, first.contraction, ahead, followed(machine)), machine)
            a_slots, b_slots = rest.gib_a_bytes // a_bytes, rest.gib_b_bytes // b_bytes
            behind = replace(
                plain, hoist=hoist, resident=resident, a_slots=min(a_slots, most), b_slots=min(b_slots, most)
            )
            both = replace(first, tiling=ahead), replace(second, tiling=behind)
            if not any(True for _ in following_problems(*both, machine)):
                is_found = True
                yield ahead, behind
        if is_found:
            return
