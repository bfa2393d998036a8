"""Statistics of rows in two steps: a kernel leaves those of parts of rows, another one adds them up."""

from __future__ import annotations

from dataclasses import replace

from birc.compiler.ir.attributes import integer, number
from birc.compiler.ir.graph import Node
from birc.compiler.ir.plan import Access, View
from birc.compiler.passes.lower.expression import Expression, Store
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
    return _scales(lowering, node, variance, mean, count)


def row_factors(lowering: GroupLowering, node: Node) -> Expression:
    """The inverse deviation of each row, and minus the mean times that.

    The squares of all parts together are those about their own means, and those of these means about the mean of all
    (Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979): nothing
    cancels where the mean is large.
    """
    b, count, moments = lowering.builder, integer(node.attributes, "count"), lowering.view(node.inputs[0])
    *_, parts = shape = moments.dims[1:]
    rank = len(shape)
    frame = lowering.frame = Frame.of(shape, (rank - 1, *range(rank - 1)))
    along = frame.names_of_axis(rank - 1)
    squares, mean = b.load(frame.access(_of(moments, moments.dims[0] - 1))), None
    if moments.dims[0] > 1:
        sums, width = b.load(frame.access(_of(moments, 0))), count // parts
        mean = b.op("vmul", lowering.reduce("vredsum", sums, along), 1.0 / count)
        apart = b.op("vsub", b.op("vmul", sums, 1.0 / width), mean)
        squares = b.op("vfma", b.op("vmul", apart, float(width)), apart, squares)
    variance = lowering.reduce("vredsum", squares, along)
    return _scales(lowering, node, variance, mean, count)


def _scales(
    lowering: GroupLowering, node: Node, squares: Expression, mean: Expression | None, count: int
) -> Expression:
    """The inverse deviation by the sum of so many squares, and minus the mean times that; both are stored."""
    b = lowering.builder
    factor = b.op("vrsqrt", b.op("vfma", squares, 1.0 / count, number(node.attributes, "epsilon")))
    found = [factor] if mean is None else [factor, b.op("vmul", b.op("vmul", mean, -1.0), factor)]
    view, frame = _statistics(lowering, node), lowering.frame
    lowering.stores[node.name] = [Store(value, frame.access(_of(view, which))) for which, value in enumerate(found)]
    return factor


def _statistics(lowering: GroupLowering, node: Node) -> View:
    """Where statistics [which, *rows, part] lie: part by part, so that tiles of rows store runs."""
    last = node.output.type.rank - 1
    return lowering.env.target(node.name, node.output.type.with_layout((0, last, *range(1, last))))


def _of(view: View, which: int) -> View:
    """One of several statistics."""
    return replace(view, offset=view.offset + which * view.strides[0], dims=view.dims[1:], strides=view.strides[1:])


def _along(frame: Frame, view: View, part: str) -> Access:
    """The access of a statistic [*rows, part] whose last axis one of the dimensions of the columns counts."""
    of_rows = frame.access(replace(view, dims=(*view.dims[:-1], 1), strides=(*view.strides[:-1], 0)))
    dims, strides, index = list(of_rows.view.dims), list(of_rows.view.strides), list(of_rows.index)
    place = frame.names.index(part)
    dims[place], strides[place], index[place] = view.dims[-1], view.strides[-1], unit(part)
    return Access(replace(of_rows.view, dims=tuple(dims), strides=tuple(strides)), tuple(index))
