"""Rows of tiles that go through the depth there and back, past a tile of columns that is too deep for its input buffer.

Each row begins with the part of the depth that the one before ended with. What it leaves first makes room for what it
needs last, so that of a depth with a few steps more than there are slots only these few are loaded for each row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from birc.compiler.ir.depth_steps import resident_steps
from birc.compiler.ir.plan import Contraction, Kernel, Tiling
from birc.compiler.ir.plan_spread import spreads
from birc.runtime.program import MAX_LOOP_DEPTH

CONDITIONS: Final = 2
"""How many of them single out the steps in the middle of the depth, which all rows find there."""


def winds_through_depth(kernel: Kernel, tiling: Tiling) -> bool:
    """Whether rows do so: there are not slots for the columns that they go past."""
    return tiling.hoist == "b" and tiling.b_slots < tiling.columns * resident_steps(kernel, tiling)


def winding_problems(kernel: Kernel, contraction: Contraction, tiling: Tiling, row_slots: int) -> Iterator[str]:
    """What is wrong with rows that do so, of which each takes `row_slots`."""
    if not winds_through_depth(kernel, tiling):
        return
    spread, tile = spreads(kernel, tiling), dict(tiling.tile)
    shares = {d.name: spread[d.name].share for d in kernel.par_dims}
    rows = [shares[name] for name in contraction.row_dims if shares[name] > 1]
    is_alone = tiling.rows == tiling.columns == tiling.programs == 1 and math.prod(rows) == math.prod(shares.values())
    is_paired = bool(rows) and (len(rows) == 1 or rows[-1] % 2 == 0)
    is_streamed = tiling.stream and tiling.a_slots >= row_slots and not contraction.further
    if not (is_alone and is_paired and is_streamed):
        yield (
            "winds through a depth for which it has no slots, which takes one tile of columns, several streamed rows"
            " (an even number in the innermost of several loops) with slots for one of them, and one program"
        )
    steps = [-(-d.extent // tile.get(d.name, 1)) for d in kernel.red_dims]
    counts = (*(one.spcs for one in spread.values()), *rows, *steps)
    nested = sum(count > 1 for count in counts) + CONDITIONS
    if nested > MAX_LOOP_DEPTH:
        yield f"winds through its depth in {nested} loops and conditions, at most {MAX_LOOP_DEPTH} nest"
