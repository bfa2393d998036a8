"""The boxes and ranges that the compiler reckons with contain what is touched, and are no larger where they promise.

The compiler's fast path computes with intervals. What it computes is handed in as functions, so that each is compared
with the exact set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from birc.compiler.ir.affine import Range, box, constant, scaled, total, variable, weighted
from birc.compiler.ir.plan import RED, Access, Buffer, Index, View
from birc.compiler.ir.plan_verify_kernel import bounds
from birc.compiler.ir.polyhedra import Elements, example_point
from birc.compiler.ir.proof.flaw import Flaw, flaw
from birc.compiler.ir.proof.storage import view_coordinates
from birc.compiler.ir.proof.touch import Space, Touch
from birc.runtime.program import OTHER_L2

_TILE, _AXIS = "tile of ", "axis "

Digit = tuple[int, int]
"""Stride and extent."""


class StridedBox(Protocol):
    """Elements `offset + sum(digit * stride)`, 0 <= digit < extent."""

    @property
    def offset(self) -> int:
        """The first element."""
        ...

    @property
    def dims(self) -> tuple[Digit, ...]:
        """Stride and extent of every digit."""
        ...


@dataclass(frozen=True, slots=True)
class FastPath:
    """The compiler's own computations.

    `region`: all elements of a view. `tight`: an access with its view cut down to what is reached when dimensions have
    these sizes, one axis being indexed by data. `byte_range`: space, first byte and end byte of a view of a buffer.
    """

    region: Callable[[View], StridedBox]
    tight: Callable[[Access, Mapping[str, int], int | None], Access]
    byte_range: Callable[[View, Buffer], tuple[str, int, int]]


def box_flaws(space: Space, touch: Touch, buffer: Buffer, size: int, fast: FastPath) -> Iterator[Flaw]:
    """Elements that an access touches outside a box that the compiler computes for it, and boxes that are too large.

    `size` are the bytes of an element of the buffer.
    """
    yield from _tile_flaws(space, touch)
    yield from _region_flaws(touch, fast)
    yield from _tight_flaws(space, touch, fast)
    yield from _byte_range_flaws(space, touch, buffer, size, fast)


def _tile_flaws(space: Space, touch: Touch) -> Iterator[Flaw]:
    """The box of an instruction is what the points of its tile touch: nothing more, and each once.

    A patch is what they touch for all taps, and the pixels between those of a dilated kernel.
    """
    for axis, index in enumerate(touch.access.index):
        tiled = [name for name, factor in index.terms if factor and space.spreads[name].tile > 1]
        if len(tiled) > 1:
            yield flaw(touch, f"the box of a tile has one step on axis {axis}, which moves with {' and '.join(tiled)}")
            return
        if touch.phase >= 0 and not _is_register_axis(space, axis, tiled):
            yield flaw(touch, f"axis {axis} of a register is not the axis that moves with {tiled[0]}")
    exact = _tile_coordinates(space, touch, shared=True)
    boxes = _tile_coordinates(space, touch, shared=False)
    if not exact.equals(boxes):
        missing, extra = exact.example_beyond(boxes), boxes.example_beyond(exact)
        if missing is None and space.taps_of(touch):
            return
        what = "the box of a tile misses" if missing is not None else "no point of a tile touches, but its box does,"
        yield flaw(touch, f"{what} the coordinates {_coordinates(touch, missing or extra or ())}")


def _is_register_axis(space: Space, axis: int, tiled: list[str]) -> bool:
    """Whether an axis of a vector access is that of the register dimension that moves it."""
    held = {d.name for d in space.kernel.space if d.kind != RED}
    return not tiled or (tiled[0] in held and axis == space.kernel.register_axis(tiled[0]))


def _tile_coordinates(space: Space, touch: Touch, *, shared: bool) -> Elements:
    """The tile numbers, then the coordinates that the tile touches.

    The points of a tile are those of its dimensions (`shared`), or those of a box with a counter of its own an axis.
    Taps that move windows of a patch are all in one tile.
    """
    taps = space.taps_of(touch)
    tiles = {name: spread.extent if name in taps else spread.tile for name, spread in space.spreads.items()}
    extents = {_TILE + name: 1 if name in taps else space.spreads[name].tiles for name in touch.moved}
    coordinates = []
    for axis, index in enumerate(touch.access.index):
        parts = [constant(index.constant)]
        patched = not shared and any(name in taps for name, _ in index.terms)
        for name, factor in index.terms:
            parts.append(scaled(variable(_TILE + name), factor * tiles[name]))
            if tiles[name] > 1 and not patched:
                counter = name if shared else f"{_AXIS}{axis}"
                extents[counter] = tiles[name]
                parts.append(scaled(variable(counter), factor))
        if patched:
            extents[f"{_AXIS}{axis}"] = 1 + sum(factor * (tiles[name] - 1) for name, factor in index.terms)
            parts.append(variable(f"{_AXIS}{axis}"))
        coordinates.append(total(*parts))
    numbers = [variable(_TILE + name) for name in touch.moved]
    return Elements.image(box(extents), (*numbers, *coordinates))


def _coordinates(touch: Touch, element: tuple[int, ...]) -> str:
    count = len(touch.moved)
    tiles = ", ".join(f"{name} {number}" for name, number in zip(touch.moved, element[:count], strict=True))
    return f"{list(element[count:])} of tile {tiles or '0'}"


def _region_flaws(touch: Touch, fast: FastPath) -> Iterator[Flaw]:
    """The strided box of a view has the elements of the view, and no other."""
    view = touch.access.view
    strided = fast.region(view)
    own = [(abs(stride), extent) for stride, extent in zip(view.strides, view.dims, strict=True)]
    ends = [(low * stride, (end - 1) * stride) for (low, end), stride in zip(bounds(view), view.strides, strict=True)]
    first = view.offset + sum(map(min, ends))
    if first == strided.offset and _same_sums(own, strided.dims):
        return
    exact, found = _sums(first, own), _sums(strided.offset, strided.dims)
    missing, extra = exact.example_beyond(found), found.example_beyond(exact)
    if missing is not None:
        yield flaw(touch, f"the strided box of the view misses element {missing[0]}")
    elif extra is not None:
        yield flaw(touch, f"the strided box of the view has element {extra[0]}, the view not")


def _same_sums(one: Sequence[Digit], other: Sequence[Digit]) -> bool:
    """Whether digits with these strides and extents give the same sums. False may also mean that it is not obvious.

    Digits that both have need no look. Of the others, dividing by the strides, the largest first, must lead from the
    sums of one to digits of the other.
    """
    ones, others = (Counter(digit for digit in digits if digit[0] and digit[1] > 1) for digits in (one, other))
    left, right = list((ones - others).elements()), list((others - ones).elements())
    return _divides(left, right) and _divides(right, left)


def _divides(digits: Sequence[Digit], others: Sequence[Digit]) -> bool:
    """Whether dividing every sum of the digits by the other strides gives quotients in range, and no rest."""
    limits, rest = _sum(digits)
    steps, outside = [], []
    for number, (stride, extent) in enumerate(sorted(others, reverse=True)):
        quotient = variable(f"quotient {number}")
        rest = weighted((rest, quotient), (1, -stride))
        steps.append(Range(rest, 0, stride))
        outside += [(Range(quotient, None, 0),), (Range(quotient, extent),)]
    outside += [(Range(rest, None, 0),), (Range(rest, 1),)]
    return example_point((*limits, *steps), outside) is None


def _sum(digits: Sequence[Digit], first: int = 0) -> tuple[tuple[Range, ...], Index]:
    """The ranges of digits, and the sum of the digits times their strides."""
    names = [f"digit {number}" for number in range(len(digits))]
    limits = box({name: extent for name, (_, extent) in zip(names, digits, strict=True)})
    return limits, weighted(tuple(map(variable, names)), [stride for stride, _ in digits], first)


def _sums(first: int, digits: Sequence[Digit]) -> Elements:
    limits, position = _sum(digits, first)
    return Elements.image(limits, (position,))


def _tight_flaws(space: Space, touch: Touch, fast: FastPath) -> Iterator[Flaw]:
    """The view cut down to what is reached contains what is reached; it is that where every axis moves by ones."""
    sizes = {d.name: d.extent for d in space.kernel.space}
    view = fast.tight(touch.access, sizes, touch.indexed[0] if touch.indexed is not None else None).view
    conditions = (*space.within(touch.moved), *touch.data, *touch.inside)
    outside = []
    for coordinate, (low, end) in zip(touch.coordinates, bounds(view), strict=True):
        outside += [(Range(coordinate, None, low),), (Range(coordinate, end),)]
    point = example_point(conditions, outside)
    if point is not None:
        yield flaw(touch, "the view cut down to the reached coordinates misses one", point)
    if not _is_exact(touch):
        return
    reached = Elements.image(conditions, touch.coordinates)
    places, limits = view_coordinates(view)
    extra = Elements.image(limits, places).example_beyond(reached)
    if extra is not None and reached:
        yield flaw(touch, f"the view cut down to the reached coordinates has {list(extra)}, which is not reached")


def _is_exact(touch: Touch) -> bool:
    """Whether intervals say exactly what is reached: an axis moves by ones, along one dimension, alone with it."""
    terms = [[term for term in index.terms if term[1]] for index in touch.access.index]
    names = [name for axis in terms for name, _ in axis]
    by_ones = all(abs(factor) == 1 for axis in terms for _, factor in axis)
    return touch.indexed is None and by_ones and len(set(names)) == len(names) and all(len(axis) < 2 for axis in terms)


def _byte_range_flaws(space: Space, touch: Touch, buffer: Buffer, size: int, fast: FastPath) -> Iterator[Flaw]:
    """The bytes that barriers go by contain those of every element."""
    view = touch.access.view
    place, first, end = fast.byte_range(view, buffer)
    lies_in = OTHER_L2 if view.away else buffer.space
    if place != lies_in:
        yield flaw(touch, f"is taken for an access to {place}, its buffer lies in {lies_in}")
    address = weighted((touch.element,), (size,), buffer.address)
    conditions = (*space.within(touch.moved, beyond=True), *touch.data, *touch.inside)
    point = example_point(conditions, ((Range(address, None, first),), (Range(address, end - size + 1),)))
    if point is not None:
        yield flaw(touch, f"touches bytes outside {first:#x} to {end:#x}, by which barriers are set", point)
