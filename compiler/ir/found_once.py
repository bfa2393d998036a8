"""What is looked up where it is known already, and found where not."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def found_once(known: dict[Key, Value], key: Key, find: Callable[[], Value]) -> Value:
    """The value of a key, which is found and kept when it is not `known`.

    A key that is there is looked up a single time: forms of kernels take long to hash and to compare.
    """
    try:
        return known[key]
    except KeyError:
        pass
    value = known[key] = find()
    return value
