"""Tilings whose rows go through the depth there and back: the columns that they go past are too deep to stay whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from birc.compiler.ir.plan import Tiling
from birc.compiler.ir.plan_verify_tiling import tiling_problems
from birc.compiler.passes.contraction_cost import Shape


def through_depth(shape: Shape, spcs: tuple[tuple[str, int], ...]) -> Iterator[Tiling]:
    """The tiling by which each SPC goes through the depth of its only column, if that is a little too deep."""
    machine, steps = shape.machine, math.prod(shape.steps)
    a_bytes, b_bytes = shape.slot_bytes
    a_slots, b_slots = machine.gib_a_bytes // a_bytes, machine.gib_b_bytes // b_bytes
    if shape.share(shape.column, dict(spcs)) > 1 or not b_slots < steps <= 2 * b_slots:
        return
    # More slots of a than for a row would fill them while the T-core waits for the end of the first one's columns.
    a_slots = min(a_slots, steps // shape.windows + 1)
    tile, resident = tuple(shape.tile.items()), len(shape.steps)
    tiling = Tiling(
        tile, spcs, resident=resident, hoist="b", stream=True, a_slots=a_slots, b_slots=b_slots, taps=shape.taps
    )
    if not any(True for _ in tiling_problems(replace(shape.kernel, tiling=tiling), machine)):
        yield tiling
