"""Large constants that several kernels read come onto the chip piece by piece: each kernel waits for its own alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from birc.compiler.ir.plan import Buffer, View
from birc.compiler.ir.region import Region, region, union
from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine
from birc.runtime.program import MAX_BOX_RANK

LEAST_BYTES: Final = 1 << 20
"""The pieces that are worth a copy of their own, on average."""


def pieces_of(target: Buffer, views: Iterable[View], machine: Machine) -> tuple[View, ...]:
    """The parts of a buffer that the kernels of a die see, as views that a copy can move.

    Nothing where these are not several disjoint boxes that are a run of the buffer, and large. What is beside it nobody
    reads: the parts of two dies may differ by a column.
    """
    boxes = list(dict.fromkeys(map(region, views)))
    if len(boxes) < 2 or target.num_bytes < len(boxes) * LEAST_BYTES or dtype(target.dtype).bits % 8:
        return ()
    (first, *others) = union(boxes)
    if others or sum(box.num_elements for box in boxes) != first.num_elements:
        return ()
    moved = [_view(box, machine.max_dim) for box in boxes]
    return tuple(view for view in moved if view is not None) if None not in moved else ()


def _view(box: Region, limit: int) -> View | None:
    """The box as a view none of whose dimensions is larger than a descriptor's; None where there is none."""
    dims: list[tuple[int, int]] = []
    for stride, extent in box.dims:
        inner = next((d for d in range(min(extent, limit), 0, -1) if extent % d == 0), 1)
        if extent // inner > limit:
            return None
        dims += [(stride * inner, extent // inner)] * (extent > inner) + [(stride, inner)]
    if len(dims) > MAX_BOX_RANK:
        return None
    return View(box.buffer, box.offset, tuple(extent for _, extent in dims), tuple(stride for stride, _ in dims))
