"""What is looked up where it is known already."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from birc.compiler.ir.found_once import found_once


@dataclass(frozen=True)
class Counted:
    """A key that counts how often it is hashed."""

    name: str
    times: list[int] = field(default_factory=list, compare=False)

    def __hash__(self) -> int:
        self.times.append(1)
        return hash(self.name)


def test_a_value_is_found_once_even_if_it_is_none() -> None:
    known: dict[str, int | None] = {}
    asked: list[str] = []

    def find() -> None:
        asked.append("a")

    assert [found_once(known, "a", find) for _ in range(3)] == [None] * 3
    assert asked == ["a"]
    assert found_once(known, "b", lambda: 2) == 2
    assert known == {"a": None, "b": 2}


def test_a_key_that_is_there_is_hashed_once() -> None:
    known = {Counted("a"): 1}
    key = Counted("a")
    assert found_once(known, key, lambda: 2) == 1
    assert len(key.times) == 1


def test_what_finding_raises_is_raised_and_nothing_is_kept() -> None:
    known: dict[str, int] = {}

    def find() -> int:
        raise KeyError("of its own")

    with pytest.raises(KeyError, match="of its own"):
        found_once(known, "a", find)
    assert not known
