"""The chains that are chosen gain most together, by trying all; only they are made."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from birc.compiler.passes.chain_gain import Chain, Offer
from birc.compiler.passes.local_chains import _most_gaining

PLACES = 6


def not_made() -> Chain:
    raise AssertionError


def most(found: dict[int, Sequence[Offer]], place: int = 0) -> int:
    """What can be gained from a place on."""
    if place >= PLACES:
        return 0
    taken = (offer.gain + most(found, place + offer.length) for offer in found[place])
    return max((most(found, place + 1), *taken))


@given(st.lists(st.tuples(st.integers(0, PLACES - 2), st.integers(2, 4), st.integers(1, 20)), max_size=12))
def test_no_others_gain_more(offers: list[tuple[int, int, int]]) -> None:
    found: dict[int, Sequence[Offer]] = {
        place: [Offer(length, gain, not_made) for at, length, gain in offers if at == place and at + length <= PLACES]
        for place in range(PLACES)
    }
    chosen = _most_gaining(found, PLACES)
    assert sum(offer.gain for offer in chosen.values()) == most(found)
    assert list(chosen) == sorted(chosen)
    ends = [place + offer.length for place, offer in chosen.items()]
    assert all(end <= start for end, start in zip(ends, list(chosen)[1:], strict=False))


def test_many_places_are_no_deeper_than_few() -> None:
    """A pair at every other place of a long chain."""
    found = {place: [Offer(2, 1, not_made)] if place + 2 <= 5001 else [] for place in range(5001)}
    assert len(_most_gaining(found, 5001)) == 2500
