"""Which boxes of a graph's input or output each die has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from birc.compiler.ir.copies import row_major_strides
from birc.compiler.ir.plan import Kernel, KernelStep, Step, View
from birc.compiler.ir.region import Region, region, union

Piece = tuple[int, tuple[int, ...], View]
"""A mask of dies, where the piece begins in the tensor, and where it lies."""


def written_pieces(view: View, rank: int, steps: Sequence[Step], dies: int) -> tuple[Piece, ...] | None:
    """What each die writes of a dense tensor, as boxes of it; None where it is not made of such.

    A view with fewer dimensions than the tensor's `rank` has its first one, and others merged.
    """
    if not view.dims or tuple(view.strides) != row_major_strides(view.dims):
        return None
    pieces: list[Piece] = []
    for die in range(dies):
        kernels = (s.kernels[die] for s in steps if isinstance(s, KernelStep))
        regions = union(region for kernel in kernels if kernel is not None for region in _stored(kernel, view.buffer))
        for item in regions:
            box = _box(view, item, len(view.dims) if len(view.dims) == rank else 1)
            if box is None:
                return None
            start, part = box
            pieces.append((1 << die, (*start, *(0 for _ in range(rank - len(start)))), part))
    return tuple(pieces)


def _stored(kernel: Kernel, buffer: str) -> Iterator[Region]:
    for phase in kernel.phases:
        for s in phase.statements:
            if s.op == "vst" and s.access is not None and s.access.view.buffer == buffer:
                yield region(s.access.view)


def _box(view: View, item: Region, axes: int) -> tuple[tuple[int, ...], View] | None:
    """The box of a dense tensor that a region is: whole but along one of its first `axes`; None when it is none."""
    for axis, (extent, stride) in enumerate(zip(view.dims[:axes], view.strides[:axes], strict=True)):
        first, rest = divmod(item.offset - view.offset, stride)
        if rest or first >= extent:
            continue
        count = item.num_elements * extent // region(view).num_elements
        dims = (*view.dims[:axis], count, *view.dims[axis + 1 :])
        part = View(view.buffer, item.offset, dims, view.strides)
        if count and region(part) == item:
            return (*(0 for _ in range(axis)), first), part
    return None
