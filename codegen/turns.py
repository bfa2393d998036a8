"""Which tiles of a contraction its vector programs take in turn, and how many of them have any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from birc.compiler.ir.plan import BLOCK, Contraction, Tiling


@dataclass(frozen=True, slots=True)
class Turns:
    """How vector programs share the tiles of an SPC: `count` of them have any, only the first where nothing is shared.

    They take those of each block in turn (`in_block`), blocks along a `dimension`, or the rows of one independent
    product each along `apart`.
    """

    count: int = 1
    in_block: bool = False
    dimension: str = ""
    apart: str = ""


def turns_of(
    contraction: Contraction, tiling: Tiling, row: str, shares: Mapping[str, int], independent: Sequence[str]
) -> Turns:
    """The turns of a contraction's programs.

    `row` is the dimension whose tiles form blocks, `shares` are the tiles of an SPC, `independent` the dimensions of
    independent products that programs may take apart. A loop that they share comes out even.
    """
    if tiling.programs == 1:
        return Turns()
    if tiling.turns != BLOCK and tiling.rows * tiling.columns > 1:
        return Turns(tiling.programs, in_block=True)
    column, rows = contraction.column, contraction.row_dims
    order = (column, *rows) if tiling.hoist == "b" else (*rows, column)
    blocks = {row: tiling.rows, column: tiling.columns}
    counts = {name: shares[name] // blocks.get(name, 1) for name in order}
    dimension = next((name for name in reversed(order) if counts[name] % tiling.programs == 0), "")
    if dimension:
        return Turns(tiling.programs, dimension=dimension)
    whole = () if tiling.hoist else reversed(independent)
    apart = next((name for name in whole if shares[name] % tiling.programs == 0), "")
    return Turns(tiling.programs if apart else 1, apart=apart)
