"""Strided views of buffers: what reshape, transpose, slice and expand do without moving data."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import accumulate, pairwise

from birc.compiler.ir.copies import row_major_strides
from birc.compiler.ir.plan import View


def dense_view(buffer: str, dims: Sequence[int], layout: Sequence[int] | None = None) -> View:
    """The whole of a dense buffer; `layout` is the physical order of the dimensions, outermost first."""
    order = tuple(layout) if layout is not None else tuple(range(len(dims)))
    physical = row_major_strides([dims[axis] for axis in order])
    strides = [0] * len(dims)
    for stride, axis in zip(physical, order, strict=True):
        strides[axis] = stride
    return View(buffer, 0, tuple(dims), tuple(strides))


def transpose(view: View, permutation: Sequence[int]) -> View:
    """The view with its dimensions reordered."""
    return View(
        view.buffer,
        view.offset,
        tuple(view.dims[axis] for axis in permutation),
        tuple(view.strides[axis] for axis in permutation),
    )


def narrow(view: View, starts: Sequence[int], extents: Sequence[int], steps: Sequence[int]) -> View:
    """The box of `extents` elements that begins at `starts` and takes every `steps`-th element."""
    offset = view.offset + sum(start * stride for start, stride in zip(starts, view.strides, strict=True))
    strides = tuple(stride * step for stride, step in zip(view.strides, steps, strict=True))
    return View(view.buffer, offset, tuple(extents), strides)


def broadcast(view: View, dims: Sequence[int]) -> View:
    """The view repeated to `dims` by numpy's rules (stride 0)."""
    missing = len(dims) - len(view.dims)
    old_dims = (1,) * missing + view.dims
    old_strides = (0,) * missing + view.strides
    strides = tuple(0 if old == 1 else stride for old, stride in zip(old_dims, old_strides, strict=True))
    return View(view.buffer, view.offset, tuple(dims), strides)


def channel_view(view: View, rank: int) -> View:
    """A vector over channels, seen with `rank` dimensions of which channels are the second."""
    ones, zeros = (1,) * (rank - 2), (0,) * (rank - 2)
    return View(view.buffer, view.offset, (1, view.dims[0], *ones), (0, view.strides[0], *zeros))


def factorised(extent: int, limit: int) -> tuple[int, ...] | None:
    """The extent as one dimension, or two where it is larger than `limit`; None when it has no such factors."""
    if extent <= limit:
        return (extent,)
    inner = next((d for d in range(limit, 1, -1) if extent % d == 0), 0)
    return (extent // inner, inner) if inner and extent // inner <= limit else None


def reshape(view: View, dims: Sequence[int]) -> View | None:
    """The same elements in row-major order with other dimensions; None when no strides can express it.

    Dimensions of extent 1 are dropped first; then old and new dimensions are matched in groups of equal product, and
    within a group the old ones must be mergeable.
    """
    old = [(extent, stride) for extent, stride in zip(view.dims, view.strides, strict=True) if extent != 1]
    strides: list[int] = []
    group: list[tuple[int, int]] = []
    position = 0
    available = 1
    new_dims = list(dims)
    index = 0
    while index < len(new_dims):
        wanted, last = new_dims[index], index
        while available != wanted or (position < len(old) and available == 1 and wanted != 1):
            if available < wanted:
                if position == len(old):
                    return None
                group.append(old[position])
                available *= old[position][0]
                position += 1
            else:
                last += 1
                if last == len(new_dims):
                    return None
                wanted *= new_dims[last]
        merged = _merge(group)
        if merged is None:
            return None
        strides.extend(_split(merged, new_dims[index : last + 1]))
        index, group, available = last + 1, [], 1
    if position != len(old):
        return None
    return View(view.buffer, view.offset, tuple(dims), tuple(strides))


def order_for_reshape(view: View, dims: Sequence[int]) -> tuple[int, ...]:
    """The axes of a view, outermost first, in a copy that a reshape to `dims` can see and that lies much as the view.

    Axes that become one stay together in their order. Of such runs those are inside that are inside in the view.
    """
    ends = set(accumulate(dims, operator.mul))
    runs: list[list[int]] = [[]]
    for axis, elements in enumerate(accumulate(view.dims, operator.mul)):
        runs[-1].append(axis)
        if elements in ends:
            runs.append([])

    def step(run: Sequence[int]) -> float:
        return min((view.strides[axis] for axis in run if view.dims[axis] > 1 and view.strides[axis]), default=math.inf)

    return tuple(axis for run in sorted(runs, key=step, reverse=True) for axis in run)


def _merge(group: list[tuple[int, int]]) -> int | None:
    """The innermost stride when the (extent, stride) pairs form one evenly spaced run; None otherwise."""
    for (_, outer), (extent, inner) in pairwise(group):
        if outer != extent * inner:
            return None
    return group[-1][1] if group else 0


def _split(stride: int, dims: Sequence[int]) -> list[int]:
    """Strides of `dims` over a run with the given innermost stride."""
    strides, step = [], stride
    for extent in reversed(dims):
        strides.append(0 if extent == 1 else step)
        step *= extent
    return list(reversed(strides))
