"""What must hold of the order in which the tiles of a product go."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from birc.compiler.ir.depth_steps import depth_steps
from birc.compiler.ir.plan import TILE, Contraction, Dimension, Kernel, Tiling
from birc.compiler.ir.plan_spread import spreads
from birc.compiler.ir.registers import begins_early, epilogue
from birc.compiler.ir.row_overlap import can_overlap, overlapped_dimension
from birc.compiler.ir.tile_order import (
    BY_COLUMNS,
    IN_TURN,
    LAST_ROWS,
    OPENING,
    OVERLAPPING,
    WINDING,
    shifted,
)

MOST_SHIFTED_STEPS: Final = 4
"""Steps of a chunk by which rows can be shifted: each is written out."""


def tile_order_problems(kernel: Kernel, contraction: Contraction, tiling: Tiling, row_slots: int) -> Iterator[str]:
    """What is wrong with the order of tiles; a row of a takes `row_slots`."""
    order = tiling.order
    if order == OVERLAPPING:
        yield from _overlap_problems(kernel, tiling)
    elif order in (BY_COLUMNS, WINDING):
        yield from _column_problems(kernel, tiling, row_slots)
        if order == WINDING:
            yield from _winding_problems(kernel, contraction, tiling)
    elif order == OPENING:
        yield from _opening_problems(kernel, contraction, tiling)
    elif order.shifted > 0 and order == shifted(order.shifted):
        yield from _shift_problems(kernel, contraction, tiling)
    elif order != IN_TURN:
        names = ", ".join(known.name for known in (IN_TURN, OVERLAPPING, BY_COLUMNS, WINDING, OPENING))
        yield f"takes its tiles in the order {order.name} by {order.shifted}, must be {names}, or shifted by 1 or more"


def _overlap_problems(kernel: Kernel, tiling: Tiling) -> Iterator[str]:
    """One program finishes rows of tiles while it takes the sums of others, all of whose operands are loaded before."""
    if tiling.programs != 1 or tiling.hoist or tiling.stream or not begins_early(kernel, tiling):
        yield "overlaps rows: one program takes them, whole and with a resident depth, neither hoisted nor streamed"
        return
    after = epilogue(kernel, by_block=True)
    if not can_overlap(after.phases, after.slots) or not overlapped_dimension(kernel, tiling):
        yield "overlaps rows, but has one row, or an epilogue other than sums reduced and powers summed"


def _column_problems(kernel: Kernel, tiling: Tiling, row_slots: int) -> Iterator[str]:
    """Before the last rows of a block others go, and all tiles of these last rows are there together."""
    has_slots = tiling.a_slots >= LAST_ROWS * row_slots
    is_row = _streams_columns(tiling) and len(_chunked(kernel, tiling)) <= 1
    if not is_row or not has_slots or tiling.rows <= LAST_ROWS:
        yield (
            f"its last {LAST_ROWS} rows go column by column, which takes more rows of several columns, streamed and"
            " finished tile by tile by a program each, slots for these rows, and one loop over chunks at most"
        )


def _winding_problems(kernel: Kernel, contraction: Contraction, tiling: Tiling) -> Iterator[str]:
    """All rows of an SPC are one block, of whose first rows and last ones none are the same."""
    spread = spreads(kernel, tiling)
    rows = math.prod(spread[d.name].share for d in kernel.par_dims if d.name != contraction.column)
    is_whole = not _chunked(kernel, tiling) and not tiling.hoist and rows == tiling.rows
    if not is_whole or tiling.rows <= 2 * LAST_ROWS:
        yield (
            f"winds past its columns, which takes more than {2 * LAST_ROWS} rows in one block, a resident depth, and"
            " neither operand hoisted"
        )


def _opening_problems(kernel: Kernel, contraction: Contraction, tiling: Tiling) -> Iterator[str]:
    """Rows stay while columns go past them one by one; the first columns are there together."""
    spread, steps = spreads(kernel, tiling)[contraction.column], depth_steps(kernel, tiling)
    is_past_rows = tiling.hoist == "a" and (tiling.columns, tiling.turns) == (1, TILE)
    programs_take_rows = tiling.programs == tiling.rows > 1
    has_columns = spread.share // tiling.deals >= tiling.rows and tiling.b_slots >= tiling.rows * steps
    if not (is_past_rows and programs_take_rows and has_columns) or tiling.taps or tiling.eager:
        yield (
            "opens with columns row by row, which takes several rows that stay, each finished by a program by tiles,"
            " at least as many columns that go past them one by one, with slots for these"
        )


def _shift_problems(kernel: Kernel, contraction: Contraction, tiling: Tiling) -> Iterator[str]:
    """Rows whose chunks of the depth are apart need chunks that follow one another, and rows that are not apart."""
    chunked, tile = _chunked(kernel, tiling), kernel.tile_extents(tiling.tile)
    is_other = tiling.eager or bool(tiling.taps)
    if not _streams_columns(tiling) or is_other or tiling.resident != 1 or len(chunked) != 1:
        yield (
            "shifts rows, which takes several columns of streamed rows, finished tile by tile by a program each, and a"
            " loop over chunks"
        )
        return
    (outer,), inner = chunked, kernel.red_dims[-1]
    steps = -(-inner.extent // tile[inner.name])
    terms = [dict(index.terms) for access in contraction.operands for index in access.index]
    follows = all(t.get(outer.name, 0) == t.get(inner.name, 0) * inner.extent for t in terms)
    if not follows or tile[outer.name] > 1 or inner.extent % tile[inner.name]:
        yield f"shifts rows, but chunks of {inner.name} do not follow one another along {outer.name}"
    if not 1 < steps <= MOST_SHIFTED_STEPS or tiling.rows <= tiling.order.shifted * (steps - 1):
        yield (
            f"shifts {tiling.order.shifted} of {tiling.rows} rows by each of {steps} steps of a chunk, there must be"
            f" other rows, and 2 to {MOST_SHIFTED_STEPS} steps"
        )


def _streams_columns(tiling: Tiling) -> bool:
    """Whether rows of several columns are streamed, and a program each finishes the tiles of a column."""
    return tiling.stream and tiling.columns > 1 and tiling.turns == TILE and tiling.programs > 1


def _chunked(kernel: Kernel, tiling: Tiling) -> list[Dimension]:
    """The depth loops that go from one chunk to the next."""
    tile = kernel.tile_extents(tiling.tile)
    return [d for d in kernel.red_dims[: len(kernel.red_dims) - tiling.resident] if d.extent > tile[d.name]]
