"""The values of a lowered kernel: which operands each needs, and along which dimensions it differs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from birc.compiler.ir.plan import Access, Index, Kernel, Phase, Statement

NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Value:
    """The result of a statement, or what a store writes (`access`).

    `dims` are the dimensions along which it differs, `taken` those of its arguments together. `needs` has for every
    operand the dimensions over all of which one element of the value needs it; operands of the contraction
    (`multiplied`) stand there with the whole depth, tables that are read at indices do not. `gone` are the dimensions
    that the statement reduces.
    """

    op: str
    dims: frozenset[str]
    taken: frozenset[str]
    needs: Mapping[Access, frozenset[str]]
    multiplied: bool
    gone: frozenset[str] = NOTHING
    access: Access | None = None

    def elements(self, extents: Mapping[str, int]) -> tuple[int, int]:
        """How many different elements are taken, and how many are given."""
        return math.prod(extents[name] for name in self.taken), math.prod(extents[name] for name in self.dims)


@dataclass(slots=True)
class _Reader:
    """Reads the statements of a kernel in order; what an earlier phase computed in the same way counts once."""

    kernel: Kernel
    values: dict[str, tuple[Value, int]] = field(default_factory=dict)
    numbers: dict[object, int] = field(default_factory=dict)

    def read(self) -> Iterator[Value]:
        for phase in self.kernel.phases:
            for statement in phase.statements:
                arguments = [self.values[a] for a in statement.arguments if isinstance(a, str)]
                value = self._value(phase, statement, [found for found, _ in arguments])
                key = (
                    statement.op,
                    tuple(self.values[a][1] if isinstance(a, str) else a for a in statement.arguments),
                    statement.access,
                    value.dims,
                    statement.index_axis,
                )
                is_new = key not in self.numbers
                number = self.numbers.setdefault(key, len(self.numbers))
                if statement.result:
                    self.values[statement.result] = value, number
                if is_new:
                    yield value

    def _value(self, phase: Phase, statement: Statement, arguments: list[Value]) -> Value:
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
            return Value(op, dims, dims, {contraction.a: depth, contraction.b: depth}, True)
        if access is not None and op != "vst":
            dims |= {name for index in access.index for name, _ in index.terms}
            if op == "vld":
                needs[access] = needs.get(access, NOTHING)
        gone = frozenset(statement.dims) if op.startswith(("vred", "vfold")) else NOTHING
        if op.startswith("vfold"):
            gone |= frozenset(phase.loops)
        if gone:
            needs = {operand: spread | gone for operand, spread in needs.items()}
        return Value(op, dims - gone, dims, needs, multiplied, gone, access if op == "vst" else None)


def values(kernel: Kernel) -> Iterator[Value]:
    """The value of every statement of a kernel, in order, equal ones once; stores among them."""
    return _Reader(kernel).read()


def always_inside(access: Access, spread: frozenset[str], extents: Mapping[str, int]) -> bool:
    """Whether an access reaches an element inside its tensor from every point, by some value of `spread` dimensions.

    A dimension of `spread` that moves two coordinates is taken as one that may not.
    """
    view = access.view
    met: set[str] = set()
    for index, low, dim in zip(access.index, view.lower or (0,) * len(view.dims), view.dims, strict=True):
        names = {name for name, _ in index.terms}
        if names & met & spread or not _axis_inside(index, low, low + dim, spread, extents):
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
