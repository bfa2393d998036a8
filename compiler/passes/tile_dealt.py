"""Products of which the other die needs some columns: dealt out several times, every SPC has such columns early.

What an SPC sends passes the link at its share of the rate. Where all that one sends are its last columns, the link is
still at work when the T-cores are through.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from birc.compiler.ir.plan import Kernel
from birc.compiler.ir.plan_access import accesses_of
from birc.compiler.ir.plan_spread import spreads
from birc.compiler.ir.plan_verify_tiling import tiling_problems
from birc.compiler.passes.tile_contraction import TiledDepth
from birc.runtime.machine import Machine


def dealt(kernel: Kernel, tilings: Sequence[TiledDepth], machine: Machine) -> Iterator[TiledDepth]:
    """The ways to deal out the columns of tilings several times, where some of them are stored to the other die."""
    if kernel.contraction is None or not sends_some_columns(kernel, kernel.contraction.column):
        return
    for tiled in tilings:
        spread = spreads(tiled.of(kernel), tiled.tiling)[kernel.contraction.column]
        blocks = spread.share // tiled.tiling.columns
        for deals in (count for count in range(2, blocks + 1) if spread.spcs > 1 and blocks % count == 0):
            other = replace(tiled, tiling=replace(tiled.tiling, deals=deals))
            if not any(True for _ in tiling_problems(other.of(kernel), machine)):
                yield other


def sends_some_columns(kernel: Kernel, column: str) -> bool:
    """Whether a store to the other die has a part of what it moves to along the columns."""
    sent = [access for op, access in accesses_of(kernel) if op == "vst" and access.view.away]
    axes = [axis for access in sent for axis in zip(access.index, access.view.dims, strict=True)]
    return any(column in dict(index.terms) and size < kernel.dimension(column).extent for index, size in axes)
