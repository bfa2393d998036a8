"""The values of a lowered kernel: which operands each needs, and along which dimensions it differs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from birc.compiler.ir.plan import Access, Index, Kernel, Phase, Statement

NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Value:
    """The result of a statement, or what a store writes (`access`).

    `dims` are the dimensions along which it differs, `taken` those of its arguments together. `needs` has for every
    operand the dimensions over all of which one element of the value needs it; operands of the contraction
    (`multiplied`) stand there with the whole depth, tables that are read at indices do not. `gone` are the dimensions
    that the statement reduces, `arguments` the places of the values that it takes in `values` of the kernel.
    """

    op: str
    dims: frozenset[str]
    taken: frozenset[str]
    needs: Mapping[Access, frozenset[str]]
    multiplied: bool
    gone: frozenset[str] = NOTHING
    access: Access | None = None
    arguments: tuple[int, ...] = ()

    def elements(self, extents: Mapping[str, int]) -> tuple[int, int]:
        """How many different elements are taken, and how many are given."""
        return math.prod(extents[name] for name in self.taken), math.prod(extents[name] for name in self.dims)


@dataclass(slots=True)
class _Reader:
    """Reads the statements of a kernel in order; what an earlier phase computed in the same way counts once."""

    kernel: Kernel
    places: dict[str, int] = field(default_factory=dict)
    known: dict[object, int] = field(default_factory=dict)
    values: list[Value] = field(default_factory=list)

    def read(self) -> list[Value]:
        for phase in self.kernel.phases:
            for statement in phase.statements:
                arguments = tuple(self.places[a] if isinstance(a, str) else a for a in statement.arguments)
                places = tuple(place for place in arguments if isinstance(place, int))
                value = self._value(phase, statement, places)
                key = (statement.op, arguments, statement.access, value.dims, statement.index_axis)
                if key not in self.known:
                    self.known[key] = len(self.values)
                    self.values.append(value)
                if statement.result:
                    self.places[statement.result] = self.known[key]
        return self.values

    def _value(self, phase: Phase, statement: Statement, places: tuple[int, ...]) -> Value:
        arguments = [self.values[place] for place in places]
        dims = NOTHING.union(*(value.dims for value in arguments))
        needs: dict[Access, frozenset[str]] = {}
        for value in arguments:
            for operand, spread in value.needs.items():
                needs[operand] = needs.get(operand, NOTHING) | spread
        multiplied = any(value.multiplied for value in arguments)
        op, access, contraction = statement.op, statement.access, self.kernel.contraction
        if op == "vacc" and contraction is not None:
            depth = frozenset(d.name for d in self.kernel.red_dims)
            dims = frozenset(d.name for d in self.kernel.par_dims)
            return Value(op, dims, dims, dict.fromkeys(contraction.operands, depth), True)
        if access is not None and op != "vst":
            dims |= {name for index in access.index for name, _ in index.terms}
            if op == "vld":
                needs[access] = needs.get(access, NOTHING)
        gone = frozenset(statement.dims) if op.startswith(("vred", "vfold")) else NOTHING
        if op.startswith("vfold"):
            gone |= frozenset(phase.loops)
        if gone:
            needs = {operand: spread | gone for operand, spread in needs.items()}
        written = access if op == "vst" else None
        return Value(op, dims - gone, dims, needs, multiplied, gone, written, places)


def values(kernel: Kernel) -> list[Value]:
    """The value of every statement of a kernel, in order, equal ones once; stores among them."""
    return _Reader(kernel).read()


def inside_share(access: Access, extents: Mapping[str, int]) -> Fraction:
    """The share of the points of its dimensions at which an access is inside its tensor, at least."""
    share, met = Fraction(1), set[str]()
    for index, low, high in coordinates(access):
        counts = _counts(index, extents)
        share *= Fraction(sum(n for value, n in counts.items() if low <= value < high), sum(counts.values()))
        names = {name for name, _ in index.terms}
        if names & met:
            return Fraction(0)
        met |= names
    return share


def _counts(index: Index, extents: Mapping[str, int]) -> dict[int, int]:
    """How often a coordinate takes each value."""
    values, counts = np.array([index.constant]), np.array([1])
    for name, factor in index.terms:
        moved = np.add.outer(values, factor * np.arange(extents[name]))
        values, places = np.unique(moved, return_inverse=True)
        counts = np.bincount(places.reshape(-1), weights=np.broadcast_to(counts[:, None], moved.shape).reshape(-1))
    return dict(zip(values.tolist(), map(int, counts.tolist()), strict=True))


def coordinates(access: Access) -> Iterator[tuple[Index, int, int]]:
    """The coordinates of an access with the first that is inside its tensor and the end."""
    view = access.view
    for index, low, dim in zip(access.index, view.lower or (0,) * len(view.dims), view.dims, strict=True):
        yield index, low, low + dim


def is_inside(index: Index, low: int, high: int, extents: Mapping[str, int]) -> bool:
    """Whether a coordinate is inside at every point."""
    ends = [factor * (extents[name] - 1) for name, factor in index.terms]
    first, last = index.constant + sum(min(0, e) for e in ends), index.constant + sum(max(0, e) for e in ends)
    return low <= first and last < high


def always_inside(access: Access, spread: frozenset[str], extents: Mapping[str, int]) -> bool:
    """Whether an access reaches an element inside its tensor from every point, by some value of `spread` dimensions.

    A dimension of `spread` that moves two coordinates is taken as one that may not.
    """
    met: set[str] = set()
    for index, low, high in coordinates(access):
        names = {name for name, _ in index.terms}
        if names & met & spread or not _axis_inside(index, low, high, spread, extents):
            return False
        met |= names
    return True


def _axis_inside(index: Index, low: int, high: int, spread: frozenset[str], extents: Mapping[str, int]) -> bool:
    fixed, moved = np.array([index.constant]), np.array([0])
    for name, factor in index.terms:
        steps = factor * np.arange(extents[name])
        if name in spread:
            moved = np.unique(np.add.outer(moved, steps))
        else:
            fixed = np.unique(np.add.outer(fixed, steps))
    # Of the rising offsets, the first that reaches `low` is the one to look at.
    first = np.searchsorted(moved, low - fixed)
    reached = fixed + moved[np.minimum(first, len(moved) - 1)]
    return bool(np.all((first < len(moved)) & (low <= reached) & (reached < high)))
