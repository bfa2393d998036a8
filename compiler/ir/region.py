"""The elements that an access reaches, as strided boxes that can be compared across views of one buffer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from birc.compiler.ir.plan import Access, Index, View

Axis = tuple[int, int]
"""Stride and extent."""


@dataclass(frozen=True, slots=True)
class Region:
    """Elements `offset + sum(digit * stride)`, 0 <= digit < extent, of a buffer; `dims` are (stride, extent), strides
    falling, and neighbours without a gap are one."""

    buffer: str
    offset: int
    dims: tuple[tuple[int, int], ...]

    @property
    def end(self) -> int:
        """One past the last element."""
        return self.offset + sum((extent - 1) * stride for stride, extent in self.dims) + 1

    @property
    def num_elements(self) -> int:
        """How many elements it has."""
        return math.prod(extent for _, extent in self.dims)

    def contains(self, other: Region) -> bool:
        """Whether every element of the other region is in this one (conservative: False when not provable)."""
        if self.buffer != other.buffer or other.offset < self.offset:
            return False
        rest = other.offset - self.offset
        outer = 1 << 62
        for stride, extent in self.dims:
            digit, rest = divmod(rest, stride)
            inside = [(s, e) for s, e in other.dims if stride <= s < outer]
            if any(s % stride for s, _ in inside):
                return False
            if digit + sum((e - 1) * (s // stride) for s, e in inside) >= extent:
                return False
            outer = stride
        return rest == 0 and not any(s < outer for s, _ in other.dims)

    def is_apart(self, other: Region) -> bool:
        """Whether no element is in both (conservative: False when not provable).

        They are apart when they are one behind the other, in the buffer or in each of its rows.
        """
        if self.buffer != other.buffer or self.end <= other.offset or other.end <= self.offset:
            return True
        for row in {stride for stride, _ in (*self.dims, *other.dims)}:
            mine, theirs = self._in_row(row), other._in_row(row)
            if mine and theirs and (mine[1] <= theirs[0] or theirs[1] <= mine[0]):
                return True
        return False

    def _in_row(self, row: int) -> tuple[int, int] | None:
        """The first element and the end in every row of so many; None where they are not the same, or go beyond."""
        if any(stride % row for stride, _ in self.dims if stride >= row):
            return None
        first = self.offset % row
        end = first + sum((extent - 1) * stride for stride, extent in self.dims if stride < row) + 1
        return (first, end) if end <= row else None


def region(view: View) -> Region:
    """All elements of a view."""
    offset, strides = view.offset, view.strides
    if view.lower:
        offset += sum(low * stride for low, stride in zip(view.lower, strides, strict=True))
    if min(strides, default=0) < 0:
        # Where coordinates go against the elements, the last one has the first element.
        offset += sum((extent - 1) * stride for extent, stride in zip(view.dims, strides, strict=True) if stride < 0)
        strides = tuple(map(abs, strides))
    return _normal(view.buffer, offset, zip(strides, view.dims, strict=True))


def num_elements(view: View) -> int:
    """How many elements a view reaches."""
    return math.prod(extent for extent, stride in zip(view.dims, view.strides, strict=True) if stride)


def _normal(buffer: str, offset: int, dims: Iterable[tuple[int, int]]) -> Region:
    ordered = sorted(((s, e) for s, e in dims if s > 0 and e > 1), reverse=True)
    merged: list[tuple[int, int]] = []
    for stride, extent in ordered:
        if merged and merged[-1][0] == stride * extent:
            merged[-1] = (stride, extent * merged[-1][1])
        else:
            merged.append((stride, extent))
    return Region(buffer, offset, tuple(merged))


def cut_at(axes: Iterable[Axis], rows: Iterable[int]) -> list[Axis]:
    """The axes, of which one is cut in two at each of `rows`, largest first, where it reaches over that evenly."""
    result = list(axes)
    for row in rows:
        for place, (stride, extent) in enumerate(result):
            if stride < row < stride * extent and row % stride == 0 and stride * extent % row == 0:
                result[place : place + 1] = [(row, stride * extent // row), (stride, row // stride)]
                break
    return result


def union(regions: Iterable[Region], joined: Iterable[Region] = ()) -> tuple[Region, ...]:
    """The regions, neighbours joined as far as they can be; those in `joined`, another union, are so already."""
    result = list(joined)
    for item in regions:
        grown = _grown(item, result)
        if not any(other.contains(grown) for other in result):
            result.append(grown)
    return tuple(result)


def _grown(item: Region, others: list[Region]) -> Region:
    """The region joined with its neighbours, which leave the list."""
    while True:
        for other in others:
            joined = _joined(other, item) or _joined(item, other)
            if joined is not None:
                others.remove(other)
                item = joined
                break
        else:
            return item


def _joined(low: Region, high: Region) -> Region | None:
    """The union of two boxes that lie side by side along one dimension."""
    if low.buffer != high.buffer:
        return None
    gap = high.offset - low.offset
    strides = {s for s, _ in low.dims} | {s for s, _ in high.dims}
    one, two = dict(low.dims), dict(high.dims)
    different = [s for s in strides if one.get(s, 1) != two.get(s, 1)]
    if len(different) > 1:
        return None
    candidates = different or sorted(strides | {1})
    for stride in candidates:
        if gap == one.get(stride, 1) * stride:
            dims = {**one, stride: one.get(stride, 1) + two.get(stride, 1)}
            return _normal(low.buffer, low.offset, dims.items())
    return None


def tight(access: Access, sizes: Mapping[str, int], indexed: int | None = None) -> Access:
    """The access with its view cut down to the coordinates reached when dimensions have these sizes.

    `indexed` is the axis of an indexed load: it stays whole, the data tells where it is read.
    """
    lower, dims = [], []
    before = access.view.lower or (0,) * len(access.view.dims)
    for axis, index in enumerate(access.index):
        low, high = _reach(index, sizes)
        start, end = before[axis], before[axis] + access.view.dims[axis]
        if axis != indexed:
            start, end = _common(start, end, low, high + 1)
        lower.append(start)
        dims.append(end - start)
    view = access.view
    cut = tuple(dims), tuple(lower) if any(lower) else ()
    if cut == (view.dims, view.lower):
        return access
    view = View(view.buffer, view.offset, cut[0], view.strides, cut[1], view.seen, view.word, view.away)
    return Access(view, access.index, access.fill)


def _common(start: int, end: int, low: int, high: int) -> tuple[int, int]:
    """The coordinates in [start, end) and in [low, high); without any, one of the first that is not in the second.

    A view has at least one coordinate. What is read beside it must stay out of bounds.
    """
    if max(start, low) < min(end, high):
        return max(start, low), min(end, high)
    return (end - 1, end) if low >= end else (start, start + 1)


def _reach(index: Index, sizes: Mapping[str, int]) -> tuple[int, int]:
    """Lowest and highest coordinate."""
    low = high = index.constant
    for name, factor in index.terms:
        ends = (0, factor * (sizes[name] - 1))
        low, high = low + min(ends), high + max(ends)
    return low, high
