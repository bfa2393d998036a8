"""Boxes as strided views of memory: loads and stores of whole axes at once.

An access to a region is a view of the tensor in memory when all its coordinates are in bounds. Otherwise a copy of
the part of the tensor that the access spans, filled where it is out of bounds, is viewed in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np

from birc.runtime.conversion import INT, fill_value, from_register, memory_type, register_type, to_register
from birc.runtime.dtypes import dtype
from birc.runtime.faults import MachineFault
from birc.runtime.program import Descriptor
from birc.runtime.values.axes import Reach
from birc.runtime.values.frame import Array, Frame, Region

# Integers of these types may not fit a register lane.
_WIDE: Final = frozenset({"i64", "u64"})


@dataclass(frozen=True, slots=True)
class Dimension:
    """One coordinate of an access: its constant from the lower bound on, its terms by axis position.

    `size` is the dimension's; `stride_bytes` its step in memory.
    """

    constant: int
    terms: tuple[tuple[int, int], ...]
    size: int
    stride_bytes: int

    def span(self, region: Region) -> tuple[int, int]:
        """The lowest and highest coordinate in a region."""
        low = high = self.constant
        for position, factor in self.terms:
            first, end = region[position]
            if factor > 0:
                low += factor * first
                high += factor * (end - 1)
            else:
                low += factor * (end - 1)
                high += factor * first
        return low, high


class BoxView:
    """An access prepared for a part: how to view it in any region."""

    __slots__ = (
        "_fill",
        "_offset_bytes",
        "_places",
        "_steps",
        "dimensions",
        "element",
        "inside",
        "name",
        "rank",
        "slot",
    )

    def __init__(
        self,
        reach: Reach,
        descriptor: Descriptor,
        order: Sequence[int],
        places: Sequence[int],
        whole: Region,
        spc_bytes: int,
    ) -> None:
        """`places` are the dimensions of the axes in `order`, `spc_bytes` is the distance between the tensor
        buffers of two SPCs."""
        positions = {axis: position for position, axis in enumerate(order)}
        self.slot = reach.slot
        self.name = descriptor.dtype
        self.element = memory_type(descriptor.dtype)
        self.rank = max(places, default=-1) + 1
        self._places = tuple(places)
        self._fill = reach.fill
        itemsize = self.element.itemsize
        sizes = (*descriptor.dims, 1 << 32)
        strides = (*(stride * itemsize for stride in descriptor.strides), spc_bytes)
        lowers = (*descriptor.lower, 0)
        self.dimensions = tuple(
            Dimension(constant - low, tuple((positions[axis], f) for axis, f in factors.items()), size, stride)
            for constant, factors, size, stride, low in zip(
                reach.constants, reach.factors, sizes, strides, lowers, strict=False
            )
        )
        steps = dict.fromkeys(sorted(positions[axis] for axis in reach.axes), 0)
        for dimension in self.dimensions:
            for position, factor in dimension.terms:
                steps[position] += factor * dimension.stride_bytes
        self._steps = tuple((position, places[position], step) for position, step in steps.items())
        self._offset_bytes = sum(d.constant * d.stride_bytes for d in self.dimensions)
        self.inside = self._is_inside(whole)

    @property
    def positions(self) -> frozenset[int]:
        """The axes that the access varies with, by position."""
        return frozenset(position for position, _, _ in self._steps)

    def step_bytes(self, position: int) -> int:
        """The distance in memory between neighbours on an axis."""
        return next((step for own, _, step in self._steps if own == position), 0)

    def _is_inside(self, region: Region) -> bool:
        spans = ((d.span(region), d.size) for d in self.dimensions)
        return all(low >= 0 and high < size for (low, high), size in spans)

    def shape(self, region: Region) -> tuple[int, ...]:
        """The shape of the view: extent 1 on axes that the access does not vary with."""
        shape = [1] * self.rank
        for position, place, _ in self._steps:
            first, end = region[position]
            shape[place] = end - first
        return tuple(shape)

    def direct(self, frame: Frame) -> Array | None:
        """The elements in memory, None when some coordinates are out of bounds."""
        region = frame.region
        if not self.inside and not self._is_inside(region):
            return None
        tensor = frame.tensors[self.slot]
        offset = tensor.address + self._offset_bytes
        shape, strides = [1] * self.rank, [0] * self.rank
        for position, place, step in self._steps:
            first, end = region[position]
            offset += step * first
            shape[place] = end - first
            strides[place] = step
        return np.ndarray(shape, self.element, tensor.memory, offset, strides)

    def spanned(self, frame: Frame, buffer: int) -> Array:
        """What the access spans in the memory, out-of-bounds coordinates filled: an array of register lanes
        over the tensor's own dimensions, in a buffer of the workspace."""
        spans = [d.span(frame.region) for d in self.dimensions]
        inside = [(max(low, 0), min(high + 1, d.size)) for (low, high), d in zip(spans, self.dimensions, strict=True)]
        shape = tuple(high - low + 1 for low, high in spans)
        empty = any(first >= end for first, end in inside)
        whole = not empty and prod(end - first for first, end in inside) == prod(shape)
        if self._fill == "clamp" and not whole:
            return self._clamped(frame, spans)
        lanes = frame.workspace.array(buffer, shape, register_type(self.name))
        if not whole:
            if self._fill == "refuse":
                raise MachineFault("a box leaves its tensor, fill is refuse")
            lanes.fill(fill_value(self._fill, self.name))
        if not empty:
            part = tuple(slice(first - low, end - low) for (first, end), (low, _) in zip(inside, spans, strict=True))
            widen(self._memory(frame, inside), self.name, lanes[part])
        return lanes

    def _clamped(self, frame: Frame, spans: Sequence[tuple[int, int]]) -> Array:
        """The nearest element in place of those out of bounds."""
        pairs = [
            (np.clip(np.arange(low, high + 1), 0, d.size - 1), d)
            for (low, high), d in zip(spans, self.dimensions, strict=True)
        ]
        needed = [(int(indices[0]), int(indices[-1]) + 1) for indices, _ in pairs]
        elements = self._memory(frame, needed)
        local = [indices - first for (indices, _), (first, _) in zip(pairs, needed, strict=True)]
        return np.ascontiguousarray(to_register(elements[np.ix_(*local)], self.name))

    def _memory(self, frame: Frame, ranges: Sequence[tuple[int, int]]) -> Array:
        """The tensor's elements in a range of each dimension."""
        tensor = frame.tensors[self.slot]
        offset = tensor.address
        for (first, _), dimension in zip(ranges, self.dimensions, strict=True):
            offset += first * dimension.stride_bytes
        shape = tuple(end - first for first, end in ranges)
        strides = tuple(dimension.stride_bytes for dimension in self.dimensions)
        return np.ndarray(shape, self.element, tensor.memory, offset, strides)

    def over(self, spanned: Array, region: Region) -> Array:
        """The access as a view of what it spans."""
        steps = [0] * self.rank
        offset = 0
        for dimension, stride in zip(self.dimensions, spanned.strides, strict=True):
            low, _ = dimension.span(region)
            start = dimension.constant
            for position, factor in dimension.terms:
                steps[self._places[position]] += factor * stride
                start += factor * region[position][0]
            offset += (start - low) * stride
        return np.ndarray(self.shape(region), spanned.dtype, spanned, offset, steps)

    def spanned_elements(self, region: Region) -> int:
        """How many elements `spanned` has."""
        return prod(high - low + 1 for low, high in (d.span(region) for d in self.dimensions))

    def elements(self, region: Region) -> int:
        """How many elements the view has."""
        return prod(self.shape(region))

    def store_outside(self, frame: Frame, lanes: Array) -> None:
        """Store lanes of which some are out of bounds: those are dropped."""
        spans = [d.span(frame.region) for d in self.dimensions]
        inside = [(max(low, 0), min(high + 1, d.size)) for (low, high), d in zip(spans, self.dimensions, strict=True)]
        if any(first >= end for first, end in inside):
            return
        part = tuple(slice(first - low, end - low) for (first, end), (low, _) in zip(inside, spans, strict=True))
        target = self._memory(frame, inside)
        # What lies between the stored elements must stay as it is.
        merged = np.empty(tuple(high - low + 1 for low, high in spans), self.element)
        merged[part] = target
        view = self.over(merged, frame.region)
        view[...] = narrow(np.broadcast_to(lanes, view.shape), self.name)
        target[...] = merged[part]


def is_plain(name: str) -> bool:
    """Whether a memory type's elements are register lanes as they are."""
    return memory_type(name) == register_type(name)


def widen(elements: Array, name: str, out: Array) -> None:
    """Elements of a memory type as register lanes."""
    if name in _WIDE or name == "bool":
        out[...] = to_register(elements, name)
    else:
        np.copyto(out, elements, casting="unsafe")


def narrow(lanes: Array, name: str) -> Array:
    """Register lanes as elements of a memory type."""
    return lanes if is_plain(name) and lanes.dtype == register_type(name) else from_register(lanes, name)


def store_lanes(target: Array, lanes: Array, name: str) -> None:
    """Store register lanes to elements of a memory type."""
    if dtype(name).kind == "bool":
        np.not_equal(lanes, 0, out=target.view(np.bool_))
    elif dtype(name).is_integer and lanes.dtype != INT:
        raise MachineFault(f"stores FP32 lanes to a tensor of type {name}", hint="convert with vtoint first")
    else:
        np.copyto(target, lanes, casting="unsafe")
