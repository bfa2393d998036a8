"""Many boxes at once, in the coordinates of their tensors, and whether boxes of two views overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from birc.runtime.program import Descriptor
from birc.runtime.verifier.layout import ELEMENT_BYTES
from birc.runtime.verifier.unroll import Ints

Bools = npt.NDArray[np.bool_]

# The largest table of pairs that is compared at once, and the most that is compared at all.
PAIRS_AT_ONCE: Final = 1 << 20
MOST_PAIRS: Final = 1 << 26


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes [n, rank], half open in every dimension; one without elements has some `high <= low`."""

    low: Ints
    high: Ints

    def __len__(self) -> int:
        return len(self.low)

    @property
    def present(self) -> Bools:
        """Which of them have elements."""
        return np.all(self.high > self.low, axis=1)

    def take(self, which: npt.NDArray) -> Boxes:
        return Boxes(self.low[which], self.high[which])

    def hull(self) -> Boxes:
        """One box around all; all of them must have elements."""
        return Boxes(self.low.min(axis=0)[None], self.high.max(axis=0)[None])


def concatenate(parts: list[Boxes]) -> Boxes:
    return Boxes(np.concatenate([part.low for part in parts]), np.concatenate([part.high for part in parts]))


def unique(boxes: Boxes) -> Boxes:
    """The different ones among the boxes with elements."""
    kept = boxes.take(boxes.present)
    rows = np.unique(np.concatenate([kept.low, kept.high], axis=1), axis=0)
    rank = boxes.low.shape[1]
    return Boxes(rows[:, :rank], rows[:, rank:])


def whole_view(descriptor: Descriptor) -> Boxes:
    """All of a tensor."""
    low = np.array([descriptor.lower], np.int64)
    return Boxes(low, low + np.array([descriptor.dims], np.int64))


def clip(boxes: Boxes, descriptor: Descriptor, nearest: bool = False) -> Boxes:
    """The parts in bounds; `nearest` for boxes that read the nearest element instead of what lies outside."""
    lower = np.array(descriptor.lower, np.int64)
    upper = lower + np.array(descriptor.dims, np.int64)
    if nearest:
        low = np.clip(boxes.low, lower, upper - 1)
        return Boxes(low, np.maximum(np.clip(boxes.high, lower, upper), low + 1))
    return Boxes(np.maximum(boxes.low, lower), np.minimum(boxes.high, upper))


def byte_hulls(descriptor: Descriptor, boxes: Boxes, address: int | None = None) -> tuple[Ints, Ints]:
    """For each box the half-open byte range around its elements; empty ranges for boxes without elements."""
    size = ELEMENT_BYTES[descriptor.dtype]
    strides = np.array(descriptor.strides, np.int64) * size
    ends = np.stack([boxes.low * strides, (boxes.high - 1) * strides])
    start = descriptor.address if address is None else address
    low = start + ends.min(axis=0).sum(axis=1)
    high = start + ends.max(axis=0).sum(axis=1) + size
    return low, np.where(boxes.present, high, low)


def overlaps(left: Descriptor, these: Boxes, right: Descriptor, those: Boxes) -> Bools:
    """Which boxes of one view may share a byte with which of the other, [these, those]; exact in most cases.

    Views with strides in common are compared dimension by dimension, where no box runs over into the next
    multiple of a larger stride; else the byte ranges around the boxes decide. Descriptors are taken in the
    same space.
    """
    result = np.zeros((len(these), len(those)), np.bool_)
    mine, yours = np.flatnonzero(these.present), np.flatnonzero(those.present)
    if not len(mine) or not len(yours):
        return result
    these, those = these.take(mine), those.take(yours)
    ranges = _common_ranges(left, these, right, those)
    if ranges is None:
        low, high = byte_hulls(left, these)
        other_low, other_high = byte_hulls(right, those)
        ranges = (low[:, None], high[:, None], other_low[:, None], other_high[:, None])
    low, high, other_low, other_high = ranges
    step = max(1, PAIRS_AT_ONCE // len(yours))
    for begin in range(0, len(mine), step):
        part = slice(begin, begin + step)
        meets = np.ones((len(low[part]), len(yours)), np.bool_)
        for level in range(low.shape[1]):
            meets &= low[part, level, None] < other_high[None, :, level]
            meets &= other_low[None, :, level] < high[part, level, None]
        result[np.ix_(mine[part], yours)] = meets
    return result


def _common_ranges(
    left: Descriptor, these: Boxes, right: Descriptor, those: Boxes
) -> tuple[Ints, Ints, Ints, Ints] | None:
    """Both sets of boxes in coordinates of the strides that the two views have together, or None.

    The last coordinate counts bytes within an element. Valid only when different coordinates are different
    bytes.
    """
    if min(left.strides + right.strides) < 0:
        return None
    steps = sorted({*_byte_strides(left), *_byte_strides(right), 1}, reverse=True)
    mine = _in_steps(left, these, steps)
    yours = _in_steps(right, those, steps)
    distance = right.address - left.address
    for nearest in (False, True):
        shift = np.array(_decompose(distance, steps, nearest), np.int64)
        ranges = (*mine, yours[0] + shift, yours[1] + shift)
        if _injective(ranges, steps):
            return ranges
    return None


def _byte_strides(descriptor: Descriptor) -> list[int]:
    size = ELEMENT_BYTES[descriptor.dtype]
    pairs = zip(descriptor.dims, descriptor.strides, strict=True)
    return [stride * size for extent, stride in pairs if extent > 1 and stride]


def _in_steps(descriptor: Descriptor, boxes: Boxes, steps: list[int]) -> tuple[Ints, Ints]:
    size = ELEMENT_BYTES[descriptor.dtype]
    low = np.zeros((len(boxes), len(steps)), np.int64)
    high = np.zeros((len(boxes), len(steps)), np.int64)
    for axis, (extent, stride) in enumerate(zip(descriptor.dims, descriptor.strides, strict=True)):
        if extent > 1 and stride:
            level = steps.index(stride * size)
            low[:, level] += boxes.low[:, axis]
            high[:, level] += boxes.high[:, axis] - 1
        else:
            offsets = _decompose(descriptor.lower[axis] * stride * size, steps, nearest=False)
            low += np.array(offsets, np.int64)
            high += np.array(offsets, np.int64)
    high[:, -1] += size - 1
    high += 1
    for level in range(len(steps) - 1, 0, -1):
        _carry(low, high, level, steps[level - 1], steps[level])
    return low, high


def _carry(low: Ints, high: Ints, level: int, larger: int, step: int) -> None:
    """Where every box runs through whole multiples of the next larger step, count those: the same bytes."""
    ratio, rest = divmod(larger, step)
    runs, outer = (low[:, level], high[:, level]), high[:, level - 1] - low[:, level - 1]
    if rest or ratio == 1 or np.any(outer != 1) or any(np.any(run % ratio) for run in runs):
        return
    low[:, level - 1] += low[:, level] // ratio
    high[:, level - 1] += high[:, level] // ratio - 1
    low[:, level], high[:, level] = 0, ratio


def _decompose(distance: int, steps: list[int], nearest: bool) -> list[int]:
    """`distance` bytes as a sum of multiples of the steps, largest first."""
    counts = []
    for step in steps:
        count = (2 * distance + step) // (2 * step) if nearest else distance // step
        counts.append(count)
        distance -= count * step
    return counts


def _injective(ranges: tuple[Ints, Ints, Ints, Ints], steps: list[int]) -> bool:
    """Whether different coordinates within the ranges always are different bytes."""
    low = np.minimum(ranges[0].min(axis=0), ranges[2].min(axis=0))
    high = np.maximum(ranges[1].max(axis=0), ranges[3].max(axis=0))
    reach = 1
    for level in range(len(steps) - 1, -1, -1):
        if reach > steps[level]:
            return False
        reach += int(high[level] - low[level] - 1) * steps[level]
    return True
