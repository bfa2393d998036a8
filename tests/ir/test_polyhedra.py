"""Sets of points and elements are what counting them one by one gives."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_streams import listed

from birc.compiler.ir import polyhedra
from birc.compiler.ir.affine import (
    Range,
    below,
    box,
    constant,
    difference,
    equal,
    renamed,
    scaled,
    total,
    variable,
    weighted,
)
from birc.compiler.ir.plan import Index
from birc.compiler.ir.polyhedra import Elements, example_point
from birc.runtime.errors import LimitError

NAMES = ("x", "a name, quoted", "[y] : z")
EXTENTS = dict(zip(NAMES, (4, 3, 5), strict=True))
POINTS = [dict(zip(NAMES, point, strict=True)) for point in product(*map(range, EXTENTS.values()))]

indices = st.builds(
    lambda factors, start: total(
        constant(start), *(scaled(variable(n), f) for n, f in zip(NAMES, factors, strict=True))
    ),
    st.tuples(*[st.integers(-6, 6)] * len(NAMES)),
    st.integers(-8, 8),
)
bounds = st.one_of(st.none(), st.integers(-20, 20))
ranges = st.builds(Range, indices, bounds, bounds)


VALUES = [tuple(map(variable, names)) for names in ("xyz", "yzx")]


def value(index: Index, point: dict[str, int]) -> int:
    return index.constant + sum(factor * point[name] for name, factor in index.terms)


def holds(item: Range, point: dict[str, int]) -> bool:
    found = value(item.value, point)
    return (item.low is None or item.low <= found) and (item.end is None or found < item.end)


def image(conditions: Sequence[Range], coordinates: Sequence[Index]) -> set[tuple[int, ...]]:
    points = [point for point in POINTS if all(holds(item, point) for item in conditions)]
    return {tuple(value(coordinate, point) for coordinate in coordinates) for point in points}


@settings(max_examples=80, deadline=None)
@given(st.lists(ranges, max_size=3), st.lists(st.lists(ranges, max_size=2), min_size=1, max_size=3))
def test_a_point_is_one_that_counting_finds(conditions: list[Range], alternatives: list[list[Range]]) -> None:
    inside = [
        point
        for point in POINTS
        if all(holds(item, point) for item in conditions)
        and any(all(holds(item, point) for item in items) for items in alternatives)
    ]
    found = example_point((*box(EXTENTS), *conditions), alternatives)
    assert found in inside if inside else found is None


def is_one_of(found: tuple[int, ...] | None, expected: set[tuple[int, ...]]) -> bool:
    return found in expected if expected else found is None


@settings(max_examples=80, deadline=None)
@given(st.lists(ranges, max_size=2), st.lists(ranges, max_size=2), st.lists(indices, min_size=1, max_size=2))
def test_sets_of_elements_are_those_that_counting_finds(
    first: list[Range], second: list[Range], coordinates: list[Index]
) -> None:
    one, other = image(first, coordinates), image(second, coordinates)
    a, b = (Elements.image((*box(EXTENTS), *conditions), coordinates) for conditions in (first, second))
    assert bool(a) == bool(one)
    assert listed(a) == one
    assert listed(a | b) == one | other
    assert listed(a & b) == one & other
    assert a.equals(b) == (one == other)
    assert is_one_of(a.example(), one)
    assert is_one_of((a | b).example_beyond(a), other - one)
    assert is_one_of(a.example_beyond(b), one - other)
    if len(coordinates) == 2:
        assert listed(a.without(0)) == {element[1:] for element in one}


def test_without_alternatives_there_is_no_point() -> None:
    assert example_point(box(EXTENTS), ()) is None


def test_conditions_without_variables() -> None:
    assert example_point(()) == {}
    assert example_point((Range(constant(3), 0, 3),)) is None
    assert Elements.image((), (constant(7),)).example() == (7,)
    assert not Elements.none(2)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 3), (2, 1)])
def test_comparisons(x: int, y: int) -> None:
    one, other = variable("x"), renamed(variable("x"), "other ")
    at = (equal(one, constant(x)), equal(other, constant(y)))
    assert (example_point((*at, below(one, other))) is not None) == (x < y)
    assert (example_point((*at, equal(one, other))) is not None) == (x == y)
    assert difference(one, one) == Index()


def test_a_question_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one is answered."""
    sums = [Elements.image(box({"x": 50, "y": 60, "z": 70}), (weighted(values, (6417, 971, 31)),)) for values in VALUES]
    monkeypatch.setattr(polyhedra, "MOST_OPERATIONS", 100)
    with pytest.raises(LimitError, match="cannot be decided within 100 operations"):
        sums[0].equals(sums[1])
    monkeypatch.undo()
    assert Elements.image((), (constant(7),)).equals(Elements.image((), (constant(7),)))
