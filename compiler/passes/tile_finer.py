"""Products in operations of less depth than the T-core takes at once.

The first operation begins when less has been loaded, and less is left to do when the last operand has come: what counts
where an SPC has only a few operations. Where it has many, a slot is free the earlier for the next tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from birc.compiler.ir.plan import Kernel
from birc.compiler.ir.plan_verify_tiling import tiling_problems
from birc.compiler.passes.tile_contraction import TiledDepth
from birc.runtime.machine import Machine

PARTS: Final = (2, 4)
"""In how many operations one is cut."""
PARTS_OF_LONG: Final = (2,)
"""The same for long kernels: the more operations, the longer it takes to time them."""
LONG_CYCLES: Final = 4000
"""Of kernels that take longer the start and the end are little."""


def finer(kernel: Kernel, chosen: TiledDepth, least: int, machine: Machine) -> Iterator[TiledDepth]:
    """The ways to cut the operations of a tiling that takes `least` cycles; each has its slots in as many parts."""
    tiling, tiled = chosen.tiling, chosen.of(kernel)
    contraction = tiled.contraction
    if contraction is None:
        return
    depth = [d.name for d in tiled.red_dims]
    deepest = [name for name in depth if name not in tiling.taps][-1]
    resident = tiling.resident
    if dict(tiling.tile)[deepest] >= tiled.dimension(deepest).extent:  # The operands of all parts are there at once.
        resident = max(resident, len(depth) - depth.index(deepest))
    unit = machine.format(contraction.format).k_unit
    for parts in PARTS_OF_LONG if least > LONG_CYCLES else PARTS:
        tile = dict(tiling.tile)
        if tile[deepest] % (parts * unit):
            return
        tile[deepest] //= parts
        a_slots, b_slots = parts * tiling.a_slots, parts * tiling.b_slots
        cut = replace(tiling, tile=tuple(tile.items()), resident=resident, a_slots=a_slots, b_slots=b_slots)
        other = replace(chosen, tiling=cut)
        if not any(True for _ in tiling_problems(other.of(kernel), machine)):
            yield other
