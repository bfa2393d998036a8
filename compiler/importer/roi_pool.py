"""Lowering of MaxRoiPool: the largest element of each cell of regions that the data names.

The bounds of cells are computed in whole numbers, the maxima taken along one dimension after the other.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.counting import require_helpers
from birc.compiler.importer.floats import in_f32
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.term import Term, as_term, where
from birc.runtime.errors import BadModelError


def _max_roi_pool(node: OnnxNode, build: GraphBuilder) -> Results:
    """Regions are (picture, x1, y1, x2, y2), both corners within; an empty cell gives 0."""
    x, regions = Term(build, node.input(0)), Term(build, in_f32(build, node.input(1)))
    shape, (count, columns) = x.shape, regions.shape
    cells = node.ints_attribute("pooled_shape")
    if len(shape) != 4 or columns != 5 or len(cells) != 2 or min(cells) < 1:
        raise BadModelError(f"{list(cells)} cells of {columns} numbers a region in {list(shape)}", where=node.where)
    _, channels, height, width = shape
    require_helpers(count * channels * height * width, "the picture of each region")
    seen = x.gather(regions.at(1, 0).to("i32"))
    corners = _rounded(regions * node.float_attribute("spatial_scale", 1.0))
    across, no_columns = _cells(corners, 1, cells[1], width)
    down, no_rows = _cells(corners, 2, cells[0], height)
    rows = seen.reshape(count, channels, height, 1, width)
    rows = _chosen(across.reshape(count, 1, 1, cells[1], width), rows, -math.inf).reduce("reduce_max", 4)
    rows = rows.reshape(count, channels, 1, height, cells[1])
    result = _chosen(down.reshape(count, 1, cells[0], height, 1), rows, -math.inf).reduce("reduce_max", 3)
    empty = no_rows.reshape(count, 1, cells[0], 1) | no_columns.reshape(count, 1, 1, cells[1])
    return as_term(build, where(empty, 0.0, result)).name


def _chosen(condition: Term, x: Term, other: float) -> Term:
    return as_term(x.build, where(condition, x, other))


def _rounded(x: Term) -> Term:
    """The nearest whole number, ties away from zero."""
    return x.row("sign") * (x.row("abs") + 0.5).row("floor")


def _cells(corners: Term, place: int, cells: int, size: int) -> tuple[Term, Term]:
    """Which of `size` elements lie in each cell (regions, cells, size), and which cells are empty (regions, cells).

    A region of at least one element is cut at the whole numbers below, for the end above, equal parts.
    """
    first, last = corners.part(1, place, place + 1), corners.part(1, place + 2, place + 3)
    extent = (last - first + 1.0).at_least(1.0)
    numbers = np.arange(cells, dtype=np.float32)
    starts, ends = (
        (_whole_part(bound, cells) + first).within(0.0, size)
        for bound in (extent * numbers, extent * (numbers + 1) + (cells - 1.0))
    )
    shape = (*starts.shape, 1)
    places = np.arange(size, dtype=np.float32)
    return (starts.reshape(*shape) <= places) & (ends.reshape(*shape) > places), ends <= starts


def _whole_part(x: Term, divisor: int) -> Term:
    """floor(x / divisor) of whole numbers: the quotient, which is rounded, is put right by its remainder."""
    quotient = (x / float(divisor)).row("floor")
    rest = x - quotient * float(divisor)
    return quotient - (rest < 0.0).to("f32") + (rest >= float(divisor)).to("f32")


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("MaxRoiPool", _max_roi_pool),)
