"""Byte ranges that commands touch, and the conflicts between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from birc.compiler.ir.plan import Buffer, View
from birc.runtime.dtypes import dtype
from birc.runtime.program import OTHER_L2

Range = tuple[str, int, int]
"""Space, first byte, end byte."""
Touch = tuple[Range, View]
"""What an access reaches at most, and its view."""


def view_range(view: View, buffer: Buffer) -> Range:
    """The bytes from the first to the last element of a view."""
    lower = view.lower or (0,) * len(view.dims)
    first = last = view.offset
    for low, extent, stride in zip(lower, view.dims, view.strides, strict=True):
        ends = (low * stride, (low + extent - 1) * stride)
        first, last = first + min(ends), last + max(ends)
    size = dtype(buffer.dtype).bits // 8
    space = OTHER_L2 if view.away else buffer.space
    return space, buffer.address + first * size, buffer.address + (last + 1) * size


def whole_of(buffer: Buffer) -> View:
    """All elements of a buffer."""
    return View(buffer.name, 0, (buffer.num_elements,), (1,))


def half_of(buffer: Buffer, die: int) -> View:
    """The half of a shared constant that a die brings onto the chip."""
    count = buffer.num_elements // 2
    return View(buffer.name, die * count, (count,), (1,))


def bytes_of(buffer: Buffer) -> Range:
    """The bytes of a buffer."""
    return buffer.space, buffer.address, buffer.address + buffer.num_bytes


def part_of(whole: np.ndarray, part: View) -> np.ndarray:
    """A strided box of the elements of an array."""
    first = np.ascontiguousarray(whole).reshape(-1)[part.offset :]
    strides = [stride * whole.itemsize for stride in part.strides]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(first, part.dims, strides, writeable=False))


Meet = Callable[[View, View], bool]
"""Whether two views of a buffer have elements in common."""


@dataclass(slots=True)
class Pending:
    """What has been read and written on a die since some time."""

    reads: set[Touch] = field(default_factory=set)
    writes: set[Touch] = field(default_factory=set)

    def conflicts(self, reads: Iterable[Touch], writes: Iterable[Touch], meet: Meet) -> bool:
        """Whether an access must wait for one before it; `meet` tells of two views of a buffer."""
        return any(
            space == other and first < high and low < end and (view.buffer != seen.buffer or meet(view, seen))
            for touches, before in ((reads, self.writes), (writes, self.writes), (writes, self.reads))
            for (space, first, end), view in (touches if before else ())
            for (other, low, high), seen in before
        )

    def add(self, reads: Iterable[Touch], writes: Iterable[Touch]) -> None:
        """Record accesses."""
        self.reads.update(reads)
        self.writes.update(writes)

    def clear(self) -> None:
        """Nothing is pending any more."""
        self.reads.clear()
        self.writes.clear()


def overlap(one: Range, others: Iterable[Range]) -> bool:
    """Whether a range meets one of the others."""
    space, first, end = one
    return any(space == s and first < e and f < end for s, f, e in others)
