"""The state of one SPC in a walk: events, semaphores, registers, and the class of every cycle."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from birc.runtime.machine import Machine
from birc.runtime.timing.queues import Queue
from birc.runtime.timing.result import Variant
from birc.runtime.timing.steps import COMPUTE

# Kinds of events; at one time, in this order.
SEMAPHORE, ARRIVED, ISSUE = range(3)

# Why a queue does not issue; a number from 0 up is the semaphore that it waits for.
RUNNING, LOADS_FULL, STORES_FULL, REGISTER, FINISHED = -1, -2, -3, -4, -5

# Classes of cycles in a walk: a cycle belongs to the first that applies. In the list follow the pipes' busy cycles, and
# the bytes that came for vector programs through the port to the NoC.
MATRIX, VECTOR_WORK, FROM_HBM, FROM_CHIP, DEPENDENCY, ALU_BUSY, SFU_BUSY, PROGRAM_BYTES = range(8)
CLASSES = 5

Tag = tuple[int, int, tuple[int, ...], int]
"""Of a transfer: slot of its queue, register that it loads or -1, posts, bytes through the port as `PROGRAM_BYTES`."""


class SpcState:
    """What the parts of a walk share.

    A slot numbers a queue in use; times are cycles from the kernel's start.
    """

    __slots__ = (
        "accounted", "by_semaphore", "events", "executed", "machine", "matrix_free", "now", "post_delay",
        "priority", "producers", "queues", "ready", "semaphores", "serial", "shapes", "sums", "tcore_bytes",
        "tcore_end", "variants", "vector_free", "waiter",
    )  # fmt: skip

    def __init__(
        self,
        machine: Machine,
        queues: list[Queue],
        semaphores: Sequence[int],
        registers: int,
        producers: Mapping[int, Collection[int]],
    ) -> None:
        self.machine = machine
        self.queues = queues
        # Whose semaphore a dependency wait is put down to: the matrix queue, vector programs, load queues.
        self.priority = sorted(queues, key=lambda queue: (queue.number < COMPUTE, queue.number))
        self.semaphores = list(semaphores)
        self.producers = producers  # semaphore -> numbers of the queues that post it
        self.waiter: dict[int, int] = {}  # semaphore -> slot of the queue that is blocked at it
        self.post_delay = machine.semaphore_cycles
        self.events: list[tuple[int, int, int, int, tuple]] = []  # time, kind, semaphore or slot, serial, details
        self.serial = 0
        self.ready = [0] * registers  # by register; `NEVER` while a load's end is unknown
        self.shapes: list[tuple[int, ...]] = [()] * registers
        self.now = 0
        self.accounted = 0  # every cycle before this one is in a class
        self.matrix_free = 0
        self.vector_free = 0
        self.tcore_end = 0  # of its last operation, or when the last of its operands came
        self.tcore_bytes = 0  # those for vector programs before its last operation began
        self.sums = [0] * 8
        self.by_semaphore: defaultdict[int, int] = defaultdict(int)
        self.variants: list[Variant] = []
        self.executed: list[int] = []  # by variant

    # Events and semaphores.

    def push(self, time: int, kind: int, index: int, details: tuple = ()) -> None:
        """Add an event."""
        self.serial += 1
        heapq.heappush(self.events, (time, kind, index, self.serial, details))

    def arrives(self, time: int, tag: Tag, store: bool, hbm: bool) -> None:
        """A transfer's data, or the acknowledgement of a store, will have come at `time`."""
        slot, register, posts, _ = tag
        self.push(time, ARRIVED, slot, (store, hbm))
        for semaphore in posts:
            self.push(time + self.post_delay, SEMAPHORE, semaphore)
        if register < 0:
            return
        self.ready[register] = time
        for other, queue in enumerate(self.queues):
            if queue.blocked == REGISTER:
                self.wake(other)

    def wake(self, slot: int) -> None:
        """Let a blocked queue try again now."""
        self.queues[slot].blocked = RUNNING
        self.push(self.now, ISSUE, slot)

    # Counting.

    def add_variant(self, variant: Variant) -> int:
        """The number of a new variant."""
        self.variants.append(variant)
        self.executed.append(0)
        return len(self.variants) - 1

    # The ledger.

    def account(self, until: int) -> None:
        """Put the cycles since the last call into their classes; what decides them did not change since."""
        start = self.accounted
        if until <= start:
            return
        self.accounted = until
        sums = self.sums
        if self.matrix_free > start:
            end = min(self.matrix_free, until)
            sums[MATRIX] += end - start
            start = end
        if self.vector_free > start:
            end = min(self.vector_free, until)
            sums[VECTOR_WORK] += end - start
            start = end
        if start == until:
            return
        kind, semaphore = self._cause(start)
        sums[kind] += until - start
        if kind == DEPENDENCY:
            self.by_semaphore[semaphore] += until - start

    def _cause(self, since: int) -> tuple[int, int]:
        """What the SPC waits for since a time at which no pipe works: a class, and the semaphore awaited.

        The most important queue that has not ended is followed to what it waits for: memory when its data, or
        the data of the load queue that posts its semaphore, is in flight.
        """
        for queue in self.priority:
            if queue.blocked != FINISHED:
                waiting = self._memory_wait(queue, since, set())
                if waiting is None:
                    return DEPENDENCY, max(queue.blocked, RUNNING)
                return (FROM_HBM if waiting.from_hbm else FROM_CHIP), RUNNING
        return (FROM_HBM if any(queue.from_hbm for queue in self.queues) else FROM_CHIP), RUNNING

    def _memory_wait(self, queue: Queue, since: int, seen: set[int]) -> Queue | None:
        """The queue whose transfers hold back `queue`, or None; a queue in `seen` is not followed again."""
        seen.add(queue.number)
        if queue.blocked in (REGISTER, LOADS_FULL, STORES_FULL):
            return queue
        if queue.blocked >= 0:
            for producer in self.queues:
                if producer.number in self.producers.get(queue.blocked, ()):
                    if producer.number < COMPUTE and producer.loads:
                        return producer
                    found = self._memory_wait(producer, since, seen) if producer.number not in seen else None
                    if found is not None:
                        return found
            return None
        loading = queue.loads and any(self.ready[register] > since for register in queue.registers)
        return queue if loading or (queue.blocked == FINISHED and queue.stores) else None
