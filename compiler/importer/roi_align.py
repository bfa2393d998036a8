"""Lowering of RoiAlign: means or maxima of bilinear samples in the cells of regions that the data names.

Source of the formulas: ONNX operator reference, RoiAlign, and its reference implementation. With a fixed number of
samples their neighbours are gathered. Where the number follows the size of the region there is no bound to it; but
all samples lie less than 1 and more than 1/2 apart, so that few of them concern any one pixel: a mean is a product
with the weights of the pixels, along one axis after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import LARGEST_HELPER_ELEMENTS, require_helpers
from birc.compiler.importer.floats import in_f32
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.term import Term, as_term, where
from birc.runtime.errors import BadModelError

_SAMPLES_OF_PIXEL: Final = 6
"""Samples more than 1/2 apart in an interval of length 2, and one for the rounding of its begin."""


@dataclass(frozen=True, slots=True)
class _Side:
    """One axis of the regions: `size` pixels of the image, `cells` of the result.

    `start` is where a region begins and `cell` how long its cells are, in pixels, FP32[regions]. `count` is how many
    samples a cell has: a number, or FP32[regions] when it follows the size of the region.
    """

    size: int
    cells: int
    start: Term
    cell: Term
    count: Term | int

    @property
    def spacing(self) -> Term:
        """The distance of samples; 1 where there are none."""
        if isinstance(self.count, int):
            return self.cell / float(self.count)
        counted = self.count.at_least(1.0)
        return as_term(self.cell.build, where(self.count > 0.0, self.cell / counted, 1.0))

    def cell_starts(self) -> Term:
        """FP32[regions, cells]"""
        numbers = np.arange(self.cells, dtype=np.float32)
        return _column(self.start) + _column(self.cell) * numbers


def _column(x: Term) -> Term:
    return x.reshape(*x.shape, 1)


def _roi_align(default_shift: str) -> Lower:
    """`default_shift`: the coordinate mode where none is given."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        x, regions, pictures = node.input(0), node.input(1), node.input(2)
        shape, kind = build.shape(x), build.type_of(x).dtype
        count = build.shape(regions)[0]
        if len(shape) != 4 or build.shape(regions) != (count, 4) or build.shape(pictures) != (count,):
            given = f"{list(build.shape(regions))} and pictures {list(build.shape(pictures))}"
            raise BadModelError(f"regions {given} for {list(shape)}", where=node.where)
        mode, shift = node.string_attribute("mode", "avg"), _shift(node, default_shift)
        if mode not in ("avg", "max"):
            raise BadModelError(f"RoiAlign knows no mode {mode!r}", where=node.where, hint="avg or max")
        data = Term(build, in_f32(build, x))
        corners = Term(build, in_f32(build, regions))
        scaled = corners * node.float_attribute("spatial_scale", 1.0) - shift
        samples = node.int_attribute("sampling_ratio", 0)
        across, down = (
            _side(scaled, place, shape[3 - place], node.int_attribute(name, 1), samples, shift == 0.0)
            for place, name in enumerate(("output_width", "output_height"))
        )
        picture = Term(build, pictures).to("i32")
        result = _pooled(data, picture, down, across, mode == "max")
        return cast(build, result.name, kind)

    return lower


def _shift(node: OnnxNode, default: str) -> float:
    given = node.string_attribute("coordinate_transformation_mode", default)
    if given not in ("half_pixel", "output_half_pixel"):
        raise BadModelError(f"RoiAlign knows no coordinate_transformation_mode {given!r}", where=node.where)
    return 0.5 if given == "half_pixel" else 0.0


def _side(corners: Term, place: int, size: int, cells: int, samples: int, is_forced: bool) -> _Side:
    """`is_forced`: regions shorter than a pixel count as one pixel long."""
    start, end = corners.at(1, place), corners.at(1, place + 2)
    extent = end - start
    if is_forced:
        extent = extent.at_least(1.0)
    cell = extent / float(cells)
    return _Side(size, cells, start, cell, samples if samples > 0 else cell.row("ceil").at_least(0.0))


def _pooled(x: Term, picture: Term, down: _Side, across: _Side, is_maximum: bool) -> Term:
    regions, channels = picture.shape[0], x.shape[1]
    rows, columns = _most_samples(down), _most_samples(across)
    gathered = regions * channels * down.cells * across.cells * rows * columns
    if is_maximum:
        require_helpers(gathered, "gathering the samples of all cells")
        return _gathered(x, picture, down, across, True)
    if isinstance(down.count, int) and gathered <= LARGEST_HELPER_ELEMENTS:
        return _gathered(x, picture, down, across, False)
    return _weighted(x, picture, down, across)


def _most_samples(side: _Side) -> int:
    """How many samples of a cell can lie in the image: they are at least 1/2 apart where there are several."""
    return side.count if isinstance(side.count, int) else 2 * (side.size + 1) + 2


@dataclass(frozen=True, slots=True)
class _Samples:
    """The samples of all cells along one side, each [regions, cells * samples]: the pixels below and above, how far
    it is from the one below, and whether the sample is one: within the image, and within the number of them.
    """

    below: Term
    above: Term
    fraction: Term
    is_inside: Term
    is_counted: Term | None


def _samples(side: _Side) -> _Samples:
    regions, count = side.start.shape[0], _most_samples(side)
    starts = _column(side.cell_starts())
    spacing = side.spacing.reshape(regions, 1, 1)
    order: Term | np.ndarray = np.arange(count, dtype=np.float32)
    is_counted = None
    if isinstance(side.count, Term):
        # Samples before the image are skipped, as are those behind it.
        total = side.count.reshape(regions, 1, 1)
        first = ((-1.0 - starts) / spacing - 0.5).row("ceil").at_least(0.0).at_most((total - 1.0).at_least(0.0))
        order = first + order
        is_counted = (order < total).reshape(regions, side.cells * count)
    place = (starts + (order + np.float32(0.5)) * spacing).reshape(regions, side.cells * count)
    is_inside = (place >= -1.0) & (place <= float(side.size))
    held = place.within(0.0, side.size - 1.0)
    below = held.row("floor")
    above = (below + 1.0).at_most(side.size - 1.0)
    return _Samples(below.to("i32"), above.to("i32"), held - below, is_inside, is_counted)


def _gathered(x: Term, picture: Term, down: _Side, across: _Side, is_maximum: bool) -> Term:
    """[regions, channels, cells down, cells across] from the four pixels around each sample."""
    batch, channels, height, width = x.shape
    table = x.transpose(0, 2, 3, 1).reshape(batch * height * width, channels)
    y, z = _samples(down), _samples(across)
    regions, rows, columns = picture.shape[0], y.below.shape[1], z.below.shape[1]
    vertical, horizontal = (regions, rows, 1), (regions, 1, columns)
    offset = picture.reshape(regions, 1, 1) * height
    upper, lower = (((offset + index.reshape(*vertical)) * width) for index in (y.below, y.above))
    left, right = (index.reshape(*horizontal) for index in (z.below, z.above))
    to_lower, to_right = y.fraction.reshape(*vertical, 1), z.fraction.reshape(*horizontal, 1)
    to_upper, to_left = 1.0 - to_lower, 1.0 - to_right
    corners = [
        table.gather(line + column) * (by_line * by_column)
        for line, by_line in ((upper, to_upper), (lower, to_lower))
        for column, by_column in ((left, to_left), (right, to_right))
    ]
    sample = corners[0]
    for other in corners[1:]:
        sample = sample.at_least(other) if is_maximum else sample + other
    inside = (y.is_inside.reshape(*vertical) & z.is_inside.reshape(*horizontal)).reshape(regions, rows, columns, 1)
    sample = as_term(x.build, where(inside, sample, 0.0))
    if y.is_counted is not None and z.is_counted is not None:
        counted = y.is_counted.reshape(*vertical, 1) & z.is_counted.reshape(*horizontal, 1)
        sample = as_term(x.build, where(counted, sample, -np.inf))
    split = (regions, down.cells, rows // down.cells, across.cells, columns // across.cells, channels)
    cells = sample.reshape(*split).reduce("reduce_max" if is_maximum else "reduce_mean", 2, 4)
    if y.is_counted is not None:
        cells = _with_outside(cells, down, across)
    return cells.transpose(0, 3, 1, 2)


def _with_outside(cells: Term, down: _Side, across: _Side) -> Term:
    """Samples outside of the image, which were skipped, are 0; so is a cell without samples."""
    build = cells.build
    vertical, horizontal = _some_outside(down), _some_outside(across)
    regions = vertical.shape[0]
    some = vertical.reshape(regions, down.cells, 1, 1) | horizontal.reshape(regions, 1, across.cells, 1)
    raised = as_term(build, where(some, cells.at_least(0.0), cells))
    return as_term(build, where(raised > -np.inf, raised, 0.0))


def _some_outside(side: _Side) -> Term:
    """Whether the first or the last sample of a cell lies outside of the image: bool[regions, cells]."""
    starts, spacing = side.cell_starts(), _column(side.spacing)
    last = _column(_counted(side)) - 0.5
    return ((starts + spacing * 0.5) < -1.0) | ((starts + spacing * last) > float(side.size))


def _counted(side: _Side) -> Term:
    if isinstance(side.count, int):
        return as_term(side.start.build, np.full(side.start.shape, side.count, np.float32))
    return side.count


def _weighted(x: Term, picture: Term, down: _Side, across: _Side) -> Term:
    """Means by the weights of the pixels: a product over the rows of all images, then one over the columns."""
    build = x.build
    batch, channels, height, width = x.shape
    regions = picture.shape[0]
    rows, columns = _pixel_weights(down), _pixel_weights(across)
    if batch > 1:
        own = picture.reshape(regions, 1, 1, 1).equals(np.arange(batch).reshape(batch, 1))
        rows = as_term(build, where(own, rows.reshape(regions, down.cells, 1, height), 0.0))
    require_helpers(regions * down.cells * batch * height, "weights of all rows of pixels")
    lined = x.transpose(0, 2, 1, 3).reshape(batch * height, channels * width)
    left = rows.reshape(regions * down.cells, batch * height)
    summed = Term(build, build.emit("matmul", (left.name, lined.name)))
    right = columns.transpose(0, 2, 1)
    bands = summed.reshape(regions, down.cells * channels, width)
    made = Term(build, build.emit("matmul", (bands.name, right.name)))
    whole = made.reshape(regions, down.cells, channels, across.cells).transpose(0, 2, 1, 3)
    number = (_counted(down) * _counted(across)).at_least(1.0)
    return whole / number.reshape(regions, 1, 1, 1)


def _pixel_weights(side: _Side) -> Term:
    """What each pixel adds to the sum over the samples of each cell: FP32[regions, cells, pixels]."""
    build, regions, size = side.start.build, side.start.shape[0], side.size
    pixels = np.arange(size, dtype=np.float32)
    starts = side.cell_starts().reshape(regions, side.cells, 1)
    spacing = side.spacing.reshape(regions, 1, 1)
    total: Term | float = float(side.count) if isinstance(side.count, int) else side.count.reshape(regions, 1, 1)
    if isinstance(total, Term):
        first = ((pixels - 1.0 - starts) / spacing - 0.5).row("ceil").at_least(0.0)
        first = first.at_most((total - 1.0).at_least(0.0))
        orders = [first + float(number) for number in range(_SAMPLES_OF_PIXEL)]
    else:
        orders = [as_term(build, np.full((1, 1, 1), number, np.float32)) for number in range(int(total))]
    summed: Term | None = None
    for order in orders:
        place = starts + (order + 0.5) * spacing
        is_sample = (place >= -1.0) & (place <= float(size)) & (order < total)
        distance = (place.within(0.0, size - 1.0) - pixels).row("abs")
        share = as_term(build, where(is_sample, (1.0 - distance).at_least(0.0), 0.0))
        summed = share if summed is None else summed + share
    if summed is None:
        raise CannotLower("cells without samples")
    return summed


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("RoiAlign", _roi_align("output_half_pixel"), until=15),
    OpType("RoiAlign", _roi_align("half_pixel"), since=16),
)
