"""The projection of an SPC's loop nests on each of its queues, as flat code with a cursor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from birc.runtime.program import MAX_LOOP_DEPTH, Affine
from birc.runtime.timing.steps import VECTOR, LoopSpec, SpcKernel, StepSpec, steps_below

# Code entries are (STEP, spec), (BEGIN, depth, first iteration, last iteration + 1 or None, loop, exit
# position), (NEXT, depth, position of the body, loop number) and (END,).
STEP, BEGIN, NEXT, END = range(4)

NO_LOOP: Final = -1


@dataclass(frozen=True, slots=True)
class QueueCode:
    """What one queue executes.

    `spans` gives for each loop number the positions (begin, end) of its code, for loops that this queue runs
    through whole; `open_depths[position]` are the depths of the loops around a position.
    """

    queue: int
    code: tuple[tuple, ...]
    spans: dict[int, tuple[int, int]]
    open_depths: tuple[tuple[int, ...], ...]


def queue_codes(kernel: SpcKernel) -> tuple[QueueCode, ...]:
    """The code of every queue that has any, in the order of the queues."""
    return tuple(_Writer(queue).write(kernel) for queue in used_queues(kernel))


def used_queues(kernel: SpcKernel) -> list[int]:
    """The queues with at least one instruction, sorted."""
    used: set[int] = set()
    for step, loops in kernel.steps():
        spread = next((loop.extent for loop in loops if loop.spread), 1) if step.queue >= VECTOR else 1
        used.update(range(step.queue, step.queue + spread))
    return sorted(used)


@dataclass(slots=True)
class _Writer:
    queue: int

    def write(self, kernel: SpcKernel) -> QueueCode:
        code: list[tuple] = []
        depths: list[tuple[int, ...]] = []
        spans: dict[int, tuple[int, int]] = {}
        self._items(kernel.nests, (), 0, code, depths, spans)
        code.append((END,))
        depths.append(())
        return QueueCode(self.queue, tuple(code), spans, tuple(depths))

    def _items(
        self,
        items: tuple[LoopSpec | StepSpec, ...],
        around: tuple[int, ...],
        shift: int,
        code: list[tuple],
        depths: list[tuple[int, ...]],
        spans: dict[int, tuple[int, int]],
    ) -> None:
        """Append the code of `items`; `shift` is the iteration of the loop of level "program" around them."""
        for item in items:
            if isinstance(item, StepSpec):
                if self._runs_here(item, shift):
                    code.append((STEP, item))
                    depths.append(around)
                continue
            for first, end in self._rounds(item, shift):
                inner = first if item.spread and self.queue >= VECTOR else shift
                begin = len(code)
                code.append(())
                depths.append(around)
                self._items(item.body, (*around, item.depth), inner, code, depths, spans)
                code.append((NEXT, item.depth, begin + 1, item.number))
                depths.append((*around, item.depth))
                code[begin] = (BEGIN, item.depth, first, end, item, len(code))
                if end is None:
                    spans[item.number] = (begin, len(code))

    def _runs_here(self, step: StepSpec, shift: int) -> bool:
        return step.queue + (shift if step.queue >= VECTOR else 0) == self.queue

    def _rounds(self, loop: LoopSpec, shift: int) -> Iterator[tuple[int, int | None]]:
        """The ranges of iterations in which this queue has something to do in the loop."""
        steps = [step for step, _ in steps_below(loop.body, ())]
        if loop.spread and self.queue >= VECTOR:
            wanted = {self.queue - step.queue for step in steps if step.queue >= VECTOR}
            yield from ((value, value + 1) for value in sorted(wanted) if 0 <= value < loop.extent)
        elif any(self._reaches(step, inner, shift) for step, inner in steps_below(loop.body, ())):
            yield 0, None

    def _reaches(self, step: StepSpec, loops: tuple[LoopSpec, ...], shift: int) -> bool:
        if step.queue < VECTOR:
            return step.queue == self.queue
        spread = next((loop.extent for loop in loops if loop.spread), 0)
        if spread:
            return step.queue <= self.queue < step.queue + spread
        return self._runs_here(step, shift)


class Cursor:
    """Where a queue is in its code: `position`, and by depth iteration, end and trip count of the loops."""

    __slots__ = ("code", "crossed", "ends", "position", "trips", "variables")

    def __init__(self, code: tuple[tuple, ...]) -> None:
        self.code = code
        self.position = -1
        self.variables = [0] * MAX_LOOP_DEPTH
        self.ends = [0] * MAX_LOOP_DEPTH
        self.trips = [0] * MAX_LOOP_DEPTH
        self.crossed = NO_LOOP

    def advance(self) -> Any:
        """Go to the next instruction and return what the code holds for it; None at the end.

        `crossed` becomes the last loop that went round.
        """
        code = self.code
        position = self.position + 1
        while True:
            entry = code[position]
            kind = entry[0]
            if kind == STEP:
                self.position = position
                return entry[1]
            if kind == NEXT:
                depth = entry[1]
                value = self.variables[depth] + 1
                if value < self.ends[depth]:
                    self.variables[depth] = value
                    self.crossed = entry[3]
                    position = entry[2]
                else:
                    position += 1
            elif kind == BEGIN:
                position = self._enter(entry, position)
            else:
                self.position = position
                return None

    def _enter(self, entry: tuple, position: int) -> int:
        _, depth, first, end, loop, exit_position = entry
        trips = loop.extent
        if loop.limit is not None:
            trips = min(trips, max(0, affine_at(loop.limit, self.variables)))
        self.variables[depth] = first
        self.trips[depth] = trips
        self.ends[depth] = trips if end is None else min(end, trips)
        return position + 1 if first < self.ends[depth] else exit_position


def affine_at(affine: Affine, variables: list[int]) -> int:
    """The value of an affine number at these loop variables."""
    value = affine.constant
    for depth, coefficient in affine.terms:
        value += coefficient * variables[depth]
    return value


class Queue:
    """The state of one queue: its cursor, the instruction `op` to issue next, and what it waits for.

    `loads` and `stores` are in flight, `from_hbm` of them from or to HBM. `waits` and `registers` are the
    semaphores and registers of that instruction (the register written is the last). `blocked` is a reason
    of `state.py`; `draining` the register whose accumulation follows the drain in progress.
    """

    __slots__ = (
        "blocked", "code", "cursor", "draining", "from_hbm", "loads", "max_loads", "number", "op",
        "registers", "stores", "waits",
    )  # fmt: skip

    def __init__(self, code: QueueCode, max_loads: int) -> None:
        self.code = code
        self.number = code.queue
        self.cursor = Cursor(code.code)
        self.op: Any = None
        self.waits: tuple[int, ...] = ()
        self.registers: tuple[int, ...] = ()
        self.blocked = -1
        self.draining = -1
        self.loads = 0
        self.stores = 0
        self.from_hbm = 0
        self.max_loads = max_loads
