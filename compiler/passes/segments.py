"""Working through a network segment by segment: all chunks of the batch through one, then all through the next.

Chunks alone load all constants anew for each of them where these do not all fit on the chip. A segment is a run of
steps whose constants do: they are loaded once, and stay until the last chunk has passed. Between segments wait what
the chunks hand on. A buffer belongs to one chunk, so the chunks that are through leave their room to the next ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from birc.compiler.ir.names import unused_name
from birc.compiler.ir.plan import Buffer, Kernel, KernelStep, Plan, View
from birc.compiler.ir.plan_access import with_views
from birc.compiler.passes.lifetimes import lifetimes, streamed
from birc.runtime.dtypes import dtype

LARGEST = 0.75
"""Share of the memory that a constant may take."""


@dataclass(frozen=True, slots=True)
class Segments:
    """Where segments end (one past their last step), and the most bytes that live at once in any of them."""

    ends: tuple[int, ...]
    peak_bytes: int


def best_segments(chunk: Plan, count: int, capacity_bytes: float) -> Segments | None:
    """The segments of the steps of one chunk for `count` chunks that leave the most room; None when none fit.

    In a segment live its constants, what waits on the side of it where more does, and what one chunk needs meanwhile.
    The least sum of these bytes over all steps is found step by step: the best way to each end goes over the best way
    to some start.
    """
    steps = len(chunk.steps)
    memory = _Memory(chunk, capacity_bytes)
    best = np.full(steps + 1, np.inf)
    before = np.zeros(steps + 1, np.int64)
    peaks = np.zeros(steps + 1, np.int64)
    best[0] = 0
    for start in range(steps):
        if not np.isfinite(best[start]):
            continue
        needed = memory.of_segments(start, count)
        cost = best[start] + np.where(needed <= capacity_bytes, needed * np.arange(1, len(needed) + 1), np.inf)
        better = np.flatnonzero(cost < best[start + 1 :])
        best[start + 1 + better] = cost[better]
        before[start + 1 + better] = start
        peaks[start + 1 + better] = np.maximum(peaks[start], needed[better])
    if not np.isfinite(best[steps]):
        return None
    ends = [steps]
    while before[ends[-1]]:
        ends.append(int(before[ends[-1]]))
    return Segments(tuple(reversed(ends)), int(peaks[steps]))


def has_segments(chunk: Plan, capacity_bytes: float) -> bool:
    """Whether there are any for one chunk at a time: then every step can be one, which needs no more than others."""
    return bool((_Memory(chunk, capacity_bytes).of_steps() <= capacity_bytes).all())


class _Memory:
    """The bytes that live in segments that begin at one step, for every end at once."""

    def __init__(self, plan: Plan, capacity_bytes: float) -> None:
        steps = len(plan.steps)
        spans = lifetimes(plan)
        staying = staying_constants(plan, capacity_bytes)
        # What begins or ends to live in a step, to be summed up over them.
        self._live, self._across, self._loaded, self._done = np.zeros((4, steps + 2), np.int64)
        for buffer in plan.buffers:
            first, last = spans.get(buffer.name, (0, 0))
            if buffer.name in staying:
                self._loaded[first + 1] += buffer.num_bytes
                self._done[last + 1] += buffer.num_bytes
            elif buffer.role == "scratch" and buffer.name in spans:
                for changes, begin in ((self._live, first), (self._across, first + 1)):
                    changes[begin] += buffer.num_bytes
                    changes[last + 1] -= buffer.num_bytes
        for changes in (self._live, self._across, self._loaded, self._done):
            changes.cumsum(out=changes)

    def of_segments(self, start: int, count: int) -> np.ndarray:
        """The bytes for every end after `start`."""
        constants = self._loaded[start + 1 : -1] - self._done[start]
        waiting = np.maximum(self._across[start], self._across[start + 1 : -1])
        inside = np.maximum.accumulate(self._live[start:-2])
        return np.asarray(constants + (count - 1) * waiting + inside)

    def of_steps(self) -> np.ndarray:
        """The bytes of segments of one step each, for one chunk."""
        return np.asarray(self._loaded[1:-1] - self._done[:-2] + self._live[:-2])


def streamed_constants(plan: Plan) -> set[str]:
    """The constants that kernels read tile by tile."""
    return {b.name for b in plan.buffers if b.role == "constant"} & streamed(plan)


def staying_constants(plan: Plan, capacity_bytes: float) -> set[str]:
    """The streamed constants that leave room for others; larger ones are not meant to stay."""
    constants = streamed_constants(plan)
    return {b.name for b in plan.buffers if b.name in constants and b.num_bytes <= LARGEST * capacity_bytes}


def in_segments(cut: Plan, count: int, segments: Segments) -> Plan:
    """The plan of `repeat` chunks with `count` of them a round, one after the other through each segment."""
    bits = {b.name: dtype(b.dtype).bits for b in cut.buffers}
    moves = {name: num_bytes * 8 // bits[name] for name, num_bytes in cut.advances}
    taken = {b.name for b in cut.buffers}
    names = [_names(cut, number, taken) for number in range(count)]
    steps = []
    start = 0
    for end in segments.ends:
        for number in range(count):
            steps += [
                KernelStep(tuple(kernel and _of_chunk(kernel, number, names[number], moves) for kernel in step.kernels))
                for step in cut.steps[start:end]
                if isinstance(step, KernelStep)
            ]
        start = end
    buffers: list[Buffer] = []
    for buffer in cut.buffers:
        if buffer.role == "scratch":
            buffers += [replace(buffer, name=of[buffer.name]) for of in names]
        else:
            buffers.append(buffer)
    repeat = cut.repeat // count
    advances = tuple((name, num_bytes * count) for name, num_bytes in cut.advances) if repeat > 1 else ()
    return replace(cut, buffers=tuple(buffers), steps=tuple(steps), repeat=repeat, advances=advances)


def _names(cut: Plan, number: int, taken: set[str]) -> dict[str, str]:
    """New names for the buffers of a chunk between kernels."""
    found: dict[str, str] = {}
    for buffer in cut.buffers:
        if buffer.role == "scratch":
            found[buffer.name] = unused_name(f"{buffer.name}.{number}", taken)
            taken.add(found[buffer.name])
    return found


def _of_chunk(kernel: Kernel, number: int, names: Mapping[str, str], moves: Mapping[str, int]) -> Kernel:
    """The kernel for a chunk; `moves` are the elements by which boundary tensors move on from one to the next."""

    def changed(view: View) -> View:
        offset = view.offset + number * moves.get(view.buffer, 0)
        return replace(view, buffer=names.get(view.buffer, view.buffer), offset=offset)

    return replace(with_views(kernel, changed), name=f"{kernel.name}.{number}")
