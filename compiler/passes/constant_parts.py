"""Constants of which each die reads a part of its own: a die then holds, and brings onto the chip, no more than that.

A part is a strided box of the constant. It lies dense in the die's memory, so the views on it get other strides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from birc.compiler.ir.copies import row_major_strides
from birc.compiler.ir.plan import Buffer, Kernel, KernelStep, Plan, View
from birc.compiler.ir.plan_access import accesses, views_by_buffer, with_views
from birc.compiler.ir.region import Region, region, union
from birc.compiler.passes.lifetimes import tables
from birc.runtime.dtypes import dtype


@dataclass(frozen=True, slots=True)
class _Dense:
    """Elements of a strided region as they lie when the region is stored without gaps."""

    region: Region

    @property
    def _steps(self) -> list[tuple[int, int]]:
        """Stride in the constant and stride in the part, by dimension, falling."""
        dims = self.region.dims
        return [(s, d) for (s, _), d in zip(dims, row_major_strides([e for _, e in dims]), strict=True)]

    def stride(self, stride: int) -> int | None:
        """A stride of a view in the part; None where the region cannot express it."""
        found = next(((s, d) for s, d in self._steps if s <= stride), None)
        if stride == 0 or found is None:
            return 0 if stride == 0 else None
        whole, dense = found
        return None if stride % whole else stride // whole * dense

    def place(self, element: int) -> int | None:
        """Where an element of the region lies in the part."""
        rest, place = element - self.region.offset, 0
        for whole, dense in self._steps:
            place += rest // whole * dense
            rest %= whole
        return None if rest else place

    def view(self, view: View) -> View | None:
        """A view of the constant as one of the part."""
        lower = view.lower or (0,) * len(view.dims)
        strides = [
            self.stride(stride) if extent > 1 else 0 for extent, stride in zip(view.dims, view.strides, strict=True)
        ]
        first = self.place(view.offset + sum(low * stride for low, stride in zip(lower, view.strides, strict=True)))
        if first is None or any(stride is None for stride in strides):
            return None
        known = tuple(stride or 0 for stride in strides)
        offset = first - sum(low * stride for low, stride in zip(lower, known, strict=True))
        return replace(view, offset=offset, strides=known)


def divide_constants(plan: Plan) -> Plan:
    """The plan with each constant of which the dies read different parts, equal in shape, as those parts."""
    if plan.dies == 1:
        return plan
    reads, indexed = _reads(plan)
    found = {b.name: _regions(b, reads[b.name]) for b in plan.buffers if b.name in reads and b.name not in indexed}
    parts = {name: tuple(map(_Dense, regions)) for name, regions in found.items() if regions}
    for die, kernel in _kernels(plan):
        for access in accesses(kernel):
            name = access.view.buffer
            if name in parts and parts[name][die].view(access.view) is None:
                del parts[name]
    if not parts:
        return plan
    steps = tuple(
        KernelStep(tuple(kernel and _on_parts(kernel, die, parts) for die, kernel in enumerate(step.kernels)))
        if isinstance(step, KernelStep)
        else step
        for step in plan.steps
    )
    buffers = tuple(_divided(b, parts[b.name]) if b.name in parts else b for b in plan.buffers)
    return replace(plan, buffers=buffers, steps=steps)


def _kernels(plan: Plan) -> Iterator[tuple[int, Kernel]]:
    for step in plan.steps:
        if isinstance(step, KernelStep):
            yield from ((die, kernel) for die, kernel in enumerate(step.kernels) if kernel is not None)


def _reads(plan: Plan) -> tuple[dict[str, list[dict[View, None]]], set[str]]:
    """How each die sees each constant that it reads, and the constants that are read at indices from data."""
    constants = {b.name for b in plan.buffers if b.role == "constant"}
    found = {name: views for name, views in views_by_buffer(plan).items() if name in constants}
    return found, set().union(*(tables(kernel) for _, kernel in _kernels(plan)))


def _regions(buffer: Buffer, views: Sequence[dict[View, None]]) -> tuple[Region, ...]:
    """What each die reads of a constant, when that is one box each, of equal shape and not the whole; else nothing."""
    read = [union(map(region, of_die)) for of_die in views]
    if any(len(regions) != 1 for regions in read):
        return ()
    boxes = _alike([regions[0] for regions in read])
    part = boxes[0].num_elements if boxes else 0
    whole = buffer.num_elements
    return boxes if part < whole and len(set(boxes)) == len(boxes) else ()


def _alike(boxes: Sequence[Region]) -> tuple[Region, ...]:
    """The boxes, smaller ones widened downwards to the shape of the largest; nothing where strides differ."""
    strides = [stride for stride, _ in boxes[0].dims]
    if any([stride for stride, _ in box.dims] != strides for box in boxes):
        return ()
    extents = [max(column) for column in zip(*([e for _, e in box.dims] for box in boxes), strict=True)]
    dims = tuple(zip(strides, extents, strict=True))
    missing = [sum((e - own) * s for (s, e), (_, own) in zip(dims, box.dims, strict=True)) for box in boxes]
    widened = tuple(Region(box.buffer, box.offset - less, dims) for box, less in zip(boxes, missing, strict=True))
    return widened if all(box.offset >= 0 for box in widened) else ()


def _on_parts(kernel: Kernel, die: int, parts: Mapping[str, tuple[_Dense, ...]]) -> Kernel:
    def moved(view: View) -> View:
        return (parts[view.buffer][die].view(view) if view.buffer in parts else None) or view

    return with_views(kernel, moved)


def _divided(buffer: Buffer, parts: tuple[_Dense, ...]) -> Buffer:
    dims = parts[0].region.dims
    extents = tuple(extent for _, extent in dims)
    return replace(
        buffer,
        num_bytes=math.prod(extents) * dtype(buffer.dtype).bits // 8,
        part_offsets=tuple(part.region.offset for part in parts),
        part_dims=extents,
        part_strides=tuple(stride for stride, _ in dims),
    )
