"""Products of a deep depth whose rows do not all go from one chunk of it to the next together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from birc.compiler.ir.plan import Kernel
from birc.compiler.ir.plan_verify_tiling import tiling_problems
from birc.compiler.ir.tile_order import shifted
from birc.compiler.passes.tile_contraction import TiledDepth
from birc.runtime.machine import Machine

MOST_SHIFTED = 3
"""Rows of a group: each has one more sum to drain, and of BERT's products two are enough for what comes meanwhile."""


def with_shifted_rows(kernel: Kernel, chosen: TiledDepth, machine: Machine) -> Iterator[TiledDepth]:
    """The ways to shift rows of a product in a tiling of its depth in chunks."""
    for rows in range(1, MOST_SHIFTED + 1):
        tiling = replace(chosen.tiling, order=shifted(rows), eager=False)
        other = replace(chosen, tiling=tiling)
        if not any(True for _ in tiling_problems(other.of(kernel), machine)):
            yield other
