"""Names that are new among others: the names of a model may be any, so what the compiler adds must not collide."""

from __future__ import annotations

from collections.abc import Container


def unused_name(wanted: str, *taken: Container[str]) -> str:
    """The wanted name, or that name with the first number from 2 on that makes it differ from all those taken."""
    candidate, count = wanted, 1
    while any(candidate in names for names in taken):
        count += 1
        candidate = f"{wanted}.{count}"
    return candidate
