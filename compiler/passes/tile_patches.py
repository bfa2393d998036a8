"""Convolutions by the T-core's own instruction: the order of their depth loops, and tiles of pixels.

A patch is loaded for all taps at once, so these are the innermost loops. What stays in the input buffers is then a
patch and the weights of all taps for a chunk of channels, which may be shallower than an operation could take.

A window has 8 x 8 pixels at most, and the squares of an image of 28 x 28 are four by four with 7 x 7 each. With samples
beside them there is more to choose from: a window may as well have a line of 7 pixels of 8 samples. Taps move it along
the line, and for those across it other lines are loaded. A window may also have 16 samples of 4 pixels, or 32 of 2,
when these lie side by side: what the machine takes for two rows of a patch is then one pixel of all samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from birc.compiler.ir.plan import OWN_DIMENSIONS, Access, Contraction, Kernel
from birc.compiler.ir.plan_access import with_statements
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


@dataclass(frozen=True, slots=True)
class Lines:
    """Windows of lines: the taps that move them, the order of the row dimensions, and what tiles have of these."""

    taps: tuple[str, ...]
    rows: tuple[str, ...]
    tile: Mapping[str, int]

    def of(self, kernel: Kernel) -> Kernel:
        """The kernel with its dimensions in the order for these windows."""
        return taps_innermost(with_rows(kernel, self.rows), self.taps)


def lines(kernel: Kernel, contraction: Contraction, patch: Patch, machine: Machine) -> list[Lines]:
    """The best windows of lines, and the best of those that have a pixel of many samples as several rows.

    They are given where there are fewer of them than of the squares of `patch`, and of those before.
    """
    rows = contraction.row_dims
    least = _windows(kernel, rows, square(kernel, patch, machine))
    images = [patch_of(kernel, (tap,)) for tap in patch.taps if len(patch.taps) > 1]
    plain = [Lines(image.taps, rows, square(kernel, image, machine)) for image in images if image is not None]
    folded = [one for image in images if image is not None for one in _folded(kernel, contraction, image, machine)]
    found = []
    for kind in (plain, folded):
        best = min(kind, key=lambda one: _windows(kernel, rows, one.tile), default=None)
        if best is not None and (windows := _windows(kernel, rows, best.tile)) < least:
            least = windows
            found.append(best)
    return found


def _folded(kernel: Kernel, contraction: Contraction, image: Patch, machine: Machine) -> Iterator[Lines]:
    """Windows with as many pixels of a line as there is room for when each has two, four or eight rows of samples."""
    samples, line = (side.pixel for side in image.sides)
    is_line = bool(samples and line and image.columns.tap) and not image.rows.tap
    if not is_line or samples in OWN_DIMENSIONS or not _can_be_ordered(kernel, contraction):
        return
    others = (name for name in contraction.row_dims if name not in (samples, line))
    order = (*others, line, samples)
    side, last = machine.conv_tile_side, image.columns.patch({}, {d.name: d.extent for d in kernel.red_dims}) - 1
    fold = 2
    while fold <= side and fold * last <= machine.conv_reach:
        if kernel.dimension(samples).extent % (side * fold) == 0:
            yield Lines(image.taps, order, _tile(kernel, {line: side // fold, samples: side * fold}))
        fold *= 2


def _tile(kernel: Kernel, most: Mapping[str, int]) -> dict[str, int]:
    """Even parts of dimensions."""
    return {name: even_part(kernel.dimension(name).extent, limit) for name, limit in most.items()}


def _windows(kernel: Kernel, rows: Sequence[str], tile: Mapping[str, int]) -> int:
    """How many windows all rows take."""
    return math.prod(-(-kernel.dimension(name).extent // tile.get(name, 1)) for name in rows)


def _can_be_ordered(kernel: Kernel, contraction: Contraction) -> bool:
    """Whether the rows have the order of the axes of `a` and of registers, an axis each, and no load is indexed."""
    rows = contraction.row_dims
    axes = [name for index in contraction.a.index[: contraction.rows] for name, _ in index.terms if name in rows]
    registers = [d.name for d in kernel.par_dims if d.name in rows]
    indexed = any(s.op == "vldx" for phase in kernel.phases for s in phase.statements)
    return list(rows) == axes == registers and not indexed


def with_rows(kernel: Kernel, rows: tuple[str, ...]) -> Kernel:
    """The kernel with its row dimensions in another order, and with them the axes of `a` and of registers."""
    contraction = kernel.contraction
    if contraction is None or rows == contraction.row_dims:
        return kernel
    leading = contraction.a.index[: contraction.rows]
    axes = _order([next((name for name, _ in index.terms if name in rows), "") for index in leading], rows)
    order = _order([d.name for d in kernel.par_dims], rows)
    a = _with_axes(contraction.a, [*axes, *range(contraction.rows, len(contraction.a.index))])
    kernel = with_statements(kernel, lambda access: _with_axes(access, order))
    space = (*(kernel.par_dims[place] for place in order), *kernel.red_dims)
    return replace(kernel, space=space, contraction=replace(contraction, a=a, row_dims=rows))


def _order(names: Sequence[str], rows: Sequence[str]) -> list[int]:
    """For each place the one that comes there: those of `rows` take their places in that order, others stay."""
    coming = iter(rows)
    return [names.index(next(coming)) if name in rows else place for place, name in enumerate(names)]


def _with_axes(access: Access, order: Sequence[int]) -> Access:
    """The access with its axes in another order."""
    view = access.view
    dims, strides, lower = (tuple(of[i] for i in order) if of else () for of in (view.dims, view.strides, view.lower))
    view = replace(view, dims=dims, strides=strides, lower=lower)
    return replace(access, view=view, index=tuple(access.index[i] for i in order))


def square(kernel: Kernel, patch: Patch, machine: Machine) -> dict[str, int]:
    """What a tile has of the pixels of an image."""
    return _tile(kernel, {side.pixel: machine.conv_tile_side for side in patch.sides if side.pixel})


def window_tiles(
    kernel: Kernel, pixels: Mapping[str, int], contraction: Contraction, machine: Machine
) -> Iterator[dict[str, int]]:
    """Extents of tiles of some pixels: whole columns, and the depths that a chunk of channels may have."""
    format = machine.format(contraction.format)
    tile = {d.name: 1 for d in kernel.space} | dict(pixels)
    column = kernel.dimension(contraction.column)
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
