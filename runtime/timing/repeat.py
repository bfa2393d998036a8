"""Extrapolation: when the whole relative state of an SPC repeats, whole periods are added instead of walked.

Each time the first queue of a loop begins another iteration, everything that decides the future is compared
with a saved state, without absolute times and without absolute iterations of that loop. If they are equal,
and every queue inside the loop stays in the loop's steady range (`steady.py`), the SPC does the same again
and again: time, iterations and all sums move on by a whole number of periods. The saved state is renewed at
doubling intervals, so that a period of any length is found. Since the state is compared whole, the result
is that of the full walk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from birc.runtime.timing.memory_unit import MemoryUnit
from birc.runtime.timing.ports import NEVER
from birc.runtime.timing.queues import Queue
from birc.runtime.timing.state import SpcState
from birc.runtime.timing.steady import SteadyRange, steady_ranges
from birc.runtime.timing.steps import COMPUTE, VECTOR, LoopSpec, SpcKernel, StepSpec
from birc.runtime.timing.vector_unit import VectorUnit

# Loops with fewer steady iterations are not watched: nothing could be skipped.
LEAST_ITERATIONS = 4


@dataclass(slots=True)
class _Saved:
    """A state of the SPC, and what had been summed up when it was reached."""

    key: tuple
    full: tuple
    iteration: int
    time: int
    sums: list[int]
    executed: list[int]
    by_semaphore: dict[int, int]


@dataclass(slots=True)
class _Watch:
    """One loop under observation. `outer` are the variables of the loops around it while `saved` holds."""

    number: int
    depth: int
    leader: int  # slot of the queue at whose new iterations the state is compared
    range: SteadyRange
    outer: tuple[int, ...] = ()
    saved: _Saved | None = None
    seen: int = 0
    interval: int = 1
    done: bool = False


@dataclass(slots=True)
class Repeats:
    """Finds repetitions in a walk and skips them."""

    kernel: SpcKernel
    state: SpcState
    memory: MemoryUnit
    vector: VectorUnit
    _watches: dict[int, _Watch] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ranges = steady_ranges(self.kernel)
        for loop in _loops(self.kernel.nests):
            steady = ranges.get(loop.number)
            leader = self._leader(loop.number)
            if steady is None or leader is None or steady.end - steady.first < LEAST_ITERATIONS:
                continue
            self._watches[loop.number] = _Watch(loop.number, loop.depth, leader, steady)

    def _leader(self, number: int) -> int | None:
        """The matrix queue if it is in the loop, else a vector program, else a load queue."""
        inside = [slot for slot, queue in enumerate(self.state.queues) if number in queue.code.spans]
        return min(inside, key=lambda slot: self._rank(self.state.queues[slot].number), default=None)

    @staticmethod
    def _rank(queue: int) -> int:
        return {COMPUTE: 0}.get(queue, queue if queue >= VECTOR else 1 << 16)

    def went_round(self, slot: int) -> None:
        """Queue `slot` begins another iteration of a loop: compare, and skip what repeats."""
        queue = self.state.queues[slot]
        watch = self._watches.get(queue.cursor.crossed)
        if watch is None or watch.leader != slot:
            return
        outer = tuple(queue.cursor.variables[: watch.depth])
        if outer != watch.outer or queue.cursor.variables[watch.depth] == 1:
            watch.outer, watch.saved, watch.seen, watch.interval, watch.done = outer, None, 0, 1, False
        if watch.done:
            return
        iteration = queue.cursor.variables[watch.depth]
        if iteration < watch.range.first:
            return
        if iteration + 1 >= watch.range.end_within(queue.cursor.trips[watch.depth]):
            watch.done = True
            return
        self._compare(watch, iteration)

    def _compare(self, watch: _Watch, iteration: int) -> None:
        key = self._quick_state()
        saved = watch.saved
        if saved is not None and saved.key == key and saved.full == self._full_state(watch, iteration):
            self._skip(watch, saved, iteration)
            watch.saved, watch.seen, watch.interval = None, 0, 1
            return
        watch.seen += 1
        if saved is None or watch.seen >= watch.interval:
            watch.interval *= 2
            watch.seen = 0
            state = self.state
            watch.saved = _Saved(
                key,
                self._full_state(watch, iteration),
                iteration,
                state.now,
                list(state.sums),
                list(state.executed),
                dict(state.by_semaphore),
            )

    def _skip(self, watch: _Watch, saved: _Saved, iteration: int) -> None:
        """Move on by as many whole periods as every queue has steady iterations left."""
        period = iteration - saved.iteration
        depth = watch.depth
        inside = [queue for queue in self.state.queues if self._is_inside(queue, watch)]
        left = []
        for queue in inside:
            at = queue.cursor.variables[depth]
            if at - period < watch.range.first:
                return
            left.append(watch.range.end_within(queue.cursor.trips[depth]) - 1 - at)
        times = min(left) // period
        if times <= 0:
            return
        for queue in inside:
            queue.cursor.variables[depth] += times * period
        self._add(saved, times)
        self._shift((self.state.now - saved.time) * times)

    def _add(self, saved: _Saved, times: int) -> None:
        state = self.state
        for index, before in enumerate(saved.sums):
            state.sums[index] += (state.sums[index] - before) * times
        for variant, now in enumerate(state.executed):
            before = saved.executed[variant] if variant < len(saved.executed) else 0
            state.executed[variant] += (now - before) * times
        for semaphore, now in list(state.by_semaphore.items()):
            state.by_semaphore[semaphore] += (now - saved.by_semaphore.get(semaphore, 0)) * times

    def _shift(self, cycles: int) -> None:
        """Everything happens `cycles` later."""
        state = self.state
        state.now += cycles
        state.accounted += cycles
        state.matrix_free += cycles
        state.vector_free += cycles
        state.events[:] = [(event[0] + cycles, *event[1:]) for event in state.events]
        state.ready[:] = [time if time == NEVER else time + cycles for time in state.ready]
        self.memory.ports.shift(cycles)
        self.vector.shift(cycles)

    def _is_inside(self, queue: Queue, watch: _Watch) -> bool:
        """Whether the queue is in the same execution of the loop as the leader."""
        span = queue.code.spans.get(watch.number)
        if span is None or not span[0] < queue.cursor.position < span[1]:
            return False
        return tuple(queue.cursor.variables[: watch.depth]) == watch.outer

    def _quick_state(self) -> tuple:
        """A part of the state that is cheap to get and usually differs when the state does."""
        state = self.state
        positions = tuple(queue.cursor.position for queue in state.queues)
        return positions, tuple(state.semaphores), len(state.events)

    def _full_state(self, watch: _Watch, iteration: int) -> tuple:
        """All that decides what happens next, times relative to now and iterations to the leader's."""
        state = self.state
        now = state.now
        events = tuple((time - now, kind, index, details) for time, kind, index, _, details in sorted(state.events))
        ready = tuple(time if time == NEVER else max(0, time - now) for time in state.ready)
        registers = (ready, tuple(state.shapes))
        busy = (max(0, state.matrix_free - now), max(0, state.vector_free - now))
        queues = tuple(self._queue_state(queue, watch, iteration) for queue in state.queues)
        return (
            queues,
            events,
            registers,
            busy,
            self.memory.ports.relative_state(now),
            self.vector.relative_state(now),
        )

    def _queue_state(self, queue: Queue, watch: _Watch, iteration: int) -> tuple:
        cursor = queue.cursor
        variables = [cursor.variables[depth] for depth in queue.code.open_depths[cursor.position]]
        if self._is_inside(queue, watch):
            place = queue.code.open_depths[cursor.position].index(watch.depth)
            variables[place] -= iteration
        trips = tuple(cursor.trips[depth] for depth in queue.code.open_depths[cursor.position])
        return (
            cursor.position,
            tuple(variables),
            trips,
            queue.blocked,
            queue.draining,
            queue.loads,
            queue.stores,
        )


def _loops(items: tuple[LoopSpec | StepSpec, ...]) -> list[LoopSpec]:
    """Every loop, in text order."""
    found = []
    for item in items:
        if isinstance(item, LoopSpec):
            found += [item, *_loops(item.body)]
    return found
