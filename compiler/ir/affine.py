"""Arithmetic on affine expressions, and the ranges that they are held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from birc.compiler.ir.plan import Index


@dataclass(frozen=True, slots=True)
class Range:
    """`low <= value < end`; a bound that is None is none."""

    value: Index
    low: int | None = 0
    end: int | None = None


def variable(name: str) -> Index:
    """The expression that is one variable."""
    return Index(((name, 1),))


def constant(value: int) -> Index:
    """The expression that is a number."""
    return Index((), value)


def total(*parts: Index) -> Index:
    """The sum of expressions, each variable once."""
    terms: dict[str, int] = {}
    for part in parts:
        for name, factor in part.terms:
            terms[name] = terms.get(name, 0) + factor
    return Index(
        tuple((name, factor) for name, factor in terms.items() if factor), sum(part.constant for part in parts)
    )


def scaled(value: Index, factor: int) -> Index:
    """The expression times a number."""
    return Index(tuple((name, own * factor) for name, own in value.terms if factor), value.constant * factor)


def difference(first: Index, second: Index) -> Index:
    """The first expression less the second."""
    return total(first, scaled(second, -1))


def weighted(values: Sequence[Index], weights: Sequence[int], offset: int = 0) -> Index:
    """`offset` and the sum of the expressions times their weights."""
    products = (scaled(value, weight) for value, weight in zip(values, weights, strict=True))
    return total(constant(offset), *products)


def value_at(value: Index, point: Mapping[str, int]) -> int:
    """What an expression is at a point."""
    return value.constant + sum(factor * point[name] for name, factor in value.terms)


def renamed(value: Index, prefix: str) -> Index:
    """The expression over other variables: the names with a prefix."""
    return Index(tuple((prefix + name, factor) for name, factor in value.terms), value.constant)


def equal(first: Index, second: Index) -> Range:
    """The condition that two expressions have the same value."""
    return Range(difference(first, second), 0, 1)


def below(first: Index, second: Index) -> Range:
    """The condition that the first expression is less than the second."""
    return Range(difference(second, first), 1)


def box(extents: Mapping[str, int]) -> tuple[Range, ...]:
    """The conditions that each variable counts from zero to its extent."""
    return tuple(Range(variable(name), 0, extent) for name, extent in extents.items())
