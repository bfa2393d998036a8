"""Sets of bytes as sorted, disjoint, half-open ranges."""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.runtime.program import Descriptor
from birc.runtime.verifier.boxes import Boxes
from birc.runtime.verifier.layout import ELEMENT_BYTES
from birc.runtime.verifier.unroll import Ints

# A view that falls into more separate runs than this is not followed byte by byte.
MOST_RUNS: Final = 1 << 21


class ByteSet:
    """An immutable set; `starts[i] <= byte < ends[i]` for some i."""

    __slots__ = ("ends", "starts")

    def __init__(self, starts: Ints, ends: Ints) -> None:
        """Any half-open ranges, in any order, overlapping or not."""
        self.starts, self.ends = _merged(starts, ends)

    def union(self, other: ByteSet) -> ByteSet:
        if not len(other.starts):
            return self
        if not len(self.starts):
            return other
        if self.covers(other):
            return self
        return ByteSet(np.concatenate([self.starts, other.starts]), np.concatenate([self.ends, other.ends]))

    def covers(self, other: ByteSet) -> bool:
        return self.first_missing(other) is None

    def first_missing(self, other: ByteSet) -> tuple[int, int] | None:
        """The first range of `other` that is not all in this set."""
        if not len(other.starts):
            return None
        if not len(self.starts):
            return int(other.starts[0]), int(other.ends[0])
        index = np.searchsorted(self.starts, other.starts, side="right") - 1
        inside = (index >= 0) & (other.ends <= self.ends[np.maximum(index, 0)])
        if inside.all():
            return None
        worst = int(np.argmin(inside))
        return int(other.starts[worst]), int(other.ends[worst])

    def moved(self, distance: int) -> ByteSet:
        result = ByteSet.__new__(ByteSet)
        result.starts, result.ends = self.starts + distance, self.ends + distance
        return result


def empty() -> ByteSet:
    nothing = np.zeros(0, np.int64)
    return ByteSet(nothing, nothing)


def byte_range(start: int, end: int) -> ByteSet:
    return ByteSet(np.array([start], np.int64), np.array([end], np.int64))


def bytes_of(descriptor: Descriptor, boxes: Boxes) -> ByteSet | None:
    """The bytes of all elements of the boxes, for address 0; None when there are too many separate runs."""
    parts = [_runs(descriptor, boxes.low[i], boxes.high[i]) for i in np.flatnonzero(boxes.present)]
    if any(part is None for part in parts):
        return None
    starts = [part[0] for part in parts if part is not None]
    ends = [part[1] for part in parts if part is not None]
    if sum(map(len, starts)) > MOST_RUNS:
        return None
    return ByteSet(np.concatenate(starts), np.concatenate(ends)) if starts else empty()


def _runs(descriptor: Descriptor, low: Ints, high: Ints) -> tuple[Ints, Ints] | None:
    """The contiguous runs of one box."""
    size = ELEMENT_BYTES[descriptor.dtype]
    start = 0
    axes = []
    for axis, stride in enumerate(descriptor.strides):
        step, count = stride * size, int(high[axis] - low[axis])
        start += int(low[axis] if step >= 0 else high[axis] - 1) * step
        if count > 1 and step:
            axes.append((abs(step), count))
    length = size
    outer: list[tuple[int, int]] = []
    for step, count in sorted(axes):
        if not outer and step <= length:  # touches or overlaps its neighbour: one run
            length += step * (count - 1)
        else:
            outer.append((step, count))
    if np.prod([count for _, count in outer], dtype=object) > MOST_RUNS:
        return None
    starts = np.array([start], np.int64)
    for step, count in reversed(outer):
        starts = (starts[:, None] + step * np.arange(count, dtype=np.int64)).ravel()
    return starts, starts + length


def _merged(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    kept = ends > starts
    starts, ends = starts[kept], ends[kept]
    if len(starts) <= 1:
        return starts, ends
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    fresh = np.concatenate([[True], starts[1:] > ends[:-1]])
    last = np.concatenate([fresh[1:], [True]])
    return starts[fresh], ends[last]
