"""Every byte that an access touches is one of its buffer, and what is stored is stored."""

from __future__ import annotations

from collections.abc import Iterator

from birc.compiler.ir.affine import Range, scaled, total, value_at, variable, weighted
from birc.compiler.ir.plan_verify_kernel import bounds
from birc.compiler.ir.polyhedra import example_point
from birc.compiler.ir.proof.flaw import Flaw, flaw
from birc.compiler.ir.proof.storage import ROUND, Storage
from birc.compiler.ir.proof.touch import Space, Touch


def bounds_flaws(space: Space, touch: Touch, storage: Storage) -> Iterator[Flaw]:
    """Points at which an access leaves its buffer, or misses the view that it may not miss.

    Tiles that reach beyond the space count for the first claim; in a store they must miss the view. Of what is stored
    the other die gets the part that its view has, and no more.
    """
    yield from _leaves_buffer(space, touch, storage)
    if (touch.stores and not touch.access.view.away) or touch.access.fill == "refuse":
        yield from _misses_view(space, touch)
    elif touch.indexed is not None:
        yield from _misses_view(space, touch, touch.indexed[0])
    if touch.stores:
        yield from _stores_beyond(space, touch)


def _leaves_buffer(space: Space, touch: Touch, storage: Storage) -> Iterator[Flaw]:
    """Coordinates outside the view touch nothing; inside, the bytes must be the buffer's, in every round."""
    first, count = storage.seen_bytes(touch.access.view)
    moved = scaled(variable(ROUND), storage.step_bytes)
    byte = total(weighted((touch.element,), (storage.element_bytes,), first), moved)
    rounds = (Range(variable(ROUND), 0, storage.rounds),) if moved.terms else ()
    conditions = (*space.within(touch.moved, beyond=True), *touch.data, *touch.inside, *rounds)
    outside = ((Range(byte, None, 0),), (Range(byte, storage.num_bytes - count + 1),))
    point = example_point(conditions, outside)
    if point is not None:
        reached = value_at(byte, point)
        what = f"touches bytes {reached} to {reached + count - 1} of a buffer of {storage.num_bytes} bytes"
        yield flaw(touch, what, point)


def _misses_view(space: Space, touch: Touch, only_axis: int | None = None) -> Iterator[Flaw]:
    """Coordinates outside the view, on any axis or on one."""
    limits = zip(touch.coordinates, bounds(touch.access.view), strict=True)
    checked = {axis: limit for axis, limit in enumerate(limits) if only_axis in (None, axis)}
    outside = [
        (item,)
        for coordinate, (low, end) in checked.values()
        for item in (Range(coordinate, None, low), Range(coordinate, end))
    ]
    point = example_point((*space.within(touch.moved), *touch.data), outside)
    if point is None:
        return
    for axis, (coordinate, (low, end)) in checked.items():
        reached = value_at(coordinate, point)
        if not low <= reached < end:
            yield flaw(touch, f"coordinate {reached} of axis {axis} is outside the view, {low} to {end - 1}", point)


def _stores_beyond(space: Space, touch: Touch) -> Iterator[Flaw]:
    """A tile that reaches beyond the space computes anything there: none of it may be stored."""
    ragged = [name for name in touch.loops if space.spreads[name].reached > space.spreads[name].extent]
    if not ragged:
        return
    names = tuple(dict.fromkeys((*touch.moved, *ragged)))
    conditions = (*space.within(names, beyond=True), *touch.inside)
    beyond = [(Range(variable(name), space.spreads[name].extent),) for name in ragged]
    point = example_point(conditions, beyond)
    if point is not None:
        yield flaw(touch, "stores what a tile computes beyond the iteration space", point)
