"""Rows of a vector kernel in several registers: what is added up lane by lane needs no reduction across lanes.

A reduction across lanes takes twice as long as an addition. Where a row lies in several registers, these are added to
each other first, and only one of them is reduced; squares are added as they are made. A tile has fewer columns then,
and more rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from birc.compiler.ir.plan import Kernel, Phase, Statement, Tiling
from birc.compiler.passes.restrict import restrict

PARTS = (2, 4)
"""In how many parts rows are tried."""
NARROWEST = 64
"""Columns of a part, at least: bytes that follow one another in memory are loaded together."""
COMBINED = {"vredsum": "vadd", "vredmax": "vmax", "vredmin": "vmin", "vredprod": "vmul"}
"""By reduction the operation that combines two values before it."""


@dataclass(frozen=True, slots=True)
class TiledParts:
    """A tiling of a kernel whose rows are cut into parts."""

    parts: int
    tiling: Tiling

    def of(self, kernel: Kernel) -> Kernel:
        """The kernel in parts, with the tiling."""
        return replace(in_row_parts(kernel, self.parts) or kernel, tiling=self.tiling)


def in_row_parts(kernel: Kernel, parts: int) -> Kernel | None:
    """The kernel with rows in so many parts; None where it reduces none, or they do not come out even."""
    names = {name for phase in kernel.phases for s in phase.statements for name in s.dims}
    if kernel.contraction is not None or len(kernel.phases) != 1 or kernel.phases[0].loops or len(names) != 1:
        return None
    (name,) = names
    statements = kernel.phases[0].statements
    extent = kernel.dimension(name).extent
    if extent % parts or extent // parts < NARROWEST or any(not _can_be_cut(s, name) for s in statements):
        return None
    share = extent // parts
    cut = [restrict(kernel, name, number * share, share) for number in range(parts)]
    written = _Writer(name, [part.phases[0].statements for part in cut]).write()
    return replace(cut[0], macs=kernel.macs, phases=(Phase(tuple(written)),))


def _can_be_cut(statement: Statement, name: str) -> bool:
    if statement.op == "vldx" or (statement.dims and statement.op not in COMBINED):
        return False
    access = statement.access
    moved = [index for index in access.index if name in dict(index.terms)] if access is not None else []
    return len(moved) <= 1 and all(index.terms == ((name, 1),) for index in moved)


@dataclass(slots=True)
class _Writer:
    """Writes the statements, given those of each part: what differs along a row once for each part, the others once."""

    name: str
    parts: Sequence[Sequence[Statement]]
    wide: set[str] = field(default_factory=set)

    def write(self) -> Iterator[Statement]:
        uses = Counter(a for s in self.parts[0] for a in s.arguments)
        summed = {a for s in self.parts[0] if s.op == "vredsum" for a in s.arguments if uses[a] == 1}
        squares = {s.result: s.arguments for s in self.parts[0] if s.op == "vmul" and s.result in summed}
        for alike in zip(*self.parts, strict=True):
            first = alike[0]
            if self._is_wide(first):
                self.wide.add(first.result)
                if first.result not in squares:
                    yield from (self._of_part(s, number) for number, s in enumerate(alike))
            elif first.dims and first.arguments[0] in self.wide:
                yield from self._reduced(first, squares.get(str(first.arguments[0])))
            else:
                yield first

    def _is_wide(self, statement: Statement) -> bool:
        """Whether what a statement makes or stores differs along a row."""
        access = statement.access
        moves = access is not None and any(self.name in dict(index.terms) for index in access.index)
        return moves or (not statement.dims and any(a in self.wide for a in statement.arguments))

    def _of_part(self, statement: Statement, number: int) -> Statement:
        return replace(
            statement,
            result=_named(statement.result, number) if statement.result else "",
            arguments=self._arguments(statement.arguments, number),
        )

    def _arguments(self, arguments: Sequence[str | float], number: int) -> tuple[str | float, ...]:
        return tuple(_named(str(a), number) if a in self.wide else a for a in arguments)

    def _reduced(self, statement: Statement, factors: Sequence[str | float] | None) -> Iterator[Statement]:
        """A reduction of what the parts have together; `factors` where it is the sum of their products."""
        (argument,) = (str(a) for a in statement.arguments)
        together = _named(argument, 0)
        if factors is not None:
            yield Statement("vmul", together, self._arguments(factors, 0))
        for number in range(1, len(self.parts)):
            before, together = together, f"{_named(argument, number)}.{statement.op}"
            if factors is not None:
                yield Statement("vfma", together, (*self._arguments(factors, number), before))
            else:
                yield Statement(COMBINED[statement.op], together, (before, _named(argument, number)))
        yield replace(statement, arguments=(together,))


def _named(value: str, part: int) -> str:
    return f"{value}.{part}"
