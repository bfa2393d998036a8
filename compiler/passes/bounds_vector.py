"""The least work of the vector cores for a lowered kernel: every statement once for every value that differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Final

from birc.compiler.ir.plan import Access
from birc.compiler.passes.bounds_values import Value, inside_share
from birc.runtime.isa import BY_MNEMONIC

SUMS: Final = frozenset({"vadd", "vsub", "vfoldsum", "vredsum"})
REDUCTIONS: Final = ("vred", "vfold")


@dataclass(frozen=True, slots=True)
class VectorWork:
    """Elements that the arithmetic and the special-function pipes have to take."""

    alu: int = 0
    sfu: int = 0


def vector_work(values: Sequence[Value], extents: Mapping[str, int]) -> list[VectorWork]:
    """The least work of each value of a kernel.

    What is reduced takes an operation for each element that disappears: halves of a tile can be added, and a fold
    takes one pass. A product that only sums take is an operation together with each of them (`vfma`); what is added to
    a sum of products costs nothing, for the sum can begin with it. Points at which an operand lies outside its tensor
    do not count: a window need not be walked beyond an edge.
    """
    uses: list[list[str]] = [[] for _ in values]
    for value in values:
        for place in value.arguments:
            uses[place].append(value.op)
    joined = [
        value.op == "vmul" and bool(ops) and SUMS.issuperset(ops) for value, ops in zip(values, uses, strict=True)
    ]
    # A product that one reduction takes counts for both: it has more elements than disappear.
    reduced = [join and len(ops) == 1 and ops[0].startswith(REDUCTIONS) for join, ops in zip(joined, uses, strict=True)]
    begun = [
        value.op in ("vadd", "vsub")
        and any(
            len(uses[place]) == 1
            and values[place].dims == value.dims
            and values[place].op.startswith(REDUCTIONS)
            and any(reduced[product] for product in values[place].arguments)
            for place in value.arguments
        )
        for value in values
    ]
    shares: dict[Access, Fraction] = {}
    found = []
    for value, join, alone, free in zip(values, joined, reduced, begun, strict=True):
        taken, given = value.elements(extents)
        taken = floor(taken * _inside(value, shares, extents))
        pipe = BY_MNEMONIC[value.op].pipe
        if value.op.startswith(REDUCTIONS):
            of_product = any(reduced[place] for place in value.arguments)
            found.append(VectorWork(alu=0 if of_product else max(0, taken - given)))
        elif pipe == "sfu":
            found.append(VectorWork(sfu=taken))
        elif pipe == "alu" and (alone or not join) and not free:
            found.append(VectorWork(alu=taken))
        else:
            found.append(VectorWork())
    return found


def _inside(value: Value, shares: dict[Access, Fraction], extents: Mapping[str, int]) -> Fraction:
    """The least share of the points of a value at which one of its operands is inside; `shares` are remembered."""
    least = Fraction(1)
    for access, spread in value.needs.items():
        if spread <= value.gone:  # one element at a point
            if access not in shares:
                shares[access] = inside_share(access, extents)
            least = min(least, shares[access])
    return least
