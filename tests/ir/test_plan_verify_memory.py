"""Overlaps of buffers: all pairs that share bytes while both live, as a comparison of all with all finds them."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from birc.compiler.ir import plan_verify_memory
from birc.compiler.ir.plan import Buffer

Placed = tuple[int, int, int, int, bool]
"""Address, bytes, first and last step, and whether it lives throughout."""

placed = st.tuples(
    st.integers(0, 12), st.integers(0, 6), st.integers(-1, 6), st.integers(-1, 6), st.booleans() | st.just(False)
)


def shares(one: Placed, other: Placed) -> bool:
    """Whether two have a byte in common in a step in which both live."""
    in_bytes = set(range(one[0], one[0] + one[1])) & set(range(other[0], other[0] + other[1]))
    return bool(in_bytes) and (one[4] or other[4] or (one[2] <= other[3] and other[2] <= one[3]))


@given(st.lists(placed, max_size=8))
@example([(0, 4, 0, 2, False), (4, 4, 0, 2, False), (2, 4, 3, 4, False), (5, 1, 4, 5, False)])
@example([(0, 2, 0, 0, True), (3, 2, 1, 1, False), (1, 1, 9, 9, False)])
def test_all_pairs_that_meet_are_told(blocks: list[Placed]) -> None:
    buffers = [
        Buffer(f"b{number:02}", "u8", num_bytes, "scratch", "l2", address, first, last)
        for number, (address, num_bytes, first, last, _) in enumerate(blocks)
    ]
    lasting = {buffer.name for buffer, block in zip(buffers, blocks, strict=True) if block[4]}
    found = list(plan_verify_memory._overlaps("l2", buffers, lasting))
    expected = {
        frozenset((one.name, other.name))
        for (one, left), (other, right) in combinations(zip(buffers, blocks, strict=True), 2)
        if shares(left, right)
    }
    told = {frozenset((where.split("%")[1], what.split("%")[1].split(" ")[0])) for where, what in found}
    assert told == expected
    assert len(found) == len(expected)


def test_many_in_one_place_one_after_the_other_are_not_compared_with_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A chain of kernels uses few addresses again and again."""

    def refused(*_: object) -> bool:
        raise AssertionError

    monkeypatch.setattr(plan_verify_memory, "_live_together", refused)
    buffers = [Buffer(f"b{n:04}", "u8", 8, "scratch", "l2", 8 * (n % 2), n, n + 1) for n in range(1000)]
    assert not list(plan_verify_memory._overlaps("l2", buffers, set()))
