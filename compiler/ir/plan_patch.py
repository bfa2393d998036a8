"""The T-core's own convolution: which products take windows of a patch that is loaded once for all taps.

A patch is the part of an image that a tile of outputs needs: the pixels of `a` for all taps at once. The machine moves
a window over it by whole pixels (stride 1) and limits tile, kernel, dilation and border (Tensor Library Reference).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from birc.compiler.ir.plan import OWN_DIMENSIONS, RED, Contraction, Index, Kernel, Tiling
from birc.compiler.ir.plan_verify_kernel import bounds, reach
from birc.runtime.machine import Machine
from birc.runtime.verifier.structure import RING_ALIGNMENT_BYTES


@dataclass(frozen=True, slots=True)
class Side:
    """The rows or the columns of pixels: the axis of `a`, the par dimension that counts them, the tap that moves the
    window.

    Either dimension is "" where there is none; `dilation` are the pixels between two taps.
    """

    axis: int
    pixel: str = ""
    tap: str = ""
    dilation: int = 1

    def window(self, tile: Mapping[str, int]) -> int:
        """Pixels of a tile of outputs."""
        return tile.get(self.pixel, 1)

    def patch(self, tile: Mapping[str, int], extents: Mapping[str, int]) -> int:
        """Pixels that all taps of a tile need."""
        return self.window(tile) + self.dilation * (extents.get(self.tap, 1) - 1)


@dataclass(frozen=True, slots=True)
class Patch:
    """How the rows of `a` are an image: rows of pixels, and the pixels of a row."""

    rows: Side
    columns: Side

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.rows, self.columns

    @property
    def taps(self) -> tuple[str, ...]:
        """The reduced dimensions over which a window moves, outermost first."""
        return tuple(side.tap for side in self.sides if side.tap)

    def fold(self, tile: Mapping[str, int], side: int) -> int:
        """How many rows of the machine's windows, of `side` pixels, a row of pixels takes that taps do not move along.

        Such a row is whole in every window, so its parts are rows as good as others.
        """
        pixels = self.columns.window(tile)
        return pixels // side if not self.columns.tap and pixels % side == 0 and pixels > side else 1

    def pixels(self, tile: Mapping[str, int], extents: Mapping[str, int]) -> int:
        """Pixels of a patch: the rows of its A tile."""
        return math.prod(side.patch(tile, extents) for side in self.sides)


def patch_of(kernel: Kernel, taps: tuple[str, ...] = ()) -> Patch | None:
    """The image that a contraction takes windows of; None when no tap moves one.

    The last two of the row axes of `a` count pixels, others select an image. Of given `taps` these move windows, and an
    axis that others move selects an image, too: another one for each of their steps. A line of pixels and the samples
    are an image then, from which the lines beside it are apart.
    """
    contraction = kernel.contraction
    if contraction is None or contraction.further:
        return None
    reds = {d.name for d in kernel.space if d.kind == RED}
    index = contraction.a.index
    of_images = reds - set(taps) if taps else set()
    axes = [
        axis for axis in range(contraction.rows) if not any(name in of_images for name, _ in index[axis].terms)
    ]  # fmt: skip
    if not taps and any(name in reds for axis in axes[:-2] for name, _ in index[axis].terms):
        return None
    rows, columns = (_side(index, axis, reds, contraction.row_dims) for axis in (-1, -1, *axes)[-2:])
    if rows is None or columns is None:
        return None
    patch = Patch(rows, columns)
    moving = [name for coordinate in index for name, _ in coordinate.terms]
    return patch if patch.taps and all(moving.count(name) == 1 for name in patch.taps) else None


def patch_problems(patch: Patch, kernel: Kernel, contraction: Contraction, machine: Machine) -> Iterator[str]:
    """Why the machine has no instruction for windows of this image."""
    extents = {d.name: d.extent for d in kernel.space}
    access = contraction.a
    for side in patch.sides:
        taps = extents.get(side.tap, 1)
        if taps > machine.conv_kernel_max:
            yield f"{taps} taps along {side.tap}, at most {machine.conv_kernel_max}"
        if not 1 <= side.dilation <= machine.conv_dilation_max:
            yield f"a dilation of {side.dilation} along {side.tap}, 1 to {machine.conv_dilation_max}"
        if side.axis >= 0:
            least, largest = reach(access.index[side.axis], extents)
            low, end = bounds(access.view)[side.axis]
            border = max(low - least, largest + 1 - end)
            if border > machine.conv_pad_max:
                yield f"a border of {border} pixels along {side.pixel or side.tap}, at most {machine.conv_pad_max}"


def window_problems(
    patch: Patch, kernel: Kernel, contraction: Contraction, tile: Mapping[str, int], machine: Machine
) -> Iterator[str]:
    """What is wrong with the tile of a convolution by windows."""
    most = machine.conv_tile_side
    fold = patch.fold(tile, most)
    for side, limit in ((patch.rows, most // fold), (patch.columns, most * fold)):
        if side.window(tile) > limit:
            yield f"a window has {side.window(tile)} pixels along {side.pixel}, at most {limit}"
    pixels = {side.pixel for side in patch.sides}
    for name in contraction.row_dims:
        if name not in pixels and tile[name] > 1:
            yield f"a window spans {tile[name]} of {name}, which counts no pixels of an image"
    reach = patch.rows.dilation * (kernel.dimension(patch.rows.tap).extent - 1) * fold if patch.rows.tap else 0
    if reach > machine.conv_reach:
        yield f"taps along {patch.rows.tap} move a window by {reach} rows, at most {machine.conv_reach}"
    for tap in patch.taps:
        if tile[tap] > 1:
            yield f"an operation takes {tile[tap]} taps along {tap}, must be 1"


def slot_bytes(kernel: Kernel, contraction: Contraction, tiling: Tiling, machine: Machine) -> tuple[int, int]:
    """Bytes of the input buffers that a tile of `a` (or a patch) and a tile of `b` take.

    Tiles take whole rows and columns of the T-core, and depths in the hardware's unit.
    """
    tile = kernel.tile_extents(tiling.tile)
    form = machine.format(contraction.format)
    depth = math.prod(tile[d.name] for d in kernel.red_dims)
    column_bytes = -(-depth // form.k_unit) * form.k_unit * form.bytes
    patch = patch_of(kernel, tiling.taps) if tiling.taps else None
    pixels = patch.pixels(tile, {d.name: d.extent for d in kernel.space}) if patch is not None else 0
    a_bytes = max(machine.tcore_rows, pixels) * column_bytes
    unit = RING_ALIGNMENT_BYTES["load_a"]
    return -(-a_bytes // unit) * unit, machine.tcore_cols * column_bytes


def loaded_pixels(patch: Patch, kernel: Kernel, contraction: Contraction, tile: Mapping[str, int]) -> float:
    """Pixels inside the image that a patch brings, on average."""
    extents = {d.name: d.extent for d in kernel.space}
    loaded = 1.0
    for side in patch.sides:
        if side.axis < 0:
            continue
        low, end = bounds(contraction.a.view)[side.axis]
        step, width = side.window(tile), side.patch(tile, extents)
        start = contraction.a.index[side.axis].constant
        starts = range(start, start + extents.get(side.pixel, 1), step)
        loaded *= sum(max(0, min(end, first + width) - max(low, first)) for first in starts) / len(starts)
    return loaded


def _side(index: tuple[Index, ...], axis: int, reds: set[str], rows: tuple[str, ...]) -> Side | None:
    """What a coordinate counts, when it moves by single pixels, from where those of an SPC begin.

    It is one pixel where there is no such axis, or where the axis selects a product and moves with no row.
    """
    terms = index[axis].terms if axis >= 0 else ()
    pixels = [(name, factor) for name, factor in terms if name not in reds and name not in OWN_DIMENSIONS]
    taps = [(name, factor) for name, factor in terms if name in reds]
    if len(pixels) > 1 or len(taps) > 1 or any(factor != 1 for _, factor in pixels):
        return None
    tap, dilation = taps[0] if taps else ("", 1)
    pixel = pixels[0][0] if pixels and pixels[0][0] in rows else ""
    return Side(axis, pixel, tap, dilation)
