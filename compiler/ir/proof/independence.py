"""Points of par loops are independent: none writes what another one writes or reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from birc.compiler.ir.affine import Range, below, equal, renamed, variable
from birc.compiler.ir.plan import OWN_DIMENSIONS
from birc.compiler.ir.polyhedra import Elements, example_point
from birc.compiler.ir.proof.flaw import Flaw, flaw
from birc.compiler.ir.proof.storage import Storage
from birc.compiler.ir.proof.touch import Space, Touch, taken

OTHER = "other "
"""Before the name of a dimension: its place at the second of two points."""


def independence_flaws(space: Space, storages: Mapping[str, Storage]) -> Iterator[Flaw]:
    """Pairs of points of par loops that touch one element, one of them writing.

    Accesses at the same point are in the order of the statements, and so are the phases of one outer tile.
    """
    for number, touch in enumerate(space.touches):
        if not touch.stores:
            continue
        for other_number, other in enumerate(space.touches):
            same_buffer = other.access.view.buffer == touch.access.view.buffer
            if same_buffer and not (other.stores and other_number < number):
                yield from _conflict(space, touch, other, storages[touch.access.view.buffer])


def _conflict(space: Space, touch: Touch, other: Touch, storage: Storage) -> Iterator[Flaw]:
    low, end = storage.seen_words(touch.access.view)
    other_low, other_end = storage.seen_words(other.access.view)
    if max(low, other_low) >= min(end, other_end):
        return
    told_apart = [name for name in space.distinct(touch) if name in space.distinct(other)]
    free = [name for name in told_apart if name in touch.parallel and name in other.parallel]
    if not free:
        return
    conditions = [*_points(space, touch, storage), *_renamed(_points(space, other, storage))]
    conditions.append(equal(touch.element, renamed(other.element, OTHER)))
    if storage.is_local:
        conditions.append(equal(space.spc()[0], renamed(space.spc()[0], OTHER)))
    apart = []
    for name in free:
        one, two = variable(name), variable(OTHER + name)
        apart.append((below(one, two),))
        if other is not touch:
            apart.append((below(two, one),))
    point = example_point(conditions, apart)
    if point is not None:
        named = {name: value for name, value in point.items() if not name.removeprefix(OTHER).startswith("(")}
        what = "writes the element that" if other.stores else "writes an element that"
        yield flaw(touch, f"{what} {other} {'writes' if other.stores else 'reads'} at another point", named)


def _points(space: Space, touch: Touch, storage: Storage) -> tuple[Range, ...]:
    """The points at which something is touched."""
    local = space.spc(beyond=True)[1] if storage.is_local else ()
    return (*space.within(space.distinct(touch), beyond=True), *touch.data, *touch.inside, *local)


def _renamed(conditions: Sequence[Range]) -> list[Range]:
    return [replace(item, value=renamed(item.value, OTHER)) for item in conditions]


def share_flaws(space: Space, most_spcs: int) -> Iterator[Flaw]:
    """Points of a dimension that no SPC takes, or two of them; and more SPCs than a die has."""
    used = 1
    for name, spread in space.spreads.items():
        used *= spread.spcs
        if name in OWN_DIMENSIONS and spread.points > 1:
            yield flaw(f"dimension {name}", f"an SPC takes {spread.points} points, it has memory for its own alone")
        if spread.spcs == 1 and spread.reached >= spread.extent:
            continue
        point, share, other = variable(name), variable("SPC"), variable(f"{OTHER}SPC")
        first = taken(point, spread, share, variable("deal"))
        twice = example_point((*first, *taken(point, spread, other, variable(f"{OTHER}deal")), below(share, other)))
        if twice is not None:
            yield flaw(f"dimension {name}", "a point is given to two SPCs", twice)
        given = Elements.image(first, (point,))
        left = Elements.image((Range(point, 0, spread.extent),), (point,)).example_beyond(given)
        if left is not None:
            yield flaw(f"dimension {name}", "a point is given to no SPC", {name: left[0]})
    if used > most_spcs:
        yield flaw("tiling", f"takes {used} SPCs, a die has {most_spcs}")
