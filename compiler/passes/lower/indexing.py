"""Gathers: entries of a table picked by the values of another tensor."""

from __future__ import annotations

import math

import numpy as np

from birc.compiler.ir.attributes import integer
from birc.compiler.ir.graph import Node
from birc.compiler.ir.plan import Access, Index, View
from birc.compiler.ir.types import TensorType
from birc.compiler.passes.lower.expression import Expression
from birc.compiler.passes.lower.frame import Frame, unit, word_of
from birc.compiler.passes.lower.group import GroupLowering
from birc.compiler.passes.lower.movement import dense_copy
from birc.compiler.passes.lower.views import reshape
from birc.compiler.passes.lower.wide import Wide


def gather(lowering: GroupLowering, node: Node) -> Expression | Wide:
    """Slices of a table along one axis; negative indices count from the end."""
    axis = integer(node.attributes, "axis")
    table, picked = (lowering.view(name) for name in node.inputs)
    lowering.frame = _frame(node.output.type, axis, len(picked.dims))
    index = _from_end(lowering, _aligned(lowering, picked, axis), table.dims[axis])
    return _pick(lowering, node, table, axis, max(1, len(picked.dims)), index)


def gather_nd(lowering: GroupLowering, node: Node) -> Expression | Wide:
    """Slices of a table by whole addresses: a gather on the table seen with one axis for the addressed ones."""
    batch = integer(node.attributes, "batch_dims")
    table, picked = (lowering.view(name) for name in node.inputs)
    leading, depth = len(picked.dims) - 1, picked.dims[-1]
    extents = table.dims[: batch + depth]
    flat = (math.prod(extents), *table.dims[batch + depth :])
    seen = reshape(table, flat) or reshape(_dense_table(lowering, node, table), flat)
    lowering.frame = _frame(node.output.type, 0, leading)
    address: Expression | float = 0.0
    for axis, extent in enumerate(extents):
        if axis < batch:
            part = _counting(lowering, axis, extent)
        else:
            place = axis - batch
            offset = picked.offset + place * picked.strides[-1]
            column = View(picked.buffer, offset, picked.dims[:-1], picked.strides[:-1])
            part = _from_end(lowering, _aligned(lowering, column, 0), extent)
        step = float(math.prod(extents[axis + 1 :]))
        address = lowering.builder.op("vfma", part, step, address, is_float=False)
    return _pick(
        lowering,
        node,
        seen or table,
        0,
        max(1, leading),
        lowering.builder.op("vmov", address, is_float=False),
    )


def _frame(out: TensorType, axis: int, index_rank: int) -> Frame:
    """The frame of the result; an index without dimensions gets one of extent 1 beside that of a neighbour."""
    frame = Frame.of(out.sizes, out.layout)
    if index_rank or not out.sizes:
        return frame
    if axis < len(out.sizes):
        return frame.split(axis, (1, out.sizes[axis]))
    return frame.split(axis - 1, (out.sizes[axis - 1], 1))


def _aligned(lowering: GroupLowering, view: View, axis: int) -> Expression:
    """Indices as a register whose dimensions from `axis` on are those of the view."""
    dims, strides = view.dims or (1,), view.strides or (0,)
    order, names = lowering.frame.order, lowering.frame.names
    before, after = axis, len(names) - axis - len(dims)
    whole = (*(1,) * before, *dims, *(1,) * after)
    steps = (*(0,) * before, *strides, *(0,) * after)
    extents = tuple(whole[i] for i in order)
    seen = View(view.buffer, view.offset, extents, tuple(steps[i] for i in order))
    index = tuple(unit(name) if extent > 1 else Index() for name, extent in zip(names, extents, strict=True))
    return lowering.builder.load(Access(seen, index), is_float=False)


def _counting(lowering: GroupLowering, axis: int, extent: int) -> Expression:
    """0, 1, 2, ... along one dimension."""
    numbers = lowering.env.packed_constant(f"count.{extent}", (), np.arange(extent, dtype=np.int32), "i32")
    return _aligned(lowering, numbers, axis)


def _from_end(lowering: GroupLowering, index: Expression, extent: int) -> Expression:
    """Negative indices count from the end."""
    b = lowering.builder
    negative = b.op("vlt", index, 0.0, is_float=False)
    return b.op("vsel", negative, b.op("vadd", index, float(extent), is_float=False), index, is_float=False)


def _pick(
    lowering: GroupLowering, node: Node, table: View, axis: int, index_rank: int, index: Expression
) -> Expression | Wide:
    """The table's elements at `index` along `axis`, whose place `index_rank` dimensions of the result take."""
    order, names = lowering.frame.order, lowering.frame.names
    count = table.dims[axis]
    repeated = index_rank - 1
    dims = (*table.dims[:axis], count, *(1,) * repeated, *table.dims[axis + 1 :])
    strides = (*table.strides[: axis + 1], *(0,) * repeated, *table.strides[axis + 1 :])
    place = tuple(
        Index() if axis <= i < axis + index_rank or dims[i] == 1 else unit(name)
        for i, name in zip(order, names, strict=True)
    )
    seen = View(table.buffer, table.offset, tuple(dims[i] for i in order), tuple(strides[i] for i in order))
    access, axis = Access(seen, place), order.index(axis)
    if lowering.is_wide(node.name):
        words = (lowering.builder.gather(word_of(access, word), index, axis, count, is_float=False) for word in (0, 1))
        return Wide(*words)
    is_float = lowering.type_of(node.inputs[0]).dtype.is_float
    return lowering.builder.gather(access, index, axis, count, is_float)


def _dense_table(lowering: GroupLowering, node: Node, table: View) -> View:
    return dense_copy(lowering.env, f"{node.name}.table", lowering.outer[node.inputs[0]], table, node.sources)
