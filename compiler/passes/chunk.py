"""Working through the batch in chunks, so that what a chunk needs stays on the chip.

The whole kernel list is run once a chunk, or segment by segment for several chunks together. It is possible when every
kernel has a dimension along which its part of a chunk needs nothing of other chunks; then buffers between kernels hold
one chunk, and only the graph's inputs and outputs move from one chunk to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from birc.compiler.ir.plan import Buffer, ExchangeStep, Kernel, KernelStep, Plan
from birc.compiler.ir.plan_access import accesses, moved, with_views
from birc.compiler.ir.region import region
from birc.compiler.passes.lifetimes import lifetimes, most_at_once
from birc.compiler.passes.rough_cycles import kernel_cycles, least_cycles
from birc.compiler.passes.segments import (
    Segments,
    best_segments,
    has_segments,
    in_segments,
    staying_constants,
    streamed_constants,
)
from birc.compiler.passes.split_search import SplitSearch
from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine

CHUNKS = (2, 4, 8, 16, 32, 64)
"""In how many parts the batch may be worked through."""
ROOM = 0.9
"""Share of L2 that a plan should fill at most: the allocator needs some slack."""
SPILLING = 1.25
"""How much more than that may live at once in a plan of which so little spills that it may be the faster one."""
MOST_STEPS = 1 << 13
"""Chunks that pass segments together are steps of their own: more are too many commands."""


@dataclass(frozen=True, slots=True)
class _Way:
    """A plan in chunks, `together` of which pass each segment before the next.

    Estimates order ways: the larger of computing and loading constants, then the bytes that a die loads.
    """

    cycles: float
    loaded_bytes: int
    together: int
    cut: Plan
    segments: Segments | None

    @property
    def order(self) -> tuple[float, int, int]:
        """The least is the best."""
        return self.cycles, self.loaded_bytes, self.together

    def plan(self) -> Plan:
        """The steps as this way has them."""
        return in_segments(self.cut, self.together, self.segments) if self.segments is not None else self.cut


@dataclass(frozen=True, slots=True)
class Cuts:
    """A plan in any number of chunks, each found and estimated once."""

    plan: Plan
    machine: Machine
    _known: dict[int, Plan | None] = field(default_factory=dict)
    _cycles: dict[int, float] = field(default_factory=dict)

    def into(self, count: int) -> Plan | None:
        """The plan in so many chunks, for one as it is; None when it cannot be cut."""
        if count not in self._known:
            self._known[count] = self.plan if count == 1 else cut_into(self.plan, self.machine, count)
        return self._known[count]

    def cycles(self, count: int) -> float:
        """What the kernels of one of so many chunks are estimated to take; without end when it cannot be cut."""
        if count not in self._cycles:
            cut = self.into(count)
            self._cycles[count] = math.inf if cut is None else estimated_cycles(cut, self.machine)
        return self._cycles[count]


def chunks(cuts: Cuts, resident_weights: bool = False) -> tuple[Plan, ...]:
    """The plan in chunks that fit L2 with all constants or with those of a segment; as it was where it cannot be cut.

    Estimates choose among the numbers of chunks and of rounds. Where constants never fit, it is the plan in the fewest
    chunks that do without them, else in those that need the least. Fewer chunks of which a little spills come second.
    With `resident_weights` only what leaves room for all constants fits.
    """
    plan, machine = cuts.plan, cuts.machine
    if any(isinstance(step, ExchangeStep) for step in plan.steps):
        return (plan,)
    ways: list[_Way] = []
    found: list[Plan] = []
    for count in (1, *CHUNKS):
        if ways and min(way.cycles for way in ways) <= count * least_estimate(plan, machine, count):
            break  # No need to cut it.
        cut = cuts.into(count)
        if cut is None:
            break
        found.append(cut)
        computing = count * cuts.cycles(count)
        if any(way.cycles <= computing for way in ways):
            break
        ways += _ways(cut, machine, computing, resident_weights)
    smallest = min(found, key=peak_bytes)
    fitting = (cut for cut in found if peak_bytes(cut) <= _capacity(machine) and not resident_weights)
    best = min(ways, key=lambda way: way.order, default=None)
    chosen = best.cut if best is not None else next(fitting, smallest)
    fewer = (cut for cut in found[: found.index(chosen)] if peak_bytes(cut) <= SPILLING * _capacity(machine))
    return (best.plan() if best is not None else chosen, *islice(fewer, 1))


def _capacity(machine: Machine) -> float:
    return ROOM * machine.spcs_per_die * machine.spc_sram_bytes


def _ways(cut: Plan, machine: Machine, computing: float, resident_weights: bool) -> Iterator[_Way]:
    """The ways to go through the chunks of a plan that fit: all constants stay, or those of a segment at a time."""
    capacity = _capacity(machine)
    staying = staying_constants(cut, capacity)
    every = constant_bytes(cut)
    constants = every if resident_weights else sum(b.num_bytes for b in cut.buffers if b.name in staying)
    rate = machine.streamed_hbm_bytes_per_cycle()

    def way(rounds: int, together: int, segments: Segments | None) -> _Way:
        loaded = constants * rounds + (every - constants) * cut.repeat
        return _Way(max(computing, loaded / rate), loaded, together, cut, segments)

    fits = peak_bytes(cut) + constants <= capacity
    if fits:
        yield way(1, 1, None)
    if fits or resident_weights:
        return
    for together in (n for n in (1, *CHUNKS) if n <= cut.repeat and n * len(cut.steps) <= MOST_STEPS):
        segments = best_segments(cut, together, capacity) if together > 1 else None
        if segments is None and (together > 1 or not has_segments(cut, capacity)):
            break
        yield way(cut.repeat // together, together, segments)


def estimated_cycles(plan: Plan, machine: Machine) -> float:
    """An estimate of what all kernels take once, on the die that takes longest."""
    buffers = {b.name: b for b in plan.buffers}
    return _sum_of_longest(plan, lambda kernel: kernel_cycles(kernel, buffers, machine))


def least_estimate(plan: Plan, machine: Machine, count: int) -> float:
    """What that estimate is at least of one of `count` chunks of a plan."""
    return _sum_of_longest(plan, lambda kernel: least_cycles(kernel, machine, count))


def _sum_of_longest(plan: Plan, cycles: Callable[[Kernel], float]) -> float:
    steps = (step for step in plan.steps if isinstance(step, KernelStep))
    return sum(max(map(cycles, step.distinct)) for step in steps)


def peak_bytes(plan: Plan) -> int:
    """The most bytes of scratch buffers that live at once."""
    spans = lifetimes(plan)
    return most_at_once((b.num_bytes, *spans[b.name]) for b in plan.buffers if b.role == "scratch" and b.name in spans)


def constant_bytes(plan: Plan) -> int:
    """The bytes of all constants that kernels stream."""
    streamed = streamed_constants(plan)
    return sum(b.num_bytes for b in plan.buffers if b.name in streamed)


@dataclass(frozen=True, slots=True)
class _Die:
    """The kernels of one die, by step, for the first, the second and the last chunk."""

    first: dict[int, Kernel]
    second: dict[int, Kernel]
    last: dict[int, Kernel]


def cut_into(plan: Plan, machine: Machine, count: int) -> Plan | None:
    """The plan in `count` chunks, or None."""
    buffers = {b.name: b for b in plan.buffers}
    steps = [step for step in plan.steps if isinstance(step, KernelStep)]
    dies: list[_Die] = []
    before: list[tuple[int, Kernel]] = []
    for die in range(plan.dies):
        numbered = [(n, k) for n, step in enumerate(steps) if (k := step.kernels[die]) is not None]
        if dies and numbered == before:
            dies.append(dies[-1])
            continue
        before = numbered
        search = SplitSearch([k for _, k in numbered], buffers, machine, count, exchange=False)
        choices = search.best()
        if choices is None:
            return None
        columns = zip(*(choice.parts or () for choice in choices), strict=True)
        parts = [dict(zip((n for n, _ in numbered), column, strict=True)) for column in columns]
        dies.append(_Die(parts[0], parts[1], parts[-1]) if parts else _Die({}, {}, {}))
    moves = [_moves(die, buffers, count) for die in dies if die.first]
    if not moves or any(m is None or m != moves[0] for m in moves) or moves[0] is None:
        return None
    return _chunked(plan, steps, dies, moves[0], count)


def _moves(die: _Die, buffers: Mapping[str, Buffer], count: int) -> dict[str, int] | None:
    """Elements by which each buffer's accesses move from chunk to chunk; None when not all alike."""
    before, after = _firsts(die.first.values()), _firsts(die.second.values())
    moves = {name: after[name] - first for name, first in before.items() if buffers[name].role != "constant"}
    for times, kernels in ((1, die.second), (count - 1, die.last)):
        for number, kernel in kernels.items():
            if _moved(kernel, moves, -times) != die.first[number]:
                return None
    return moves


def _moved(kernel: Kernel, moves: Mapping[str, int], times: int) -> Kernel:
    return with_views(kernel, lambda v: moved(v, v.buffer, v.offset + times * moves.get(v.buffer, 0)))


def _firsts(kernels: Iterable[Kernel]) -> dict[str, int]:
    """The first element touched of each buffer."""
    firsts: dict[str, int] = {}
    for kernel in kernels:
        for access in accesses(kernel):
            box = region(access.view)
            firsts[box.buffer] = min(firsts.get(box.buffer, box.offset), box.offset)
    return firsts


def _chunked(
    plan: Plan, steps: Sequence[KernelStep], dies: Sequence[_Die], moves: Mapping[str, int], count: int
) -> Plan:
    roles = {b.name: b.role for b in plan.buffers}
    ends: dict[str, int] = {}
    local = []
    for die in dies:
        firsts = {name: first for name, first in _firsts(die.first.values()).items() if roles[name] == "scratch"}

        def shifted(kernel: Kernel, firsts: dict[str, int] = firsts) -> Kernel:
            return with_views(kernel, lambda v: moved(v, v.buffer, v.offset - firsts.get(v.buffer, 0)))

        kernels = {number: shifted(kernel) for number, kernel in die.first.items()}
        for kernel in kernels.values():
            for access in accesses(kernel):
                box = region(access.view)
                ends[box.buffer] = max(ends.get(box.buffer, 0), box.end)
        local.append(kernels)
    buffers = tuple(
        replace(b, num_bytes=ends[b.name] * dtype(b.dtype).bits // 8) if b.role == "scratch" and b.name in ends else b
        for b in plan.buffers
    )
    elements = {b.name: dtype(b.dtype).bits // 8 for b in plan.buffers}
    advances = tuple(
        (name, move * elements[name]) for name, move in sorted(moves.items()) if move and roles[name] != "scratch"
    )
    new_steps = tuple(KernelStep(tuple(kernels.get(number) for kernels in local)) for number in range(len(steps)))
    return replace(plan, buffers=buffers, steps=new_steps, repeat=count, advances=advances)
