"""The state of one SPC in a walk: events, semaphores, registers, and the class of every cycle."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence

from birc.runtime.machine import Machine
from birc.runtime.timing.queues import Queue
from birc.runtime.timing.result import Variant
from birc.runtime.timing.steps import COMPUTE

# Kinds of events; at one time, in this order.
SEMAPHORE, ARRIVED, ISSUE = range(3)

# Why a queue does not issue; a number from 0 up is the semaphore that it waits for.
RUNNING, LOADS_FULL, STORES_FULL, REGISTER, FINISHED = -1, -2, -3, -4, -5

# Classes of cycles in a walk: a cycle belongs to the first that applies. The pipes' busy cycles follow in
# the list.
MATRIX, VECTOR_WORK, FROM_HBM, FROM_CHIP, DEPENDENCY, ALU_BUSY, SFU_BUSY = range(7)
CLASSES = 5

Tag = tuple[
    int, int, tuple[int, ...]
]  # of a transfer: slot of its queue, register that it loads or -1, posts


class SpcState:
    """What the parts of a walk share.

    A slot numbers a queue in use; times are cycles from the kernel's start.
    """

    __slots__ = (
        "accounted", "by_semaphore", "chip_loads", "events", "executed", "hbm_loads", "machine", 
        "matrix_free", "now", "post_delay", "priority", "queues", "ready", "semaphores", "serial", "shapes",
        "sums", "variants", "vector_free", "waiter",
    )  # fmt: skip

    def __init__(
        self, machine: Machine, queues: list[Queue], semaphores: Sequence[int], registers: int
    ) -> None:
        self.machine = machine
        self.queues = queues
        # Whose semaphore a dependency wait is put down to: the matrix queue, vector programs, load queues.
        self.priority = sorted(queues, key=lambda queue: (queue.number < COMPUTE, queue.number))
        self.semaphores = list(semaphores)
        self.waiter: dict[int, int] = {}  # semaphore -> slot of the queue that is blocked at it
        self.post_delay = machine.semaphore_cycles
        self.events: list[
            tuple[int, int, int, int, tuple]
        ] = []  # time, kind, semaphore or slot, serial, details
        self.serial = 0
        self.ready = [0] * registers  # by register; `NEVER` while a load's end is unknown
        self.shapes: list[tuple[int, ...]] = [()] * registers
        self.now = 0
        self.accounted = 0  # every cycle before this one is in a class
        self.matrix_free = 0
        self.vector_free = 0
        self.hbm_loads = 0
        self.chip_loads = 0
        self.sums = [0] * 7
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
        slot, register, posts = tag
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

    def in_flight(self, hbm: bool, change: int) -> None:
        """A transfer from or to HBM, or on the chip, begins (+1) or has come (-1)."""
        if hbm:
            self.hbm_loads += change
        else:
            self.chip_loads += change

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
        if self.hbm_loads:
            sums[FROM_HBM] += until - start
        elif self.chip_loads:
            sums[FROM_CHIP] += until - start
        else:
            sums[DEPENDENCY] += until - start
            self.by_semaphore[self._awaited()] += until - start

    def _awaited(self) -> int:
        """The semaphore for which the most important blocked queue waits, -1 when none waits for any."""
        for queue in self.priority:
            if queue.blocked >= 0:
                return queue.blocked
        return RUNNING
