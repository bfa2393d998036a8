"""How many bytes a box moves: the elements in bounds, and the memory granules that they touch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def count_in_bounds(start: int, step: int, extent: int, low: int, high: int) -> int:
    """How many of the coordinates `start + i * step`, i in 0:extent, lie in low:high."""
    if step < 0:
        start, step, low, high = -start, -step, 1 - high, 1 - low
    first = max(0, -((start - low) // step))
    end = min(extent, -((start - high) // step))
    return max(0, end - first)


def touched_bytes(counts: Sequence[int], pitches: Sequence[int], element_bytes: int, granule_bytes: int) -> int:
    """Bytes of the distinct granules that a box touches.

    `counts` are the elements in bounds on each axis, `pitches` the bytes from one to the next. Axes are
    taken from the smallest pitch up. While the gap between neighbours is smaller than a granule they form
    one run; what lies further apart repeats that run. Windows that overlap (an axis whose pitch is a
    multiple of the one below, within its reach) are counted once, and so is a broadcast (pitch 0).
    """
    if 0 in counts:
        return 0
    axes = sorted((abs(pitch), count) for pitch, count in zip(pitches, counts, strict=True) if count > 1 and pitch)
    run_bytes = element_bytes
    position = 0
    while position < len(axes) and axes[position][0] - run_bytes < granule_bytes:
        pitch, count = axes[position]
        run_bytes += (count - 1) * pitch
        position += 1
    runs = _distinct_runs(axes[position:])
    return runs * -(-run_bytes // granule_bytes) * granule_bytes


def _distinct_runs(axes: Iterable[tuple[int, int]]) -> int:
    """The number of different offsets `sum(pitch * i)` of (pitch, count) axes, sorted by pitch."""
    total, rows, row_pitch = 1, 1, 0
    for pitch, count in axes:
        if row_pitch and pitch % row_pitch == 0 and pitch // row_pitch <= rows:
            rows += (count - 1) * (pitch // row_pitch)
        else:
            total *= rows
            row_pitch, rows = pitch, count
    return total * rows


def copy_bytes(dims: Sequence[int], strides: Sequence[int], element_bytes: int, granule_bytes: int) -> int:
    """Bytes of the granules that one side of a DMA copy touches."""
    pitches = [stride * element_bytes for stride in strides]
    return touched_bytes(dims, pitches, element_bytes, granule_bytes)


def payload_bytes(dims: Sequence[int], element_bytes: int) -> int:
    """Bytes of all elements of a view."""
    return math.prod(dims) * element_bytes
