"""What happens inside one SPC: a kernel's queues, its semaphores, and everything they share on the chip.

The queues of an SPC are a network in which each semaphore is taken by one queue only, so whether it can run
to its end does not depend on the order of execution: the sequential order is as good as any other. The walk
goes through the kernel in sequential order and keeps, for each queue, how much of every other queue is known
to be done (a vector clock, passed on by posts and waits). Two accesses that conflict are ordered when the
later one knows of the earlier one; every conflict must be, in the direction of the sequential order.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.machine import Machine
from birc.runtime.program import Affine, Kernel, RingAddress, Sync
from birc.runtime.verifier.findings import Findings
from birc.runtime.verifier.scope import Place
from birc.runtime.verifier.unroll import Instances, Ints, Unrolled

LOAD_A, LOAD_B, COMPUTE, FIRST_PROGRAM = range(4)
QUEUE_OF: Final = {"load_a": LOAD_A, "load_b": LOAD_B, "compute": COMPUTE}
QUEUE_NAMES: Final = ("load A", "load B", "compute")

LIMIT_BALANCE: Final = "semaphores return to their initial counts"

Clock = tuple[int, ...]


def queue_name(queue: int) -> str:
    return QUEUE_NAMES[queue] if queue < FIRST_PROGRAM else f"vector program {queue - FIRST_PROGRAM}"


@dataclass(frozen=True, slots=True)
class Step:
    """A static instruction with what varies from iteration to iteration, as plain lists."""

    instances: Instances
    queue: list[int]
    variables: list[list[int]]
    waits: tuple[tuple[list[int], list[bool]], ...]  # semaphore and whether it takes part
    posts: tuple[tuple[list[int], list[bool]], ...]

    @property
    def place(self) -> Place:
        return self.instances.place

    def name(self, iteration: int) -> str:
        return self.place.name(tuple(self.variables[iteration]))


@dataclass(slots=True)
class Event:
    """One execution: by whom, the how manyth in its queue, and which it is."""

    queue: int
    index: int
    step: Step
    iteration: int


@dataclass(slots=True)
class Shared:
    """Something that queues share: who wrote it last and, per queue, who read it last since."""

    writer: Event | None = None
    readers: dict[int, Event] = field(default_factory=dict)


class Order:
    """Queues, clocks and semaphores during the walk."""

    def __init__(self, kernel: Kernel, machine: Machine, findings: Findings) -> None:
        self.queues = FIRST_PROGRAM + machine.vector_programs
        self.clocks = [[0] * self.queues for _ in range(self.queues)]
        self.findings = findings
        self._initial = kernel.semaphores
        self._posted: list[deque[Clock | None]] = [deque([None] * count) for count in kernel.semaphores]
        self._last_post: list[tuple[int, int] | None] = [None] * len(kernel.semaphores)
        self._waiter: list[int | None] = [None] * len(kernel.semaphores)
        self._kernel = kernel.name

    def begin(self, step: Step, iteration: int) -> Event:
        """Perform the waits of an execution and return it as an event."""
        queue = step.queue[iteration]
        clock = self.clocks[queue]
        for semaphores, active in step.waits:
            if active[iteration]:
                self._wait(semaphores[iteration], queue, clock, step, iteration)
        return Event(queue, clock[queue], step, iteration)

    def end(self, event: Event) -> None:
        """Count the execution as done and perform its posts."""
        clock = self.clocks[event.queue]
        clock[event.queue] = event.index + 1
        for semaphores, active in event.step.posts:
            if active[event.iteration]:
                self._post(semaphores[event.iteration], event, clock)

    def knows(self, event: Event, earlier: Event) -> bool:
        """Whether `earlier` is done in every execution in which `event` (just begun) starts."""
        return self.clocks[event.queue][earlier.queue] > earlier.index

    def finish(self) -> None:
        """Every semaphore must be back at its initial count."""
        for number, (posted, count) in enumerate(zip(self._posted, self._initial, strict=True)):
            if len(posted) != count:
                what = f"semaphore {number} ends at {len(posted)}, it began at {count}"
                self.findings.add(f"kernel {self._kernel}", what, LIMIT_BALANCE)

    def _wait(self, number: int, queue: int, clock: list[int], step: Step, iteration: int) -> None:
        waiter = self._waiter[number]
        if waiter is None:
            self._waiter[number] = queue
        elif waiter != queue:
            what = f"semaphore {number} is waited for by {queue_name(waiter)} and {queue_name(queue)}"
            self.findings.add(step.name(iteration), what, "one waiting queue a semaphore", place=step.place.index)
        if not self._posted[number]:
            what = f"deadlock: waits for semaphore {number}, which nothing before it in program order posts"
            limit = "every wait has its post before it"
            self.findings.add(step.name(iteration), what, limit, place=step.place.index)
            return
        posted = self._posted[number].popleft()
        if posted is not None:
            for other, done in enumerate(posted):
                if done > clock[other]:  # noqa: PLR1730  # half the time of max, in the innermost loop
                    clock[other] = done

    def _post(self, number: int, event: Event, clock: list[int]) -> None:
        last = self._last_post[number]
        if last is not None and clock[last[0]] <= last[1]:
            queues = f"{queue_name(last[0])} and {queue_name(event.queue)}"
            what = f"posts to semaphore {number} by {queues} in no fixed order"
            limit = "posts to a semaphore are ordered"
            self.findings.add(event.step.name(event.iteration), what, limit, place=event.step.place.index)
        self._last_post[number] = (event.queue, event.index)
        self._posted[number].append(tuple(clock))


class Hazards:
    """Reads and writes of shared things, each checked against those before it."""

    def __init__(self, order: Order, findings: Findings) -> None:
        self._order = order
        self._findings = findings
        self._par_depths: dict[tuple[int, int], tuple[int, ...]] = {}

    def read(self, shared: Shared, event: Event, what: str) -> None:
        """A read of `shared`."""
        writer = shared.writer
        if writer is None:
            self.fault(event, f"reads {what}, which was never written", "written before it is read")
            return
        if writer.queue != event.queue and not self._order.knows(event, writer):
            self._race(event, writer, f"reads {what} while it is written")
        self._check_carried(event, writer, what)
        shared.readers[event.queue] = event

    def write(self, shared: Shared, event: Event, what: str) -> None:
        """A write of `shared`, which becomes its content."""
        self.displace(shared, event, what)
        shared.writer = event
        shared.readers = {}

    def displace(self, shared: Shared, event: Event, what: str) -> None:
        """Check a write against everybody who used the old content."""
        writer = shared.writer
        if writer is not None and writer.queue != event.queue and not self._order.knows(event, writer):
            self._race(event, writer, f"overwrites {what} while it is written")
        for queue, reader in shared.readers.items():
            if queue != event.queue and not self._order.knows(event, reader):
                self._race(event, reader, f"overwrites {what} while it is read")

    def fault(self, event: Event, what: str, limit: str) -> None:
        self._findings.add(event.step.name(event.iteration), what, limit, place=(event.step.place.index, limit))

    def _race(self, event: Event, other: Event, what: str) -> None:
        by = f"{what} by {queue_name(other.queue)} in {other.step.name(other.iteration)}"
        self.fault(event, by, "a semaphore orders conflicting accesses")

    def _check_carried(self, event: Event, writer: Event, what: str) -> None:
        """A value may not pass from one iteration of a par loop to another."""
        key = (writer.step.place.index, event.step.place.index)
        depths = self._par_depths.get(key)
        if depths is None:
            depths = self._par_depths[key] = common_par_depths(writer.step.place, event.step.place)
        if not depths:
            return
        mine = event.step.variables[event.iteration]
        theirs = writer.step.variables[writer.iteration]
        for depth in depths:
            if mine[depth] != theirs[depth]:
                text = f"reads {what} of another iteration of the par loop at depth {depth}"
                self.fault(event, text, "iterations of a par loop are independent")
                return


def common_par_depths(left: Place, right: Place) -> tuple[int, ...]:
    """The depths of the par loops (not over SPCs) that stand around both instructions."""
    depths = []
    for depth, (loop, one, other) in enumerate(zip(left.loops, left.path, right.path, strict=False)):
        if one != other or depth >= len(right.loops):
            break
        if loop.kind == "par" and loop.level != "spc":
            depths.append(depth)
    return tuple(depths)


def check_balance(kernel: Kernel, unrolled: Unrolled, findings: Findings) -> None:
    """Over the whole kernel every semaphore must be posted as often as it is waited for."""
    sums = np.zeros(len(kernel.semaphores), np.int64)
    for instances in unrolled.instances:
        instruction = instances.place.instruction
        for syncs, sign in ((instruction.posts, 1), (instruction.waits, -1)):
            for sync in syncs:
                taking = instances.values(sync.semaphore)[instances.where(sync.first, sync.last)]
                sums += sign * np.bincount(taking, minlength=len(sums))
    for number in np.flatnonzero(sums):
        what = f"semaphore {number} ends at {kernel.semaphores[number] + sums[number]}"
        findings.add(f"kernel {kernel.name}", f"{what}, it began at {kernel.semaphores[number]}", LIMIT_BALANCE)


def steps_of(unrolled: Unrolled) -> tuple[Step, ...]:
    """The static instructions of a kernel, ready to walk."""
    return tuple(_step(instances) for instances in unrolled.instances)


def program_order(unrolled: Unrolled) -> tuple[list[int], list[int]]:
    """For each event in sequential order: its static instruction and which of its executions it is."""
    static = np.empty(unrolled.events, np.int64)
    which = np.empty(unrolled.events, np.int64)
    for index, instances in enumerate(unrolled.instances):
        static[instances.position] = index
        which[instances.position] = np.arange(len(instances.position))
    return static.tolist(), which.tolist()


def queues_of(instances: Instances) -> Ints:
    """The queue of each execution."""
    place = instances.place
    count = len(instances.position)
    engine = BY_MNEMONIC[place.instruction.mnemonic].engine
    if engine != "vector":
        return np.full(count, QUEUE_OF[engine], np.int64)
    queue = np.full(count, FIRST_PROGRAM + place.instruction.program, np.int64)
    for depth, loop in enumerate(place.loops):
        if loop.level == "program":
            queue += instances.variables[:, depth]
    return queue


def _step(instances: Instances) -> Step:
    instruction = instances.place.instruction
    return Step(
        instances,
        queues_of(instances).tolist(),
        instances.variables.tolist(),
        tuple(_sync(sync, instances) for sync in instruction.waits),
        tuple(_sync(sync, instances) for sync in instruction.posts),
    )


def _sync(sync: Sync, instances: Instances) -> tuple[list[int], list[bool]]:
    return instances.values(sync.semaphore).tolist(), instances.where(sync.first, sync.last).tolist()


def numbers(instances: Instances, number: Affine | RingAddress) -> list[int]:
    """An affine number or ring address in every iteration, as a plain list."""
    values = instances.ring(number) if isinstance(number, RingAddress) else instances.values(number)
    return values.tolist()
