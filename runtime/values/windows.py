"""Windows of a patch: the part of a loaded A tile that one tap of a convolution multiplies.

In whole arrays a window is the patch's access with the pixel of the patch replaced by tap + pixel of the window, which
is what a load of the window alone would be: the product is the implicit matrix product of the convolution.
"""

from __future__ import annotations

from birc.runtime.program import Affine, Window
from birc.runtime.values.form import Access, Coordinate, Tile, substitute
from birc.runtime.values.index_space import CannotRaiseError
from birc.runtime.values.trace import Trace


def windowed(trace: Trace, tile: Tile, window: Window) -> tuple[Tile, tuple[int, ...]]:
    """The tile of a window, and the indices of loops that move it.

    Raises `CannotRaiseError` where the rows of the tile are not rows and columns of pixels as the window has them.
    """
    window = _unfolded(trace, tile, window)
    row, column = _pixel_axes(trace, tile, window)
    top, left = substitute(window.top, trace.variables), substitute(window.left, trace.variables)
    height = 1 if row is None else trace.space.extent(row)
    _check_inside(trace, top, window.rows, height)
    _check_inside(trace, left, window.columns, window.pitch)
    moved: dict[int, tuple[Coordinate, int | None]] = {}
    width = []
    for axis, start, extent in ((row, top, window.rows), (column, left, window.columns)):
        pixel = trace.space.new(extent) if extent > 1 else None
        if pixel is not None:
            width.append(pixel)
        if axis is not None:
            moved[axis] = start, pixel
    access = Access(tile.access.slot, tuple(_moved(c, moved) for c in tile.access.coordinates), tile.access.fill)
    loops = {index for start in (top, left) for index, _ in start.terms}
    around = tuple(index for index in trace.loops if index in loops)
    return Tile((*tile.loops, *around), access, tuple(width), tile.depth, tile.format, tile.time), around


def _unfolded(trace: Trace, tile: Tile, window: Window) -> Window:
    """The window in whole rows of the tile, where each of them counts as several rows of the patch."""
    pitch = trace.space.extent(tile.width[-1]) if tile.width else 1
    fold = pitch // window.pitch
    multiples = (window.rows, window.top.constant, *(factor for _, factor in window.top.terms))
    whole = window.left == Affine() and window.columns == window.pitch
    if fold <= 1 or pitch % window.pitch or not whole or any(number % fold for number in multiples):
        return window
    top = Affine(window.top.constant // fold, tuple((depth, factor // fold) for depth, factor in window.top.terms))
    return Window(top, window.left, window.rows // fold, pitch, pitch)


def _pixel_axes(trace: Trace, tile: Tile, window: Window) -> tuple[int | None, int | None]:
    """The axes of a patch's rows and columns; None where there is but one."""
    extents = [trace.space.extent(axis) for axis in tile.width]
    columns = 1 if window.pitch > 1 else 0
    if extents[len(extents) - columns :] != [window.pitch] * columns or len(extents) > 1 + columns:
        raise CannotRaiseError(f"windows of a tile of {extents} pixels with {window.pitch} in a row")
    column = tile.width[-1] if columns else None
    row = tile.width[0] if len(extents) > columns else None
    return row, column


def _check_inside(trace: Trace, start: Coordinate, extent: int, limit: int) -> None:
    if trace.lowest(start) < 0 or trace.highest(start) + extent > limit:
        raise CannotRaiseError("a window leaves its patch")


def _moved(coordinate: Coordinate, moved: dict[int, tuple[Coordinate, int | None]]) -> Coordinate:
    """The coordinate with pixels of the patch replaced by those of the window."""
    constant = coordinate.constant
    factors: dict[int, int] = {}
    for index, factor in coordinate.terms:
        if index not in moved:
            factors[index] = factors.get(index, 0) + factor
            continue
        start, pixel = moved[index]
        constant += factor * start.constant
        for other, step in start.terms:
            factors[other] = factors.get(other, 0) + factor * step
        if pixel is not None:
            factors[pixel] = factors.get(pixel, 0) + factor
    return Coordinate(constant, tuple((index, factor) for index, factor in factors.items() if factor))
