"""The memories of the machine as byte arrays, and loads and stores of boxes.

A box is read and written through the strided view of a descriptor. Coordinates out of bounds never reach
memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from birc.runtime.conversion import (
    INT,
    Array,
    fill_value,
    from_register,
    memory_type,
    register_type,
    to_register,
)
from birc.runtime.faults import MachineFault
from birc.runtime.machine import Machine
from birc.runtime.program import Box, Descriptor, Program

Bytes = npt.NDArray[np.uint8]

# All bits set reads as NaN in every float type, and as -1.
POISON = 0xFF


class Memory:
    """`hbm[die]`, `l2[die]` and `tb[die][spc]`, sized by what the program declares.

    With `poison` every byte starts as `POISON`, so that a value never written shows; without, memory starts
    as zeros and costs nothing until it is touched.
    """

    __slots__ = ("hbm", "l2", "tb")

    def __init__(self, program: Program, machine: Machine, *, poison: bool = True) -> None:
        def block(*shape: int) -> Bytes:
            return np.full(shape, POISON, np.uint8) if poison else np.zeros(shape, np.uint8)

        dies, spcs = range(program.dies), machine.spcs_per_die
        self.hbm = tuple(block(program.hbm_bytes) for _ in dies)
        self.l2 = tuple(block(program.l2_bytes * spcs) for _ in dies)
        # One array a die, a row an SPC: an engine that executes all SPCs at once sees one strided memory.
        self.tb = tuple(block(spcs, program.tensor_buffer_bytes) for _ in dies)

    def space(self, name: str, die: int, spc: int = 0) -> Bytes:
        """The bytes of a memory space as one die (for `tb`: one SPC of it) sees them."""
        match name:
            case "hbm":
                return self.hbm[die]
            case "l2":
                return self.l2[die]
            case "tb":
                return self.tb[die][spc]
            case "other_l2" if len(self.l2) == 2:
                return self.l2[1 - die]
        raise MachineFault(f"there is no memory space {name!r}")

    def view(self, descriptor: Descriptor, die: int, spc: int = 0, byte_offset: int = 0) -> Array:
        """The tensor of a descriptor, its address moved by `byte_offset`: an array of `dims` that shares
        memory.

        Element [0, 0, ...] is the one at the coordinates `origin`. Raises `MachineFault` when it leaves the
        memory.
        """
        memory = self.space(descriptor.space, die, spc)
        element = memory_type(descriptor.dtype)
        first, end = byte_range(descriptor, byte_offset)
        if first < 0 or end > memory.size:
            raise MachineFault(
                f"a descriptor reaches bytes {first} to {end} of {descriptor.space}, which has {memory.size}"
            )
        strides = tuple(stride * element.itemsize for stride in descriptor.strides)
        start = origin_address(descriptor) + byte_offset
        if 0 in descriptor.dims:
            return np.empty(descriptor.dims, element)
        return np.ndarray(descriptor.dims, element, memory, start, strides)


def origin_address(descriptor: Descriptor) -> int:
    """The address of the element at the coordinates `origin`."""
    steps = zip(descriptor.lower, descriptor.strides, strict=True)
    itemsize = memory_type(descriptor.dtype).itemsize
    return descriptor.address + itemsize * sum(low * stride for low, stride in steps)


def byte_range(descriptor: Descriptor, byte_offset: int = 0) -> tuple[int, int]:
    """The first byte that the descriptor's elements occupy, and the one after the last."""
    start = origin_address(descriptor) + byte_offset
    if 0 in descriptor.dims:
        return start, start
    itemsize = memory_type(descriptor.dtype).itemsize
    reach = [(dim - 1) * stride for dim, stride in zip(descriptor.dims, descriptor.strides, strict=True)]
    first = start + itemsize * sum(distance for distance in reach if distance < 0)
    last = start + itemsize * sum(distance for distance in reach if distance > 0)
    return first, last + itemsize


def box_starts(box: Box, variables: tuple[int, ...]) -> tuple[int, ...]:
    """The coordinates of a box's first element for the given loop variables."""
    return tuple(axis.start.at(variables) for axis in box.axes)


def load_box(view: Array, descriptor: Descriptor, box: Box, starts: Sequence[int]) -> tuple[Array, int]:
    """The elements of a box as register lanes (FP32 or INT32), and how many of them are in bounds.

    `view` is the descriptor's array, `starts` the box's first coordinates. Elements out of bounds are what
    `box.fill` says. Raises `MachineFault` for elements out of bounds in a box that refuses them, and for
    integers that a lane does not hold.
    """
    _check_box(descriptor, box)
    ranges = [_range_inside(*arguments) for arguments in _axis_arguments(descriptor, box, starts)]
    inside = count_inside(ranges)
    everything = inside == np.prod(box.shape, dtype=np.int64)
    if not everything and box.fill == "refuse":
        raise MachineFault(f"a box at {tuple(starts)} leaves its tensor {descriptor.dims}, fill is refuse")
    if not everything and box.fill == "clamp":
        return _load_clamped(view, descriptor, box, starts), inside
    window = np.asarray(view[_memory_slices(descriptor, box, starts, ranges)])
    if everything:
        return to_register(window, descriptor.dtype), inside
    lanes = np.full(box.shape, fill_value(box.fill, descriptor.dtype), register_type(descriptor.dtype))
    if inside:
        lanes[tuple(slice(*pair) for pair in ranges)] = to_register(window, descriptor.dtype)
    return lanes, inside


def store_box(view: Array, descriptor: Descriptor, box: Box, starts: Sequence[int], lanes: Array) -> int:
    """Store register lanes, broadcast to the box's shape, to its elements in bounds; return how many those
    are.

    Raises `MachineFault` for lanes of a type or shape that the tensor does not take.
    """
    _check_box(descriptor, box)
    try:
        source = np.broadcast_to(lanes, box.shape)
    except ValueError as error:
        raise MachineFault(f"a register of shape {lanes.shape} is stored to a box of {box.shape}") from error
    ranges = [_range_inside(*arguments) for arguments in _axis_arguments(descriptor, box, starts)]
    inside = count_inside(ranges)
    elements = from_register(source[tuple(slice(*pair) for pair in ranges)], descriptor.dtype)
    if inside:
        view[_memory_slices(descriptor, box, starts, ranges)] = elements
    return inside


def load_indexed(
    view: Array,
    descriptor: Descriptor,
    box: Box,
    starts: Sequence[int],
    *,
    index: Array,
    axis: int,
    count: int,
) -> tuple[Array, int]:
    """A box whose coordinate on `axis` is its start plus `index`, broadcast over the box's other axes.

    Returns the lanes, of the shape that `index` and the box broadcast to, and how many are in bounds. Raises
    `MachineFault` for an index outside 0 <= index < `count`.
    """
    _check_box(descriptor, box)
    if axis >= len(box.axes) or box.axes[axis].extent != 1:
        raise MachineFault(f"the indexed axis {axis} of a box of {box.shape} must exist and have extent 1")
    if index.dtype != INT:
        raise MachineFault("the index register of an indexed load holds FP32 lanes")
    if index.size and (index.min() < 0 or index.max() >= count):
        bad = index.min() if index.min() < 0 else index.max()
        raise MachineFault(f"an indexed load has the index {bad}, the range is 0 to {count}")
    pairs = zip(starts, box.axes, strict=True)
    coordinates = list(np.ix_(*(start + entry.step * np.arange(entry.extent) for start, entry in pairs)))
    coordinates[axis] = coordinates[axis] + index.astype(np.int64)
    return _load_coordinates(view, descriptor, box, np.broadcast_arrays(*coordinates))


def _load_coordinates(view: Array, descriptor: Descriptor, box: Box, coordinates: Sequence[Array]) -> tuple[Array, int]:
    """Elements at coordinates given one by one (one array a dimension)."""
    positions = [grid - low for grid, low in zip(coordinates, descriptor.lower, strict=True)]
    inside = np.ones(positions[0].shape, np.bool_)
    for position, dim in zip(positions, descriptor.dims, strict=True):
        inside &= (position >= 0) & (position < dim)
    count = int(inside.sum())
    if box.fill == "refuse" and count < inside.size:
        raise MachineFault("an indexed load leaves its tensor, fill is refuse")
    nearest = tuple(np.clip(grid, 0, dim - 1) for grid, dim in zip(positions, descriptor.dims, strict=True))
    lanes = to_register(view[nearest], descriptor.dtype)
    if box.fill != "clamp":
        lanes[~inside] = fill_value(box.fill, descriptor.dtype)
    return lanes, count


def _check_box(descriptor: Descriptor, box: Box) -> None:
    if len(box.axes) != len(descriptor.dims):
        raise MachineFault(f"a box of {len(box.axes)} axes on a tensor of {len(descriptor.dims)}")
    if any(axis.step == 0 for axis in box.axes):
        raise MachineFault("an axis of a box has step 0", hint="use a dimension of stride 0")


def _axis_arguments(descriptor: Descriptor, box: Box, starts: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """For each axis: start from the view's first element, step, extent, dimension."""
    rows = zip(starts, descriptor.lower, box.axes, descriptor.dims, strict=True)
    return [(start - low, axis.step, axis.extent, dim) for start, low, axis, dim in rows]


def _range_inside(start: int, step: int, extent: int, dim: int) -> tuple[int, int]:
    """The half-open range of i in 0:extent with 0 <= start + i * step < dim; empty ranges are (0, 0)."""
    if step < 0:  # counted from the other end of the dimension the coordinates ascend
        start, step = dim - 1 - start, -step
    first = max(0, -(start // step))
    end = min(extent, -((start - dim) // step))
    return (first, end) if first < end else (0, 0)


def count_inside(ranges: Sequence[tuple[int, int]]) -> int:
    """The number of elements in the product of half-open ranges."""
    count = 1
    for first, end in ranges:
        count *= end - first
    return count


def _memory_slices(
    descriptor: Descriptor, box: Box, starts: Sequence[int], ranges: Sequence[tuple[int, int]]
) -> tuple[slice, ...]:
    """What indexes the view to give the elements in bounds."""
    arguments = _axis_arguments(descriptor, box, starts)
    slices = []
    for (start, step, _, _), (first, end) in zip(arguments, ranges, strict=True):
        after = start + end * step
        slices.append(slice(start + first * step, None if after < 0 else after, step) if end else slice(0))
    return tuple(slices)


def _load_clamped(view: Array, descriptor: Descriptor, box: Box, starts: Sequence[int]) -> Array:
    """Each element out of bounds replaced by the nearest one."""
    if 0 in descriptor.dims:
        raise MachineFault("a clamped load from a tensor without elements")
    positions = [
        np.clip(start + step * np.arange(extent), 0, dim - 1)
        for start, step, extent, dim in _axis_arguments(descriptor, box, starts)
    ]
    return to_register(view[np.ix_(*positions)], descriptor.dtype)
