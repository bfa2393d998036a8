"""Convolutions by the T-core's own instruction: the order of their depth loops, and tiles of pixels.

A patch is loaded for all taps at once, so these are the innermost loops. What stays in the input buffers is then a
patch and the weights of all taps for a chunk of channels, which may be shallower than an operation could take.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from birc.compiler.ir.plan import Contraction, Kernel
from birc.compiler.ir.plan_patch import Patch
from birc.compiler.passes.restrict import even_part
from birc.runtime.machine import Machine

LEAST_DEPTH_UNITS = 2
"""The least depth of an operation in the hardware's units: shallower ones take as long to post as to multiply."""


def taps_innermost(kernel: Kernel, taps: tuple[str, ...]) -> Kernel:
    """The kernel with the reduced dimensions `taps` innermost."""
    outer = tuple(d for d in kernel.space if d.name not in taps)
    return replace(kernel, space=(*outer, *(d for d in kernel.space if d.name in taps)))


def window_tiles(kernel: Kernel, patch: Patch, contraction: Contraction, machine: Machine) -> Iterator[dict[str, int]]:
    """Extents of tiles: squares of pixels, whole columns, and the depths that a chunk of channels may have."""
    format = machine.format(contraction.format)
    tile = {d.name: 1 for d in kernel.space}
    for side in patch.sides:
        if side.pixel:
            tile[side.pixel] = even_part(kernel.dimension(side.pixel).extent, machine.conv_tile_side)
    column = kernel.dimension(contraction.column_dims[0])
    tile[column.name] = even_part(column.extent, machine.tcore_cols)
    channels = [d for d in kernel.red_dims if d.name not in patch.taps]
    if not channels:
        yield tile
        return
    deepest, depth, known = channels[-1], format.k_max, set()
    while depth >= min(format.k_max, LEAST_DEPTH_UNITS * format.k_unit):
        even = even_part(deepest.extent, depth)
        extent = min(deepest.extent, -(-even // format.k_unit) * format.k_unit)
        if extent not in known:
            known.add(extent)
            yield {**tile, deepest.name: extent}
        depth //= 2
