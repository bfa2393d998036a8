"""The allocate phase: which buffers lie on the chip, and at which addresses.

Tensors between kernels take L2 first, the largest first; then the twins of constants, each filled as early as there is
room for it. What finds no room stays in, or moves to, HBM: that is how tensors spill. Room is first counted in live
bytes alone; where no addresses are found for what that admits, every buffer is admitted to a gap of its own instead.
What the dies share is brought onto the chip in halves, which they send each other (`shared_constants.py`).
Weights that are to stay on the chip between calls have their places from the first step to the last; they all find
room, or the plan does not fit.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from birc.compiler.ir.plan import Buffer, CopyStep, ExchangeStep, FillStep, Plan, ShareStep, Step
from birc.compiler.ir.plan_beside import together
from birc.compiler.passes.allocation.blocks import Block, aligned
from birc.compiler.passes.allocation.l2 import L2
from birc.compiler.passes.allocation.place import Effort, place
from birc.compiler.passes.allocation.residence import Residence, Spans, tensors
from birc.compiler.passes.allocation.shortage import no_room_for_twins, shortage
from birc.compiler.passes.allocation.stretch import Stretch, stretch_of, stretched
from birc.compiler.passes.lifetimes import lifetimes
from birc.compiler.passes.schedule import redirected
from birc.compiler.passes.shared_constants import settled
from birc.compiler.passes.stored_exchanges import transferred
from birc.runtime.machine import Machine

SHORT_KERNEL_CYCLES: Final = 2400
"""What a kernel takes at least, nearly always, with the meeting behind it: as long the link has for each step between
sending and first use."""
NEAR_STEPS: Final = 8
"""How far from the latest step an exchange is looked for behind which the link is free."""
LAST_RESORT = Effort(climbs=1000, pairs=10_000_000)
"""Where there is no other memory to go to."""


def allocate(plan: Plan, machine: Machine, *, resident_weights: bool = False) -> Plan:
    """The plan with the space and address of every buffer, and the copies that fill on-chip twins.

    With `resident_weights` the twins stay from call to call, and are filled in the first one only. Raises
    `DoesNotFitError` when HBM or the tensor buffer is too small, or L2 for weights that are to stay.
    """
    spans = lifetimes(plan)
    placed = _place_in_tensor_buffer(plan, spans, machine)
    stretch = stretch_of(plan)
    l2_bytes = machine.spcs_per_die * (machine.spc_sram_bytes - plan.tensor_buffer_bytes)
    l2 = L2(plan, spans, l2_bytes, machine.l2_line_bytes, machine.spcs_per_die, resident_weights)
    residence, in_l2 = l2.place(stretch)
    constants = {b.name for b in plan.buffers if b.role == "constant"}
    if resident_weights and any(twin.home in constants for twin in residence.dropped):
        raise no_room_for_twins(plan, machine, residence, l2_bytes)
    throughout = (0, len(plan.steps))
    plan = settled(
        plan,
        {name for name, stay in residence.stays.items() if plan.repeat == 1 or (stay.start, stay.end) == throughout},
    )
    there = [b for b in plan.buffers if b.name in residence.stays]
    addresses = dict(zip(residence.stays, in_l2.addresses, strict=True))
    placed |= _placed(there, "l2", [residence.stays[b.name] for b in there], [addresses[b.name] for b in there])
    placed |= _place_in_hbm(plan, spans, residence.spilled, stretch, machine)
    buffers = tuple(placed[b.name] for b in plan.buffers if b.name in placed)
    result = replace(plan, buffers=buffers, steps=_with_copies(plan, residence, spans, machine, resident_weights))
    renumbered = lifetimes(result)
    if resident_weights:
        throughout = (0, len(result.steps) - 1)
        renumbered |= {step.target: throughout for step in result.steps if isinstance(step, CopyStep)}
    buffers = tuple(
        replace(b, first=renumbered[b.name][0], last=renumbered[b.name][1]) if b.name in renumbered else b
        for b in buffers
    )
    return transferred(replace(result, buffers=buffers))


def _place_in_tensor_buffer(plan: Plan, spans: Spans, machine: Machine) -> dict[str, Buffer]:
    local = tensors(plan, spans, "tb")
    blocks = [_block(b, spans[b.name], machine.l2_line_bytes) for b in local]
    capacity = plan.tensor_buffer_bytes
    placement = place(blocks, capacity, machine.l2_line_bytes)
    if placement.height_bytes > capacity:
        placement = place(blocks, capacity, machine.l2_line_bytes, LAST_RESORT)
    if placement.height_bytes > capacity:
        raise shortage(plan, machine, "tb", capacity, list(zip(local, blocks, placement.addresses, strict=True)))
    return _placed(local, "tb", blocks, placement.addresses)


def _place_in_hbm(
    plan: Plan, spans: Spans, spilled: Sequence[Buffer], stretch: Stretch, machine: Machine
) -> dict[str, Buffer]:
    """Boundary tensors and constants one after the other, then spilled tensors by lifetime."""
    line_bytes = machine.l2_line_bytes
    residents = [b for b in plan.buffers if b.role in ("input", "output", "constant")]
    forever = (0, len(plan.steps))
    blocks = [_block(b, forever, line_bytes) for b in residents]
    addresses, end = [], 0
    for block in blocks:
        addresses.append(end)
        end += block.num_bytes
    passing = {b.name: _block(b, spans[b.name], line_bytes) for b in spilled}
    room = machine.hbm_bytes_per_die - end
    placement = place([*stretched(passing, stretch, len(plan.steps), room).values()], room, line_bytes)
    if placement.height_bytes > room:
        placement = place([*passing.values()], room, line_bytes)
    residents += spilled
    blocks += passing.values()
    addresses += [end + address for address in placement.addresses]
    if end + placement.height_bytes > machine.hbm_bytes_per_die:
        found = list(zip(residents, blocks, addresses, strict=True))
        raise shortage(plan, machine, "hbm", machine.hbm_bytes_per_die, found)
    return _placed(residents, "hbm", blocks, addresses)


def _block(buffer: Buffer, span: tuple[int, int], line_bytes: int) -> Block:
    return Block(aligned(buffer.num_bytes, line_bytes), span[0], span[1] + 1)


def _placed(
    buffers: Sequence[Buffer], space: str, lives: Sequence[Block], addresses: Sequence[int]
) -> dict[str, Buffer]:
    return {
        buffer.name: replace(buffer, space=space, address=address, first=life.start, last=life.end - 1)
        for buffer, life, address in zip(buffers, lives, addresses, strict=True)
    }


def _with_copies(plan: Plan, residence: Residence, spans: Spans, machine: Machine, resident: bool) -> tuple[Step, ...]:
    """The steps with a copy before the first one in which a twin stays, and without the twins that are not there."""
    buffers = {b.name: b for b in plan.buffers}
    copies: Mapping[int, list[Step]] = defaultdict(list)
    shares: Mapping[int, list[Step]] = defaultdict(list)
    begins = {number: group.start for group in together(plan.steps) for number in group}
    for name, stay in residence.stays.items():
        if buffers[name].home:
            once = plan.repeat > 1 and (stay.start, stay.end) == (0, len(plan.steps))
            start = 0 if once else begins[stay.start]
            home = buffers[buffers[name].home]
            copies[start].append(CopyStep(home.name, name, once, resident and home.role == "constant"))
            if home.shared:
                sent = sent_at(plan.steps, spans[name][0], buffers[name].num_bytes / plan.dies, machine)
                shares[begins[max(start, sent)]].append(ShareStep(name))
    dropped = {twin.name: twin.home for twin in residence.dropped}
    result: list[Step] = []
    for number, step in enumerate(plan.steps):
        result.extend(copies.get(number, ()))
        result.extend(shares.get(number, ()))
        result.append(redirected(step, dropped) if dropped else step)
    return tuple(result)


def sent_at(steps: Sequence[Step], first_use: int, num_bytes: float, machine: Machine) -> int:
    """Before which step the halves of a shared constant that is first used in a step are sent to the other die.

    It is right after an exchange, the last one that leaves time until that use: nothing waits for the link then. Where
    none is near, the halves are sent when it is time: much earlier they are not there yet, and the dies wait for them.
    """
    cycles = machine.dma_start_cycles + num_bytes / machine.d2d_bytes_per_cycle + machine.cross_die_flag_cycles
    latest = max(0, first_use - max(2, math.ceil(cycles / SHORT_KERNEL_CYCLES)))
    if isinstance(steps[first_use], FillStep):  # It begins ahead itself: sooner the halves may not be there yet.
        return latest
    exchanges = (n for n in reversed(range(max(0, latest - NEAR_STEPS), latest)) if isinstance(steps[n], ExchangeStep))
    return next((n + 1 for n in exchanges), latest)
