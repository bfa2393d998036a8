"""The vector cores of one SPC: arithmetic and special-function pipes, the accumulator's drain, register shapes."""

from __future__ import annotations

import math
from typing import Final

from birc.runtime.timing.queues import NO_LOOP, Cursor, Queue
from birc.runtime.timing.state import ALU_BUSY, SFU_BUSY, SpcState
from birc.runtime.timing.steps import CROSS, SFU, StepSpec

# A reduction across lanes passes the shuffle network twice; its result is there a warp's width later.
CROSS_PASSES: Final = 2
CROSS_LATENCY_CYCLES: Final = 32

_NO_REGISTER: Final = NO_LOOP


class VectorUnit:
    """The pipes that the vector programs of an SPC share, each first come, first served."""

    __slots__ = ("_alu_free", "_drain_free", "_known", "_sfu_free", "state")

    def __init__(self, state: SpcState) -> None:
        self.state = state
        self._alu_free = self._sfu_free = self._drain_free = 0
        # (result shape, pipe cycles) by step and shapes of its operands.
        self._known: dict[tuple, tuple[tuple[int, ...], int]] = {}

    def arithmetic(self, slot: int, queue: Queue, step: StepSpec) -> int:
        """An instruction of the ALU, SFU or cross-lane pipe; returns when the queue may issue again."""
        state = self.state
        shapes = state.shapes
        key = (step.index, *(shapes.get(register) for register in queue.registers[:-1]))
        if step.first is not None:
            key = (*key, not any(queue.cursor.variables[depth] for depth in step.first))
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._cost(step, key)
        shape, cycles = known
        latency = CROSS_LATENCY_CYCLES if step.pipe == CROSS else 0
        if step.pipe == SFU:
            start = max(state.now, self._sfu_free)
            self._sfu_free = start + cycles
            state.sums[SFU_BUSY] += cycles
        else:
            start = max(state.now, self._alu_free)
            self._alu_free = start + cycles
            state.sums[ALU_BUSY] += cycles
        self._finish(queue, step, shape, start + cycles, latency)
        return start + state.machine.issue_cycles

    def drain(self, slot: int, queue: Queue, step: StepSpec) -> int:
        """vacc: the accumulator is free again at the end of the drain; an addition to the register follows it."""
        state = self.state
        start = max(state.now, self._drain_free)
        end = start + state.machine.accumulator_drain_cycles
        self._drain_free = end
        self._finish(queue, step, step.shape or (), end, 0)
        if replaces(step, queue.cursor):
            return start + state.machine.issue_cycles
        queue.draining = queue.registers[-1]
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
        return start + state.machine.issue_cycles

    def relative_state(self, now: int) -> tuple[int, ...]:
        """How long each pipe is still busy."""
        return tuple(max(0, free - now) for free in (self._alu_free, self._sfu_free, self._drain_free))

    def shift(self, cycles: int) -> None:
        """Move everything into the future by `cycles`."""
        self._alu_free += cycles
        self._sfu_free += cycles
        self._drain_free += cycles

    def _finish(self, queue: Queue, step: StepSpec, shape: tuple[int, ...], end: int, latency: int) -> None:
        state = self.state
        state.vector_free = max(state.vector_free, end)
        register = queue.registers[-1]
        state.shapes[register] = shape
        state.ready[register] = end + latency
        state.post(queue, step, end + latency)
        state.count(step)

    def _alu_cycles(self, elements: int) -> int:
        return max(1, -(-elements // self.state.machine.vector_lanes_per_spc))

    def _cost(self, step: StepSpec, key: tuple) -> tuple[tuple[int, ...], int]:
        """Shape and pipe cycles of a step whose operands have the shapes in `key[1:]`."""
        operands = [shape for shape in key[1:] if isinstance(shape, tuple)]
        if step.pipe == CROSS:
            source = operands[-1] if operands else ()
            shape = tuple(1 if axis in step.axes else extent for axis, extent in enumerate(source))
            return shape, CROSS_PASSES * self._alu_cycles(math.prod(source))
        if step.first is not None and operands:  # a fold: its register is replaced, or keeps its shape
            shape = operands[-1] if key[-1] is True else operands[0]
        elif step.shape is not None:
            shape = step.shape
        else:
            shape = _broadcast(operands)
        elements = max((math.prod(s) for s in (shape, *operands)), default=1)
        if step.pipe == SFU:
            return shape, max(1, -(-elements // self.state.machine.sfu_lanes_per_spc))
        return shape, self._alu_cycles(elements)


def replaces(step: StepSpec, cursor: Cursor) -> bool:
    """Whether a step with a `first` mask replaces its register in this iteration."""
    return step.first is not None and not any(cursor.variables[depth] for depth in step.first)


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that operands of equal rank broadcast to."""
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max(extents) for extents in zip(*padded, strict=True))
