"""Lowering of MaxRoiPool: the largest element of each cell of regions that the data names.

The bounds of cells are computed in whole numbers, the maxima taken along one dimension after the other.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import counting, reduced, require_helpers
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.shape import reshape, slice_axis
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError


def _max_roi_pool(node: OnnxNode, build: GraphBuilder) -> Results:
    """Regions are (picture, x1, y1, x2, y2), both corners within; an empty cell gives 0."""
    x, regions = node.input(0), cast(build, node.input(1), dtype("f32"))
    shape, (count, columns) = build.shape(x), build.shape(regions)
    cells = node.ints_attribute("pooled_shape")
    if len(shape) != 4 or columns != 5 or len(cells) != 2 or min(cells) < 1:
        raise BadModelError(f"{list(cells)} cells of {columns} numbers a region in {list(shape)}", where=node.where)
    _, channels, height, width = shape
    require_helpers(count * channels * height * width, "the picture of each region")
    picture = reshape(build, slice_axis(build, regions, 1, 0, 1), (count,))
    seen = build.emit("gather", (x, cast(build, picture, dtype("i32"))), {"axis": 0})
    scaled = build.emit("mul", (regions, build.scalar(node.float_attribute("spatial_scale", 1.0), regions)))
    corners = _rounded(build, scaled)
    across, no_columns = _cells(build, corners, 1, cells[1], width)
    down, no_rows = _cells(build, corners, 2, cells[0], height)
    lowest = build.scalar(-math.inf, x)
    by_columns = reshape(build, across, (count, 1, 1, cells[1], width))
    rows = reshape(build, seen, (count, channels, height, 1, width))
    rows = reduced(build, "reduce_max", build.emit("where", (by_columns, rows, lowest)), 4)
    rows = reshape(build, rows, (count, channels, 1, height, cells[1]))
    by_rows = reshape(build, down, (count, 1, cells[0], height, 1))
    result = reduced(build, "reduce_max", build.emit("where", (by_rows, rows, lowest)), 3)
    empty = build.emit(
        "or", (reshape(build, no_rows, (count, 1, cells[0], 1)), reshape(build, no_columns, (count, 1, 1, cells[1])))
    )
    return build.emit("where", (empty, build.scalar(0, x), result))


def _rounded(build: GraphBuilder, x: str) -> str:
    """The nearest whole number, ties away from zero."""
    near = build.emit("floor", (build.emit("add", (build.emit("abs", (x,)), build.scalar(0.5, x))),))
    return build.emit("mul", (build.emit("sign", (x,)), near))


def _cells(build: GraphBuilder, corners: str, place: int, cells: int, size: int) -> tuple[str, str]:
    """Which of `size` elements lie in each cell (regions, cells, size), and which cells are empty (regions, cells).

    A region of at least one element is cut at the whole numbers below, for the end above, equal parts.
    """
    first = slice_axis(build, corners, 1, place, place + 1)
    last = slice_axis(build, corners, 1, place + 2, place + 3)
    one = build.scalar(1, first)
    extent = build.emit("maximum", (build.emit("add", (build.emit("sub", (last, first)), one)), one))
    numbers = np.arange(cells, dtype=np.float32)
    starts = _whole_part(build, build.emit("mul", (extent, build.constant(numbers))), cells)
    above = build.emit("mul", (extent, build.constant(numbers + 1)))
    ends = _whole_part(build, build.emit("add", (above, build.scalar(cells - 1, above))), cells)
    limits = {"minimum": 0.0, "maximum": float(size)}
    starts, ends = (build.emit("clip", (build.emit("add", (bound, first)),), limits) for bound in (starts, ends))
    empty = build.emit("less_equal", (ends, starts))
    shape = (*build.shape(starts), 1)
    places = counting(build, size, 0, dtype("f32"))
    after = build.emit("less_equal", (reshape(build, starts, shape), places))
    before = build.emit("less", (places, reshape(build, ends, shape)))
    return build.emit("and", (after, before)), empty


def _whole_part(build: GraphBuilder, x: str, divisor: int) -> str:
    """floor(x / divisor) of whole numbers: the quotient, which is rounded, is put right by its remainder."""
    by = build.scalar(divisor, x)
    quotient = build.emit("floor", (build.emit("div", (x, by)),))
    rest = build.emit("sub", (x, build.emit("mul", (quotient, by))))
    zero, one = build.scalar(0, x), build.scalar(1, x)
    less = build.emit("where", (build.emit("less", (rest, zero)), one, zero))
    more = build.emit("where", (build.emit("greater_equal", (rest, by)), one, zero))
    return build.emit("add", (build.emit("sub", (quotient, less)), more))


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("MaxRoiPool", _max_roi_pool),)
