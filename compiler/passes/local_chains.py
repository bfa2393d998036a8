"""Kernels in a row between which tensors stay in the tensor buffers: every SPC makes the part that it then reads.

Then no barrier of the die is needed between them, and the next kernel loads from a memory that is nearer than L2 and
has a port of its own. In a chain of kernels over images each SPC takes the same samples, and of these the same rows;
rows that the windows of two SPCs reach are made on both (chain_images.py). Other kernels stay together as pairs, by
columns or products (local_pairs.py). What others read, too, is stored once more for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from birc.compiler.ir.plan import Buffer, ExchangeStep, KernelStep, Plan, Step
from birc.compiler.passes.chain_gain import (
    OWN,
    Chain,
    Cycles,
    Gains,
    Offer,
    in_parts,
    offered,
    read_what_is_made,
    room,
    written,
)
from birc.compiler.passes.chain_images import ImageChain, has_windows, parts_of
from birc.compiler.passes.lifetimes import instances, touched, users
from birc.compiler.passes.local_pairs import Pairs
from birc.compiler.passes.own_images import in_own_images
from birc.compiler.passes.own_products import stored_twice
from birc.compiler.passes.schedule import redirect
from birc.runtime.machine import Machine

LONGEST = 5
"""Kernels of a chain: longer ones are rarely possible, and take time to find."""


def local_chains(plan: Plan, machine: Machine, cycles: Cycles) -> Plan | None:
    """The plan with the chains that gain time; None when there are none, or it uses the tensor buffers already."""
    if plan.tensor_buffer_bytes:
        return None
    buffers = {b.name: b for b in plan.buffers}
    types = {f"{name}{copied}": buffer.dtype for name, buffer in buffers.items() for copied in ("", OWN)}
    gains = Gains(machine, cycles, buffers, types, users(plan))
    pairs = Pairs(gains)
    steps = [plan.steps[number] for number in _drawn_together(plan.steps, pairs)]
    pairs = replace(pairs, gains=replace(gains, users=users(replace(plan, steps=tuple(steps)))))
    chosen = _most_gaining(_found(steps, pairs), len(steps))
    chains = {place: offer.make() for place, offer in chosen.items()}
    if not chains:
        return None
    for place, chain in chains.items():
        steps[place : place + len(chain.steps)] = chain.steps
    local = {buffer.name: buffer for chain in chains.values() for buffer in chain.buffers}
    return replace(
        plan,
        steps=tuple(steps),
        buffers=(*(local.pop(b.name, b) for b in plan.buffers), *local.values()),
        tensor_buffer_bytes=max(room(chain.buffers, machine) for chain in chains.values()),
    )


def _found(steps: Sequence[Step], pairs: Pairs) -> Mapping[int, list[Offer]]:
    """The chains that gain time by themselves, by the place of their first step."""
    gains = pairs.gains
    tried: dict[tuple[int, int], Chain | None] = {}
    windows = [isinstance(step, KernelStep) and has_windows(step.kernel) for step in steps]
    for length in range(2, LONGEST + 1):
        for place in range(len(steps) - length + 1):
            # What gains nothing without its first or its last kernel is not worth a closer look.
            is_promising = tried.get((place, length - 1)) or tried.get((place + 1, length - 1))
            is_new = length == 2 and any(windows[place : place + 2])
            if (is_new or is_promising) and (
                run := _over_images(steps[place : place + length], place, gains)
            ) is not None:
                tried[place, length] = run.chain(gains)
    found: dict[int, list[Offer]] = {place: [] for place in range(len(steps))}
    for (place, _), chain in tried.items():
        found[place] += [offered(chain)] if chain is not None else []
    for place in range(len(steps) - 1):
        pair = pairs.best(steps, place, place + 1, is_next=True)
        found[place] += [pair] if pair is not None else []
    return found


def _drawn_together(steps: Sequence[Step], pairs: Pairs) -> list[int]:
    """The order of the steps, products right behind what alone they read of where such pairs gain by themselves.

    Exchanges that bring what else such a product reads come right behind what writes that.
    """
    users = pairs.gains.users
    order = list(range(len(steps)))
    for number, step in enumerate(steps):
        readers = {users[name][-1] for name in touched(step) if len(users[name]) == 2}
        for other in sorted(reader for reader in readers if reader > number + 1):
            place, end = order.index(number), order.index(other)
            passed = order[place + 1 : end]
            brought = [n for n in passed if isinstance(steps[n], ExchangeStep) and not _may_pass(steps, other, [n])]
            others = [n for n in passed if n not in brought]
            is_late = any(_behind_writers(steps, n, [number, *others]) for n in brought)
            if not passed or is_late or not _may_pass(steps, other, others):
                continue
            if pairs.best(steps, number, other, is_next=False):
                order[place : end + 1] = [number, other, *others]
                for moved, exchange in enumerate(brought):
                    order.insert(_behind_writers(steps, exchange, order[: place + moved]), exchange)
    return order


def _most_gaining(found: Mapping[int, Sequence[Offer]], places: int) -> dict[int, Offer]:
    """Of the chains by place those that gain most together, each step in one of them at most."""
    best = [0] * (places + 1)  # from each place on
    first: dict[int, Offer] = {}  # the one that begins there, if that is best
    for place in reversed(range(places)):
        best[place] = best[place + 1]
        for offer in found[place]:
            gain = best[place + offer.length] + offer.gain
            if gain > best[place]:
                best[place], first[place] = gain, offer
    chosen: dict[int, Offer] = {}
    place = 0
    while place < places:
        if place in first:
            chosen[place] = first[place]
        place += first[place].length if place in first else 1
    return chosen


def _may_pass(steps: Sequence[Step], number: int, others: Sequence[int]) -> bool:
    """Whether a step may come before others: neither touches what the other one writes."""
    moved = steps[number]
    result = written(moved)
    return bool(result) and all(
        result.isdisjoint(touched(steps[n])) and touched(moved).isdisjoint(written(steps[n])) for n in others
    )


def _behind_writers(steps: Sequence[Step], exchange: int, order: Sequence[int]) -> int:
    """The first place in an order of steps that has none behind it that writes what an exchange sends."""
    sent = touched(steps[exchange])
    return next((n + 1 for n in reversed(range(len(order))) if not sent.isdisjoint(written(steps[order[n]]))), 0)


@dataclass(frozen=True, slots=True)
class _Run:
    """Steps in a row, and how they are as a chain: cut, with what stays between them; `saved` are the barriers."""

    steps: Sequence[KernelStep]
    cut: Sequence[KernelStep | None]
    between: Sequence[Buffer]
    saved: int

    def chain(self, gains: Gains) -> Chain | None:
        """The chain; None when it gains nothing."""
        return gains.chain(self.steps, self.cut, self.between, self.saved)


def _over_images(run: Sequence[Step], place: int, gains: Gains) -> _Run | None:
    """Steps in a row, the first one at a place, as a chain of kernels over images; None for what can be none."""
    steps = [step for step in run if isinstance(step, KernelStep)]
    if len(steps) < len(run) or any(not _alike(step, steps[0]) for step in steps):
        return None
    made = _made(steps)
    if not made or any(made.keys().isdisjoint(touched(step)) for step in steps):
        return None
    inside = range(place, place + len(steps))
    others = {name for name in made if gains.buffers[name].role != "scratch" or set(gains.users[name]) - {*inside}}
    is_taken = any(f"{name}{OWN}" in gains.buffers for name in others)
    if is_taken or not read_what_is_made(steps, others) or any(gains.buffers[name].space == "tb" for name in made):
        return None
    elements = {name: gains.buffers[name].num_elements for step in steps for name in touched(step)}
    parts = parts_of(ImageChain([step.kernel for step in steps], made, others, elements), gains.machine)
    if parts is None:
        return None
    names = {name: f"{name}{OWN}" if name in others else name for name in made}
    held = {names[name]: parts[maker].made for name, maker in made.items()}
    cut = []
    for number, (step, part) in enumerate(zip(steps, parts, strict=True)):
        stored = {name for name in others if made[name] == number}
        read = {name: names[name] for name in others if made[name] < number}
        own = KernelStep(tuple(k and stored_twice(redirect(k, read), stored, OWN) for k in step.kernels))
        cut.append(in_parts(own, partial(in_own_images, of=part.rows, made=part.made, local=held)))
    between = [replace(gains.buffers[name], name=names[name], role="scratch") for name in made]
    machine = gains.machine
    saved = _barriers(steps, made) * (machine.spcs_meet_cycles - machine.spc_barrier_cycles)
    return _Run(steps, cut, between, saved)


def _alike(step: KernelStep, other: KernelStep) -> bool:
    """Whether the kernels of a step have equal spaces, and run on the dies of another one."""
    has_kernels = [[kernel is None for kernel in s.kernels] for s in (step, other)]
    return has_kernels[0] == has_kernels[1] and len({kernel.space for kernel in instances(step)}) == 1


def _made(steps: Sequence[KernelStep]) -> dict[str, int]:
    """The tensors that steps make for later ones, by the number of the maker; none where a step writes over one."""
    made: dict[str, int] = {}
    for number, step in enumerate(steps):
        before = set[str]().union(*map(touched, steps[:number]))
        if not before.isdisjoint(written(step)):
            return {}
        later = set[str]().union(*map(touched, steps[number + 1 :]))
        made |= dict.fromkeys(sorted(written(step) & later), number)
    return made


def _barriers(steps: Sequence[KernelStep], made: Mapping[str, int]) -> int:
    """How many barriers there are between steps when each waits for all that it reads of the others."""
    count = last = 0
    for number, step in enumerate(steps):
        if any(last <= maker < number for name, maker in made.items() if name in touched(step)):
            count, last = count + 1, number
    return count
