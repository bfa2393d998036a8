"""Tilings of a product that differ in the order of its tiles, where another one than row after row may be faster."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from birc.compiler.ir.plan import BLOCK, TILE, Kernel, Tiling
from birc.compiler.ir.registers import epilogue_of
from birc.compiler.ir.row_overlap import can_overlap, overlapped_dimension
from birc.compiler.ir.tile_order import BY_COLUMNS, LAST_ROWS, OVERLAPPING, WINDING
from birc.compiler.passes.contraction_cost import Shape
from birc.runtime.machine import Machine


def in_other_orders(shape: Shape, tiling: Tiling, blocks: int) -> Iterator[Tiling]:
    """A tiling by which an SPC has so many `blocks`, with its tiles in the other orders that do not shift rows."""
    chunked = [count for count in shape.steps[: len(shape.steps) - tiling.resident] if count > 1]
    if not chunked and (other := overlapped(shape.kernel, tiling, shape.machine)):
        yield other
    if blocks * math.prod(chunked) > 1 and len(chunked) <= 1 and _may_end_by_columns(shape, tiling):
        yield replace(tiling, order=BY_COLUMNS)
        if not chunked and _may_wind(shape, tiling):
            yield replace(tiling, order=WINDING)


def overlapped(kernel: Kernel, tiling: Tiling, machine: Machine) -> Tiling | None:
    """A tiling whose depth is resident, with rows that overlap; None where they cannot.

    It is for rows that leave registers for one program only: otherwise it and the T-core would work by turns.
    """
    if len(kernel.phases) == 1 or tiling.stream or tiling.hoist or tiling.rows > 1 or tiling.columns == 1:
        return None
    changed = replace(tiling, programs=1, turns=BLOCK, order=OVERLAPPING)
    after = epilogue_of(kernel, changed, machine.vector_registers)
    if not can_overlap(after.phases, after.slots) or after.count(tiling.columns) > machine.vector_registers:
        return None
    return changed if overlapped_dimension(kernel, changed) else None


def _may_end_by_columns(shape: Shape, tiling: Tiling) -> bool:
    """Whether the last rows of a block may go column by column, and are few of them."""
    is_row = tiling.stream and tiling.columns > 1 and tiling.turns == TILE
    row_slots = math.prod(shape.steps[len(shape.steps) - tiling.resident :]) // shape.windows
    return is_row and tiling.a_slots >= LAST_ROWS * row_slots and tiling.rows > LAST_ROWS + 1


def _may_wind(shape: Shape, tiling: Tiling) -> bool:
    """Whether the only block of rows goes past several blocks of columns, there and back."""
    spcs = dict(tiling.spcs)
    shares = [shape.share(d, spcs) for d in shape.kernel.par_dims]
    columns = shape.share(shape.column, spcs)
    is_only = math.prod(shares) == tiling.rows * columns and columns > tiling.columns
    return is_only and not tiling.hoist and tiling.rows > 2 * LAST_ROWS
