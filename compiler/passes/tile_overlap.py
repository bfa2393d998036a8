"""Tilings in which a vector program finishes a row of tiles while it takes the sums of the next.

They are for rows that leave registers for one program only: otherwise it and the T-core would work by turns.
"""

from __future__ import annotations

from dataclasses import replace

from birc.compiler.ir.plan import BLOCK, Kernel, Tiling
from birc.compiler.ir.registers import epilogue_of
from birc.compiler.ir.row_overlap import can_overlap, overlapped_dimension
from birc.compiler.ir.tile_order import OVERLAPPING
from birc.runtime.machine import Machine


def overlapped(kernel: Kernel, tiling: Tiling, machine: Machine) -> Tiling | None:
    """A tiling whose depth is resident, with rows that overlap; None where they cannot."""
    if tiling.stream or tiling.hoist or tiling.rows > 1 or tiling.columns == 1:
        return None
    changed = replace(tiling, programs=1, turns=BLOCK, order=OVERLAPPING)
    after = epilogue_of(kernel, changed, machine.vector_registers)
    if not can_overlap(after.phases, after.slots) or after.count(tiling.columns) > machine.vector_registers:
        return None
    return changed if overlapped_dimension(kernel, changed) else None
