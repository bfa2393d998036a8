"""Convolutions by the T-core's own instruction: the order of their depth loops, and tiles of pixels.

A patch is loaded for all taps at once, so these are the innermost loops. What stays in the input buffers is then a
patch and the weights of all taps for a chunk of channels, which may be shallower than an operation could take.

A window has 8 x 8 pixels at most, and the squares of an image of 28 x 28 are four by four with 7 x 7 each. With samples
beside them there is more to choose from: a window may as well have a line of 7 pixels of 8 samples. Taps move it along
the line, and for those across it other lines are loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from birc.compiler.ir.plan import Contraction, Kernel
from birc.compiler.ir.plan_patch import Patch, patch_of
from birc.compiler.passes.restrict import even_part
from birc.runtime.machine import Machine

LEAST_DEPTH_UNITS = 2
"""The least depth of an operation in the hardware's units: shallower ones take as long to post as to multiply."""


def taps_innermost(kernel: Kernel, taps: tuple[str, ...]) -> Kernel:
    """The kernel with the reduced dimensions `taps` innermost, others that move pixels around them."""
    contraction = kernel.contraction
    moved = contraction.a.index[: contraction.rows] if contraction is not None else ()
    of_pixels = {name for index in moved for name, _ in index.terms}
    reduced = sorted(kernel.red_dims, key=lambda d: (d.name in taps, d.name in of_pixels))
    return replace(kernel, space=(*kernel.par_dims, *reduced))


def line_taps(kernel: Kernel, patch: Patch, machine: Machine) -> tuple[str, ...]:
    """The taps of an image of `patch` that move windows of lines; none where these would not be fewer than squares."""
    squares = _windows(kernel, patch, machine)
    lines = [patch_of(kernel, (tap,)) for tap in patch.taps if len(patch.taps) > 1]
    counted = [(_windows(kernel, line, machine), line.taps) for line in lines if line is not None]
    least, taps = min(counted, key=lambda one: one[0], default=(squares, ()))
    return taps if least < squares else ()


def _windows(kernel: Kernel, patch: Patch, machine: Machine) -> int:
    """How many windows all rows take."""
    contraction = kernel.contraction
    rows = contraction.row_dims if contraction is not None else ()
    pixels = {side.pixel for side in patch.sides}
    sides = {name: machine.conv_tile_side if name in pixels else 1 for name in rows}
    return math.prod(-(-kernel.dimension(name).extent // side) for name, side in sides.items())


def window_tiles(kernel: Kernel, patch: Patch, contraction: Contraction, machine: Machine) -> Iterator[dict[str, int]]:
    """Extents of tiles: squares of pixels, whole columns, and the depths that a chunk of channels may have."""
    format = machine.format(contraction.format)
    tile = {d.name: 1 for d in kernel.space}
    for side in patch.sides:
        if side.pixel:
            tile[side.pixel] = even_part(kernel.dimension(side.pixel).extent, machine.conv_tile_side)
    column = kernel.dimension(contraction.column_dims[0])
    tile[column.name] = even_part(column.extent, machine.tcore_cols)
    of_depth = {name for index in contraction.a.index[contraction.rows :] for name, _ in index.terms}
    channels = [d for d in kernel.red_dims if d.name in of_depth]
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
