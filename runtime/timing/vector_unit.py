"""The vector cores of one SPC: their pipes, the accumulator's drain, the shapes in the registers."""

from __future__ import annotations

import math
from typing import Final

from birc.runtime.timing.ops import Op, Shape
from birc.runtime.timing.queues import Cursor, Queue
from birc.runtime.timing.result import Variant
from birc.runtime.timing.state import ALU_BUSY, SEMAPHORE, SFU_BUSY, SpcState
from birc.runtime.timing.steps import CROSS, DRAIN, SFU, StepSpec

# A reduction across lanes passes the shuffle network twice; its result is there a warp's width later.
CROSS_PASSES: Final = 2
CROSS_LATENCY_CYCLES: Final = 32

_NO_REGISTER: Final = -1


class VectorUnit:
    """The pipes that the vector programs of an SPC share, each first come, first served.

    Handlers return when the queue may issue again.
    """

    __slots__ = ("_alu_free", "_drain_free", "_issue_cycles", "_sfu_free", "state")

    def __init__(self, state: SpcState) -> None:
        self.state = state
        self._alu_free = self._sfu_free = self._drain_free = 0
        self._issue_cycles = state.machine.issue_cycles

    def prepare(self, op: Op) -> None:
        """Choose the handler of a vector instruction that moves no data."""
        op.handler = self.drain if op.spec.pipe == DRAIN else self.arithmetic
        op.variant = self.state.add_variant(Variant(op.spec.index, drains=int(op.spec.pipe == DRAIN)))

    def arithmetic(self, slot: int, queue: Queue, op: Op) -> int:
        """An instruction of the ALU, SFU or cross-lane pipe."""
        state = self.state
        shapes = state.shapes
        registers = queue.registers
        operands = tuple([shapes[register] for register in registers[:-1]])
        replaced = op.spec.first is not None and replaces(op.spec, queue.cursor)
        known = op.known.get((operands, replaced))
        if known is None:
            known = op.known[operands, replaced] = self._cost(op.spec, operands, replaced)
        shape, cycles, latency = known
        start = state.now
        if op.spec.pipe == SFU:
            start = max(start, self._sfu_free)
            end = self._sfu_free = start + cycles
            state.sums[SFU_BUSY] += cycles
        else:
            start = max(start, self._alu_free)
            end = self._alu_free = start + cycles
            state.sums[ALU_BUSY] += cycles
        state.vector_free = max(state.vector_free, end)
        end += latency
        register = registers[-1]
        shapes[register] = shape
        state.ready[register] = end
        if op.posts != ():
            self._post(queue, op, end)
        state.executed[op.variant] += 1
        return start + self._issue_cycles

    def drain(self, slot: int, queue: Queue, op: Op) -> int:
        """vacc: the accumulator is free at the end of the drain; an addition to the register follows."""
        state = self.state
        start = max(state.now, self._drain_free)
        end = self._drain_free = start + state.machine.accumulator_drain_cycles
        state.vector_free = max(state.vector_free, end)
        register = queue.registers[-1]
        state.shapes[register] = op.spec.shape or ()
        state.ready[register] = end
        self._post(queue, op, end)
        state.executed[op.variant] += 1
        if replaces(op.spec, queue.cursor):
            return start + self._issue_cycles
        queue.draining = register
        return end

    def accumulate(self, queue: Queue) -> int:
        """The addition that follows a drain."""
        state = self.state
        register, queue.draining = queue.draining, _NO_REGISTER
        cycles = self._alu_cycles(math.prod(state.shapes[register]))
        start = max(state.now, self._alu_free)
        self._alu_free = end = start + cycles
        state.sums[ALU_BUSY] += cycles
        state.ready[register] = end
        state.vector_free = max(state.vector_free, end)
        return start + self._issue_cycles

    def relative_state(self, now: int) -> tuple[int, ...]:
        """How long each pipe is still busy."""
        return tuple(max(0, free - now) for free in (self._alu_free, self._sfu_free, self._drain_free))

    def shift(self, cycles: int) -> None:
        """Move everything into the future by `cycles`."""
        self._alu_free += cycles
        self._sfu_free += cycles
        self._drain_free += cycles

    def _post(self, queue: Queue, op: Op, end: int) -> None:
        """What the instruction that ends at `end` posts reaches its waiters `semaphore_cycles` later."""
        state = self.state
        for semaphore in op.posts_at(queue.cursor):
            state.push(end + state.post_delay, SEMAPHORE, semaphore)

    def _alu_cycles(self, elements: int) -> int:
        return max(1, -(-elements // self.state.machine.vector_lanes_per_spc))

    def _cost(self, step: StepSpec, operands: tuple[Shape, ...], replaced: bool) -> tuple[Shape, int, int]:
        """Shape of the result, pipe cycles and further latency of a step on operands of these shapes."""
        if step.pipe == CROSS:
            source = operands[-1]
            shape = tuple(1 if axis in step.axes else extent for axis, extent in enumerate(source))
            return shape, CROSS_PASSES * self._alu_cycles(math.prod(source)), CROSS_LATENCY_CYCLES
        if step.shape is not None:
            shape = step.shape
        elif step.first is not None and operands:  # a fold replaces its register, or keeps its shape
            shape = operands[-1] if replaced else operands[0]
        else:
            shape = _broadcast(operands)
        elements = max(math.prod(each) for each in (shape, *operands))
        if step.pipe == SFU:
            return shape, max(1, -(-elements // self.state.machine.sfu_lanes_per_spc)), 0
        return shape, self._alu_cycles(elements), 0


def replaces(step: StepSpec, cursor: Cursor) -> bool:
    """Whether a step with a `first` mask replaces its register in this iteration."""
    return step.first is not None and not any(cursor.variables[depth] for depth in step.first)


def _broadcast(shapes: tuple[Shape, ...]) -> Shape:
    """The shape that operands broadcast to."""
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max(extents) for extents in zip(*padded, strict=True))
