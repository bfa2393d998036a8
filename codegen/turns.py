"""Which loops of a contraction its vector programs share, and how many of them there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from birc.compiler.ir.plan import BLOCK, Contraction, Tiling


def program_count(tiling: Tiling) -> int:
    """The vector programs that take tiles or blocks: where several take the tiles of a block in turn, each has one."""
    if tiling.turns == BLOCK or tiling.programs == 1:
        return tiling.programs
    if tiling.columns > 1:
        return tiling.columns
    return tiling.rows if tiling.rows > 1 else tiling.programs


def program_dimension(contraction: Contraction, tiling: Tiling, row: str, shares: Mapping[str, int]) -> str:
    """The innermost block loop that the vector programs can share evenly; "" when they share a block's tiles.

    `row` is the dimension whose tiles form blocks, `shares` are the tiles of an SPC.
    """
    if tiling.programs == 1 or (tiling.rows * tiling.columns > 1 and tiling.turns != BLOCK):
        return ""
    column, rows = contraction.column, contraction.row_dims
    order = (column, *rows) if tiling.hoist == "b" else (*rows, column)
    blocks = {row: tiling.rows, column: tiling.columns}
    counts = {name: shares[name] // blocks.get(name, 1) for name in order}
    return next((name for name in reversed(order) if counts[name] % tiling.programs == 0), "")


def taken_apart(independent: Sequence[str], tiling: Tiling, shares: Mapping[str, int]) -> str:
    """The dimension of independent products of which vector programs take the rows of one each; "" for none."""
    if tiling.programs == 1 or tiling.hoist:
        return ""
    return next((name for name in reversed(independent) if shares[name] % tiling.programs == 0), "")
