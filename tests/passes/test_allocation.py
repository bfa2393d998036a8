"""Placing blocks with fixed lifetimes: every search keeps them apart, the exact one is as low as trying all orders."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birc.compiler.passes.allocation import place as place_module
from birc.compiler.passes.allocation.blocks import Block
from birc.compiler.passes.allocation.climb import climb
from birc.compiler.passes.allocation.exact import solve
from birc.compiler.passes.allocation.greedy import ORDERS, PRIORITIES, attempts, lowest_first, priorities
from birc.compiler.passes.allocation.place import Effort, place
from birc.compiler.passes.allocation.problem import problem_of
from birc.compiler.passes.allocation.sections import sections
from birc.runtime.errors import UsageError

lives = st.builds(lambda start, length: (start, start + length), st.integers(0, 12), st.integers(1, 6))
block = st.builds(lambda size, life: Block(size, *life), st.integers(1, 40), lives)
any_block = st.builds(lambda size, life: Block(size, *life), st.integers(0, 900), lives)
small_block = st.builds(lambda size, life: Block(size, *life), st.integers(1, 5), lives)
FEW_CLIMBS = Effort(climbs=10)


def most_live(blocks: Sequence[Block]) -> int:
    """The most bytes that live at one step, step by step."""
    steps = range(max((b.end for b in blocks), default=0))
    return max((sum(b.num_bytes for b in blocks if b.start <= step < b.end) for step in steps), default=0)


def are_apart(blocks: Sequence[Block], addresses: Sequence[int]) -> bool:
    """Whether no two blocks share a byte in any step."""
    return not any(
        max(low, other_low) < min(low + one.num_bytes, other_low + other.num_bytes)
        and max(one.start, other.start) < min(one.end, other.end)
        for (one, low), (other, other_low) in itertools.combinations(zip(blocks, addresses, strict=True), 2)
    )


def least_height(blocks: Sequence[Block]) -> int:
    """The least height of all placements: in one of the orders every block falls down on those before it."""
    best = sum(b.num_bytes for b in blocks)
    for order in itertools.permutations(blocks):
        placed: list[tuple[Block, int]] = []
        for one in order:
            below = (low + other.num_bytes for other, low in placed if one.start < other.end and other.start < one.end)
            placed.append((one, max(below, default=0)))
        best = min(best, max(low + one.num_bytes for one, low in placed))
    return best


@settings(deadline=None)
@given(
    st.lists(st.builds(lambda size, life: Block(size, *life), st.integers(0, 900), lives)), st.sampled_from((1, 512))
)
def test_placed_blocks_keep_apart(blocks: list[Block], alignment: int) -> None:
    placement = place(blocks, alignment_bytes=alignment, effort=FEW_CLIMBS)
    rounded = [Block(-(-b.num_bytes // alignment) * alignment, b.start, b.end) for b in blocks]
    assert are_apart(rounded, placement.addresses)
    assert all(address >= 0 and address % alignment == 0 for address in placement.addresses)
    ends = [low + b.num_bytes for b, low in zip(rounded, placement.addresses, strict=True) if b.num_bytes]
    assert placement.height_bytes == max(ends, default=0)
    assert most_live(rounded) == placement.lower_bound_bytes <= placement.height_bytes
    assert placement == place(blocks, alignment_bytes=alignment, effort=FEW_CLIMBS)


@settings(deadline=None, max_examples=30)
@given(st.lists(block, min_size=1, max_size=20))
def test_every_greedy_placement_and_the_climb_keep_blocks_apart(blocks: list[Block]) -> None:
    problem = problem_of(blocks)
    found = [*attempts(problem), climb(problem, 0, 12)]
    names = [name for name, _ in found]
    assert len(set(names)) == len(found) == len(PRIORITIES) + 2 * len(ORDERS) + 1
    for name, addresses in found:
        assert are_apart(blocks, [low * problem.unit_bytes for low in addresses]), name


@settings(deadline=None, max_examples=30)
@given(st.lists(block, min_size=1, max_size=12), st.integers(0, 200))
def test_a_limit_only_ends_what_is_higher(blocks: list[Block], limit: int) -> None:
    problem = problem_of(blocks)
    priority = priorities(problem, "area")
    free = lowest_first(problem, priority)
    assert free is not None
    assert lowest_first(problem, priority, limit) == (free if problem.height(free) <= limit else None)


@settings(deadline=None, max_examples=25)
@given(st.lists(small_block, min_size=1, max_size=6))
def test_the_exact_height_is_that_of_the_best_order(blocks: list[Block]) -> None:
    least = least_height(blocks)
    problem = problem_of(blocks)
    height = least // problem.unit_bytes
    found = solve(problem, problem.bound, height + 1, height)
    assert found is not None and problem.height(found) == height
    assert are_apart(blocks, [low * problem.unit_bytes for low in found])
    assert place(blocks, least, alignment_bytes=1, effort=Effort(climbs=0, exact=True)).height_bytes == least


PINWHEEL = [Block(2, 0, 2), Block(1, 0, 3), Block(1, 1, 4), Block(1, 3, 6), Block(2, 4, 6), Block(1, 2, 5)]
"""Blocks of which 4 bytes live at once at the most."""


def test_exact_search_proves_what_is_impossible() -> None:
    layers = [Block(3, 0, 2), Block(3, 3, 5), Block(2, 1, 4), Block(1, 0, 1), Block(1, 4, 5), Block(1, 2, 3)]
    problem = problem_of(layers)
    least = least_height(layers)
    found = solve(problem, problem.bound, least + 1, least)
    assert found is not None and problem.height(found) == least
    assert solve(problem, problem.bound, least, least) is None


def test_exact_search_without_its_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birc.compiler.passes.allocation.exact.find_spec", lambda name: None)
    problem = problem_of(PINWHEEL)
    with pytest.raises(UsageError, match=r"OR-tools.*birc\[exact\]"):
        solve(problem, problem.bound, 100)


def test_an_optimal_placement_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birc.compiler.passes.allocation.exact.find_spec", lambda name: None)
    blocks = [Block(512, step, step + 2) for step in range(6)]
    assert place(blocks, effort=Effort(exact=True)).height_bytes == 1024


def test_known_addresses_are_never_left_for_higher_ones() -> None:
    layers = [Block(3, 0, 2), Block(3, 3, 5), Block(2, 1, 4), Block(1, 0, 1), Block(1, 4, 5), Block(1, 2, 3)]
    known = place(layers, alignment_bytes=1, effort=Effort(exact=True)).addresses
    none = Effort(climbs=0, pairs=0)
    assert place(layers, alignment_bytes=1, effort=none, known=known).height_bytes <= max(
        low + b.num_bytes for low, b in zip(known, layers, strict=True)
    )


def test_equal_layers_are_solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = [Block(3, 0, 2), Block(5, 1, 4), Block(2, 3, 5), Block(4, 0, 5)]
    blocks = [Block(b.num_bytes, b.start + 5 * number, b.end + 5 * number) for number in range(50) for b in layer]
    solved = []
    monkeypatch.setattr(place_module, "problem_of", lambda blocks: solved.append(blocks) or problem_of(blocks))
    placement = place(blocks, alignment_bytes=1)
    assert solved == [tuple(layer[number] for number in sections(layer)[0])]
    assert placement.addresses == placement.addresses[:4] * 50
    assert are_apart(blocks, placement.addresses)


@given(st.lists(block, max_size=20))
def test_sections_never_live_together(blocks: list[Block]) -> None:
    parts = sections(blocks)
    assert sorted(number for part in parts for number in part) == list(range(len(blocks)))
    ends = [max(blocks[number].end for number in part) for part in parts]
    starts = [min(blocks[number].start for number in part) for part in parts]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))


@given(st.lists(block, min_size=1, max_size=20))
def test_live_sets_are_those_of_the_steps_that_no_other_step_contains(blocks: list[Block]) -> None:
    living = [{n for n, b in enumerate(blocks) if b.start <= step < b.end} for step in range(20)]
    maximal = {frozenset(live) for live in living if live and not any(live < other for other in living)}
    problem = problem_of(blocks)
    found = [frozenset(live) for live in problem.live_sets()]
    assert maximal <= set(found) <= {frozenset(live) for live in living}
    assert len(found) == len(set(found))
    assert problem.bound * problem.unit_bytes == most_live(blocks)
    for number, others in enumerate(problem.neighbours):
        assert set(others) == set().union(*(live for live in living if number in live)) - {number}
        assert problem.conflicts[number] == len(others)
