"""Vector kernels that load ahead: a program loads its next tile as soon as it has used the registers of this one.

What is the same for all tiles is loaded once. The other loads are written behind the last statement that reads what
they replace, so that they are under way while the rest of the tile is computed; those of the first tile come before
all else, and the last tile is written apart, without any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from birc.codegen.statements import StatementWriter
from birc.compiler.ir.plan import Statement


def write_ahead(writer: StatementWriter, statements: Sequence[Statement], divided: str, tiles: int, step: int) -> None:
    """The `tiles` of a program along the dimension `divided`, each a `step` further on."""
    nest = writer.nest
    loads = [s for s in statements if s.op == "vld"]
    moving = [s for s in loads if moves(s, divided)]
    for statement in loads:
        writer.write(statement)
    rest = [s for s in statements if s not in loads]
    with nest.loop(tiles - 1, step, divided, kind="seq"):
        for statement, following in _with_next(rest, moving):
            writer.write(statement)
            with nest.moved(divided, step):
                for load in following:
                    writer.write(load)
    with nest.moved(divided, (tiles - 1) * step):
        for statement in rest:
            writer.write(statement)


def moves(load: Statement, dimension: str) -> bool:
    """Whether what is loaded moves along a dimension."""
    return load.access is not None and any(dimension in dict(index.terms) for index in load.access.index)


def _with_next(
    statements: Sequence[Statement], loads: Sequence[Statement]
) -> Iterator[tuple[Statement, list[Statement]]]:
    """Each statement with the loads whose registers it is the last to read."""
    last = {argument: number for number, s in enumerate(statements) for argument in s.arguments}
    for number, statement in enumerate(statements):
        yield statement, [load for load in loads if last[load.result] == number]
