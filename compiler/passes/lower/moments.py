"""Statistics of rows: a kernel leaves those of parts of rows, and whoever reads the rows adds them up."""

from __future__ import annotations

from dataclasses import replace
from functools import partial, reduce

from birc.compiler.ir.attributes import integer, number
from birc.compiler.ir.graph import Node
from birc.compiler.ir.plan import WHOLE, Access, Dimension, View
from birc.compiler.passes.lower.expression import Builder, Expression, Store
from birc.compiler.passes.lower.frame import Frame, unit
from birc.compiler.passes.lower.group import GroupLowering


def with_parts(lowering: GroupLowering, frame: Frame) -> Frame:
    """The frame with the columns as two dimensions, the parts of rows and what is inside, if a node asks for that."""
    axis = len(frame.shape) - 1
    for node in lowering.nodes:
        if node.op == "row_moments" and len(frame.factors[axis]) == 1:
            parts = integer(node.attributes, "parts")
            frame = frame.split(axis, (parts, frame.shape[axis] // parts))
    return frame


def row_moments(lowering: GroupLowering, node: Node) -> Expression:
    """Sums over the parts of rows, and sums of squares about the means of the parts."""
    type = lowering.type_of(node.inputs[0])
    if lowering.contraction is None:
        lowering.frame = with_parts(lowering, Frame.of(type.sizes, type.layout))
    b, x = lowering.builder, lowering.expression(node.inputs[0])
    part, inside = lowering.frame.names_of_axis(type.rank - 1)
    found = []
    if integer(node.attributes, "centred"):
        width = type.sizes[-1] // integer(node.attributes, "parts")
        found.append(lowering.reduce("vredsum", x, (inside,)))
        x = b.op("vsub", x, b.op("vmul", found[0], 1.0 / width))
    found.append(lowering.reduce("vredsum", b.op("vmul", x, x), (inside,)))
    view = _statistics(lowering, node)
    lowering.stores[node.name] = [
        Store(value, _along(lowering.frame, _of(view, which), part)) for which, value in enumerate(found)
    ]
    return found[-1]


def row_statistics(lowering: GroupLowering, node: Node) -> Expression:
    """The inverse deviation of each row, and minus the mean times that, of rows that a kernel has as a whole."""
    b, x, frame = lowering.builder, lowering.expression(node.inputs[0]), lowering.frame
    *rows, count = lowering.type_of(node.inputs[0]).sizes
    along, mean = frame.names_of_axis(len(rows)), None
    if integer(node.attributes, "centred"):
        mean = b.op("vmul", lowering.reduce("vredsum", x, along), 1.0 / count)
        x = b.op("vsub", x, mean)
    variance = lowering.reduce("vredsum", b.op("vmul", x, x), along)
    found = _factors(b, node, variance, mean, count)
    view = _statistics(lowering, node)
    lowering.stores[node.name] = [Store(value, frame.access(_of(view, which))) for which, value in enumerate(found)]
    return found[0]


def scale_by_moments(lowering: GroupLowering, node: Node) -> Expression:
    """x times the inverse deviation of its row, less the mean times that and `columns`, plus the bias.

    The squares of all parts together are those about their own means, and those of these means about the mean of all
    (Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979): nothing
    cancels where the mean is large.
    """
    b, x, count = lowering.builder, lowering.expression(node.inputs[0]), integer(node.attributes, "count")
    moments = lowering.view(node.inputs[1])
    width, pieces = count // moments.dims[-1], pieces_of(moments.dims[-1], lowering.env.tile_columns)
    parts = _seen_as_a_whole(lowering, moments.dims[-1] // pieces)
    squares, mean = _moments(lowering, _of(moments, moments.dims[0] - 1), parts), None
    if moments.dims[0] > 1:
        sums = _moments(lowering, _of(moments, 0), parts)
        mean = b.op("vmul", _added(b, sums, parts), 1.0 / count)
        for place, of_parts in enumerate(sums):
            apart = b.op("vsub", b.op("vmul", of_parts, 1.0 / width), mean)
            squares[place] = b.op("vfma", b.op("vmul", apart, float(width)), apart, squares[place])
    factor, *shift = _factors(b, node, _added(b, squares, parts), mean, count)
    if not shift:
        return b.op("vmul", x, factor)
    columns, *bias = (lowering.operand(name) for name in node.inputs[2:])
    added = b.op("vfma", shift[0], columns, *bias) if bias else b.op("vmul", shift[0], columns)
    return b.op("vfma", x, factor, added)


def pieces_of(parts: int, most: int) -> int:
    """The fewest pieces of one width in which so many parts of a row are loaded, at most so many at a time."""
    return next(pieces for pieces in range(-(-parts // most), parts + 1) if parts % pieces == 0)


def _seen_as_a_whole(lowering: GroupLowering, parts: int) -> Dimension:
    """The dimension of so many parts of a row, which lie along the last axis of registers."""
    dimension = Dimension(f"parts{parts}", parts, WHOLE)
    lowering.whole_dims = tuple(dict.fromkeys((*lowering.whole_dims, dimension)))
    return dimension


def _moments(lowering: GroupLowering, view: View, parts: Dimension) -> list[Expression]:
    """Statistics [*rows, part] of all parts, piece by piece."""
    piece = replace(view, dims=(*view.dims[:-1], parts.extent))
    places = range(0, view.dims[-1], parts.extent)
    views = (replace(piece, offset=view.offset + place * view.strides[-1]) for place in places)
    return [lowering.builder.load(_along(lowering.frame, view, parts.name)) for view in views]


def _added(b: Builder, pieces: list[Expression], parts: Dimension) -> Expression:
    """The sums over all parts."""
    return reduce(partial(b.op, "vadd"), [b.reduce("vredsum", piece, (parts.name,)) for piece in pieces])


def _factors(b: Builder, node: Node, squares: Expression, mean: Expression | None, count: int) -> list[Expression]:
    """The inverse deviation by the sum of so many squares, and minus the mean times that."""
    factor = b.op("vrsqrt", b.op("vfma", squares, 1.0 / count, number(node.attributes, "epsilon")))
    return [factor] if mean is None else [factor, b.op("vmul", b.op("vmul", mean, -1.0), factor)]


def _statistics(lowering: GroupLowering, node: Node) -> View:
    """Where statistics [which, *rows, part] lie: part by part, so that tiles of rows store runs."""
    last = node.output.type.rank - 1
    return lowering.env.target(node.name, node.output.type.with_layout((0, last, *range(1, last))))


def _of(view: View, which: int) -> View:
    """One of several statistics."""
    return replace(view, offset=view.offset + which * view.strides[0], dims=view.dims[1:], strides=view.strides[1:])


def _along(frame: Frame, view: View, part: str) -> Access:
    """The access of a statistic [*rows, part] whose last axis a dimension counts.

    It is one of the columns', or lies as a whole along the last axis of registers.
    """
    of_rows = frame.access(replace(view, dims=(*view.dims[:-1], 1), strides=(*view.strides[:-1], 0)))
    dims, strides, index = list(of_rows.view.dims), list(of_rows.view.strides), list(of_rows.index)
    place = frame.names.index(part) if part in frame.names else len(frame.names) - 1
    dims[place], strides[place], index[place] = view.dims[-1], view.strides[-1], unit(part)
    return Access(replace(of_rows.view, dims=tuple(dims), strides=tuple(strides)), tuple(index))
