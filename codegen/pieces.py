"""Large constants that several kernels read come onto the chip piece by piece: each kernel waits for its own alone."""

from __future__ import annotations

import math
from typing import Final

from birc.compiler.ir.plan import Buffer, KernelStep, Plan, View
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.region import Region, region, union
from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine
from birc.runtime.program import MAX_BOX_RANK

LEAST_BYTES: Final = 1 << 20
"""The pieces that are worth a copy of their own, on average."""


def pieces_read(plan: Plan, target: Buffer, die: int, machine: Machine) -> tuple[View, ...]:
    """The parts of a buffer that the kernels of a die read one after the other, as views that a copy can move.

    Nothing where these are not several disjoint boxes that are all of the buffer, and large.
    """
    boxes = _boxes(plan, target.name, die)
    total = target.num_elements
    if len(boxes) < 2 or target.num_bytes < len(boxes) * LEAST_BYTES or dtype(target.dtype).bits % 8:
        return ()
    (first, *others) = union(boxes)
    if others or (first.offset, first.end) != (0, total) or sum(map(_size, boxes)) != total:
        return ()
    views = [_view(box, machine.max_dim) for box in boxes]
    return tuple(view for view in views if view is not None) if None not in views else ()


def _boxes(plan: Plan, name: str, die: int) -> list[Region]:
    steps = (step.kernels[die] for step in plan.steps if isinstance(step, KernelStep))
    reads = (access.view for kernel in steps if kernel is not None for access in accesses(kernel))
    return list(dict.fromkeys(region(view) for view in reads if view.buffer == name))


def _size(box: Region) -> int:
    return math.prod(extent for _, extent in box.dims)


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
