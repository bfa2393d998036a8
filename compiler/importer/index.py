"""Lowering of indexed reads: Gather, GatherElements, GatherND and ReverseSequence."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import counting, from_end
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.shape import reshape
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError


def _gather(node: OnnxNode, build: GraphBuilder) -> Results:
    axis = positive_axis(node, node.int_attribute("axis", 0), build.rank(node.input(0)))
    return build.emit("gather", node.inputs, {"axis": axis})


def _gather_nd(node: OnnxNode, build: GraphBuilder) -> Results:
    return build.emit("gather_nd", node.inputs, {"batch_dims": node.int_attribute("batch_dims", 0)})


def _gather_elements(node: OnnxNode, build: GraphBuilder) -> Results:
    x, indices = node.input(0), node.input(1)
    axis = positive_axis(node, node.int_attribute("axis", 0), build.rank(x))
    if build.rank(indices) != build.rank(x):
        raise BadModelError(
            f"indices of rank {build.rank(indices)} for a tensor of rank {build.rank(x)}", where=node.where
        )
    return elements_along(build, x, from_end(build, indices, build.shape(x)[axis]), axis)


def elements_along(build: GraphBuilder, x: str, positions: str, axis: int) -> str:
    """For each position the element of `x` there along `axis`, and at the position's own place in all other
    dimensions. A program that faults at positions outside of the axis.

    A gather from the flattened tensor: the address is the position times its stride plus what is known already.
    """
    shape, wanted = build.shape(x), build.shape(positions)
    strides = [math.prod(shape[place + 1 :]) for place in range(len(shape))]
    others = np.zeros((1,) * len(shape), np.int64)
    for place, size in enumerate(wanted):
        if place != axis:
            line = (-1,) + (1,) * (len(shape) - place - 1)
            others = others + np.arange(size).reshape(line) * strides[place]
    offsets = build.constant(others.astype(build.type_of(positions).dtype.numpy))
    scaled = build.emit("mul", (positions, build.scalar(strides[axis], positions)))
    address = build.emit("add", (scaled, offsets))
    begun = build.emit("greater_equal", (positions, build.scalar(0, positions)))
    ended = build.emit("less", (positions, build.scalar(shape[axis], positions)))
    beyond = build.scalar(math.prod(shape), positions)
    address = build.emit("where", (build.emit("and", (begun, ended)), address, beyond))
    return build.emit("gather", (reshape(build, x, (math.prod(shape),)), address), {"axis": 0})


def _reverse_sequence(node: OnnxNode, build: GraphBuilder) -> Results:
    """The first `length` elements along the time axis in reverse, the others as they are.

    Rows of a table of all times and batches, time or batch first; the row of a time is a choice by its length.
    """
    x, shape = node.input(0), build.shape(node.input(0))
    time_axis, batch_axis = node.int_attribute("time_axis", 0), node.int_attribute("batch_axis", 1)
    if {time_axis, batch_axis} != {0, 1}:
        raise BadModelError(f"time axis {time_axis} and batch axis {batch_axis} are not 0 and 1", where=node.where)
    times, batch = shape[time_axis], shape[batch_axis]
    lengths = reshape(build, cast(build, node.input(1), dtype("i32")), (batch, 1) if time_axis else (batch,))
    time = counting(build, times, 1 - time_axis)
    last = build.emit("sub", (lengths, build.scalar(1, lengths)))
    mirrored = build.emit("sub", (last, time))
    source = build.emit("where", (build.emit("less", (time, lengths)), mirrored, time))
    source = build.emit("mul", (source, build.scalar(1 if time_axis else batch, source)))
    numbers = build.constant((np.arange(batch) * (times if time_axis else 1)).astype(np.int32))
    rows = build.emit("add", (source, reshape(build, numbers, (batch, 1) if time_axis else (batch,))))
    table = reshape(build, x, (times * batch, *shape[2:]))
    return reshape(build, build.emit("gather", (table, rows), {"axis": 0}), shape)


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Gather", _gather),
    OpType("GatherElements", _gather_elements),
    OpType("GatherND", _gather_nd),
    OpType("ReverseSequence", _reverse_sequence),
)
