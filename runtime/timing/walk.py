"""The walk: one SPC executes one kernel, event by event, in integer cycles.

Every queue issues its instructions in order. An instruction starts when its waits are satisfied, its
registers are ready and its pipe is free; loads and stores run on through the ports, and what an instruction
posts is seen by the waiter `semaphore_cycles` after its end. Between two events the SPC's state is
constant, so each cycle is put in one class of the ledger as time passes.
"""

from __future__ import annotations

import heapq
import math
from fractions import Fraction

from birc.runtime.errors import BadPackageError, InternalError
from birc.runtime.machine import Machine
from birc.runtime.timing.memory_unit import MemoryUnit
from birc.runtime.timing.ops import Op
from birc.runtime.timing.ports import NEVER
from birc.runtime.timing.queues import NO_LOOP, STEP, Queue, queue_codes
from birc.runtime.timing.repeat import Repeats
from birc.runtime.timing.result import Lead, Variant, WalkResult, traffic_of
from birc.runtime.timing.routes import exact
from birc.runtime.timing.state import (
    ALU_BUSY,
    CLASSES,
    FINISHED,
    ISSUE,
    LOADS_FULL,
    PROGRAM_BYTES,
    REGISTER,
    SEMAPHORE,
    SFU_BUSY,
    STORES_FULL,
    SpcState,
)
from birc.runtime.timing.steps import (
    COMPUTE,
    LOAD_B,
    MULTIPLY,
    VECTOR,
    LoopSpec,
    SpcKernel,
    StepSpec,
    SyncSpec,
    affine_range,
)
from birc.runtime.timing.vector_unit import VectorUnit


def walk(
    kernel: SpcKernel, machine: Machine, *, ahead: int = 0, extrapolate: bool = True, most: float = math.inf
) -> WalkResult | None:
    """Execute a kernel on one SPC, from idle to idle; its B is loaded from `ahead` cycles before its start on.

    None as soon as it takes more than `most` cycles. With `extrapolate`, stretches that repeat exactly are computed
    instead of simulated; the result is the same. Raises `BadPackageError` when the kernel never ends.
    """
    return Walk(kernel, machine, extrapolate=extrapolate).run(ahead, most)


def lead(kernel: SpcKernel, machine: Machine) -> Lead:
    """What the queue that loads B does while the others have not begun."""
    return Walk(kernel, machine, extrapolate=False).run_ahead()


class Walk:
    """The event loop, and how queues issue instructions."""

    __slots__ = ("_repeats", "_vector_waits", "_walked", "memory", "state", "vector")

    def __init__(self, kernel: SpcKernel, machine: Machine, *, extrapolate: bool) -> None:
        tcore, warp = machine.outstanding_loads_per_tcore_queue, machine.outstanding_loads_per_warp
        queues = [Queue(code, warp if code.queue >= VECTOR else tcore) for code in queue_codes(kernel)]
        steps = [step for step, _ in kernel.steps()]
        routes = list(dict.fromkeys(step.access.route for step in steps if step.access is not None))
        self.state = SpcState(machine, queues, kernel.semaphores, _registers(kernel), _producers(kernel))
        self.memory = MemoryUnit(self.state, routes)
        self.vector = VectorUnit(self.state)
        self._vector_waits = _awaited_by_programs(kernel)
        self._walked = 0
        self._repeats = Repeats(kernel, self.state, self.memory, self.vector) if extrapolate else None
        ops = {step.index: self._prepare(step) for step in steps}
        for queue in queues:
            code = queue.cursor.code
            queue.cursor.code = tuple((STEP, ops[e[1].index]) if e[0] == STEP else e for e in code)

    def _prepare(self, step: StepSpec) -> Op:
        op = Op(step)
        if step.access is not None:
            self.memory.prepare(op)
        elif step.pipe == MULTIPLY:
            op.handler = self._multiply
            variant = Variant(step.index, macs=step.macs, cycles=step.cycles, format=step.format)
            op.variant = self.state.add_variant(variant)
        else:
            self.vector.prepare(op)
        return op

    def run(self, ahead: int = 0, most: float = math.inf) -> WalkResult | None:
        """Execute the kernel, which starts at time `ahead`; only its queue that loads B begins at time 0.

        None as soon as it takes more than `most` cycles. Raises `BadPackageError` when it never ends.
        """
        state = self.state
        state.accounted = ahead  # What is before it lies between two kernels.
        for slot, queue in enumerate(state.queues):
            self._fetch(queue)
            state.push(0 if queue.number == LOAD_B else ahead, ISSUE, slot)
        return self._result(ahead) if self._work(ahead + most) else None

    def run_ahead(self) -> Lead:
        """Execute what the queue that loads B can do alone."""
        state = self.state
        state.accounted = NEVER
        for slot, queue in enumerate(state.queues):
            if queue.number == LOAD_B:
                self._fetch(queue)
                state.push(0, ISSUE, slot)
        self._work(math.inf)
        traffic = traffic_of(self._executed())
        return Lead(state.now, traffic.get("hbm", Fraction(0)), traffic.get("noc in", Fraction(0)))

    def _work(self, end: float) -> bool:
        """Take event after event; False as soon as the kernel is at work behind the time `end`."""
        state, ports = self.state, self.memory.ports
        events = state.events
        while events or ports.next_time != NEVER:
            if end < state.accounted < NEVER:
                return False
            if not events or ports.next_time <= events[0][0]:
                state.now = ports.next_time
                state.account(state.now)
                self.memory.transfers_end(state.now)
                continue
            state.now, kind, index, _, details = heapq.heappop(events)
            if kind == ISSUE:
                self._issue(index)
            elif kind == SEMAPHORE:
                self._count_up(index)
            else:
                self._arrive(index, details)
        return True

    def _result(self, ahead: int) -> WalkResult:
        state = self.state
        stuck = [queue for queue in state.queues if queue.op is not None]
        if stuck:
            names = ", ".join(f"queue {queue.number} at semaphore {queue.blocked}" for queue in stuck)
            raise BadPackageError(f"a kernel never ends: {names}", hint="the verifier says where")
        end = max(state.accounted, state.matrix_free, state.vector_free)
        state.account(end)
        classes = state.sums[:CLASSES]
        if sum(classes) != end - ahead or sum(state.by_semaphore.values()) != classes[-1]:
            raise InternalError(f"the ledger of a walk holds {sum(classes)} of {end - ahead} cycles")
        return WalkResult(
            cycles=end - ahead,
            classes=(classes[0], classes[1], classes[2], classes[3], classes[4]),
            alu_cycles=state.sums[ALU_BUSY],
            sfu_cycles=state.sums[SFU_BUSY],
            awaited=tuple(sorted(state.by_semaphore.items())),
            executed=self._executed(),
            input_free_cycles=self._input_free(ahead, end),
            walked=self._walked,
        )

    def _input_free(self, ahead: int, end: int) -> int:
        """When the T-core is through, and the port to the NoC with what vector programs load from then on.

        Theirs go first: they are of the kernel before.
        """
        state = self.state
        late_bytes = state.sums[PROGRAM_BYTES] - state.tcore_bytes
        late_cycles = math.ceil(late_bytes / exact(state.machine.noc_bytes_per_cycle))
        return min(end, max(ahead, state.tcore_end) + late_cycles) - ahead

    def _executed(self) -> tuple[tuple[Variant, int], ...]:
        return tuple((v, n) for v, n in zip(self.state.variants, self.state.executed, strict=True) if n)

    def _count_up(self, semaphore: int) -> None:
        state = self.state
        state.semaphores[semaphore] += 1
        slot = state.waiter.pop(semaphore, None)
        if slot is not None:
            state.account(state.now)
            state.wake(slot)

    def _arrive(self, slot: int, details: tuple) -> None:
        state = self.state
        state.account(state.now)
        store, hbm = details
        queue = state.queues[slot]
        queue.from_hbm -= hbm
        if store:
            queue.stores -= 1
        else:
            queue.loads -= 1
            if queue.number < COMPUTE:
                state.tcore_end = state.now
        if queue.blocked == (STORES_FULL if store else LOADS_FULL):
            state.wake(slot)

    def _issue(self, slot: int) -> None:
        """Start the queue's next instruction, or note why it cannot start."""
        state = self.state
        if state.now > state.accounted:
            state.account(state.now)
        queue = state.queues[slot]
        if queue.cursor.crossed != NO_LOOP:
            if self._repeats is not None:
                self._repeats.went_round(slot)
            queue.cursor.crossed = NO_LOOP
        if queue.draining >= 0:
            self._next(slot, queue, self.vector.accumulate(queue))
            return
        if not self._may_start(slot, queue):
            return
        op = queue.op
        next_issue = op.handler(slot, queue, op)
        if next_issue < 0:
            return
        for semaphore in queue.waits:
            state.semaphores[semaphore] -= 1
        self._walked += 1
        if queue.draining >= 0:
            state.push(next_issue, ISSUE, slot)
        else:
            self._next(slot, queue, next_issue)

    def _may_start(self, slot: int, queue: Queue) -> bool:
        """Whether waits and registers are ready; if not, the queue is blocked or tries again then."""
        state = self.state
        for semaphore in queue.waits:
            if state.semaphores[semaphore] <= 0:
                queue.blocked = semaphore
                state.waiter[semaphore] = slot
                return False
        needed = 0
        for register in queue.registers:
            needed = max(needed, state.ready[register])
        if needed <= state.now:
            return True
        if needed == NEVER:
            queue.blocked = REGISTER
        else:
            state.push(needed, ISSUE, slot)
        return False

    def _next(self, slot: int, queue: Queue, time: int) -> None:
        """Fetch the next instruction; it tries at `time`, or when its registers are known to be ready."""
        self._fetch(queue)
        if queue.op is None:
            return
        state = self.state
        if not queue.waits:
            for register in queue.registers:
                needed = state.ready[register]
                if time < needed < NEVER:
                    time = needed
        state.push(time, ISSUE, slot)

    def _fetch(self, queue: Queue) -> None:
        cursor = queue.cursor
        op = queue.op = cursor.advance()
        if op is None:
            queue.blocked = FINISHED
            queue.waits = queue.registers = ()
            return
        queue.waits = op.waits if op.waits is not None else op.waits_at(cursor)
        queue.registers = op.registers if op.registers is not None else op.registers_at(cursor)

    def _multiply(self, slot: int, queue: Queue, op: Op) -> int:
        """tmma, tconv: the next one follows at once; its sums can be drained `tcore_fill_cycles` later."""
        state = self.state
        end = state.now + op.spec.cycles
        state.matrix_free = state.tcore_end = end
        state.tcore_bytes = state.sums[PROGRAM_BYTES]
        for semaphore in op.posts_at(queue.cursor):
            fill = state.machine.tcore_fill_cycles if semaphore in self._vector_waits else 0
            state.push(end + fill + state.post_delay, SEMAPHORE, semaphore)
        state.executed[op.variant] += 1
        return end


def _registers(kernel: SpcKernel) -> int:
    """How many registers the kernel numbers."""
    highest = -1
    for step, loops in kernel.steps():
        trips = {loop.depth: loop.extent for loop in loops}
        for number in (*step.reads, *(() if step.writes is None else (step.writes,))):
            highest = max(highest, affine_range(number, trips)[1])
    return highest + 1


def _awaited_by_programs(kernel: SpcKernel) -> frozenset[int]:
    """The semaphores for which vector programs wait."""
    waits = [(sync, loops) for step, loops in kernel.steps() if step.queue >= VECTOR for sync in step.waits]
    return frozenset(number for sync, loops in waits for number in _numbers(sync, loops))


def _producers(kernel: SpcKernel) -> dict[int, set[int]]:
    """The queues whose instructions post each semaphore."""
    found: dict[int, set[int]] = {}
    for step, loops in kernel.steps():
        spread = max((loop.extent for loop in loops if loop.spread), default=1) if step.queue >= VECTOR else 1
        for sync in step.posts:
            for number in _numbers(sync, loops):
                found.setdefault(number, set()).update(range(step.queue, step.queue + spread))
    return found


def _numbers(sync: SyncSpec, loops: tuple[LoopSpec, ...]) -> set[int]:
    """The semaphores that a wait or post can mean."""
    trips = {loop.depth: loop.extent for loop in loops}
    values = {sync.semaphore.constant}
    for depth, coefficient in sync.semaphore.terms:
        values = {value + coefficient * i for value in values for i in range(trips[depth])}
    return values
