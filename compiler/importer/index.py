"""Lowering of gathers."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode


def _gather(node: OnnxNode, build: GraphBuilder) -> Results:
    axis = positive_axis(node, node.int_attribute("axis", 0), len(build.shape(node.input(0))))
    return build.emit("gather", node.inputs, {"axis": axis})


def _gather_nd(node: OnnxNode, build: GraphBuilder) -> Results:
    return build.emit("gather_nd", node.inputs, {"batch_dims": node.int_attribute("batch_dims", 0)})


def _gather_elements(node: OnnxNode, build: GraphBuilder) -> Results:
    """A gather from the flattened tensor: the position is the index times its stride plus what is known
    already.
    """
    x, indices = node.input(0), node.input(1)
    shape, wanted = build.shape(x), build.shape(indices)
    axis = positive_axis(node, node.int_attribute("axis", 0), len(shape))
    negative = build.emit("less", (indices, build.scalar(0, indices)))
    counted = build.emit("add", (indices, build.scalar(shape[axis], indices)))
    counted = build.emit("where", (negative, counted, indices))
    strides = [math.prod(shape[place + 1 :]) for place in range(len(shape))]
    others = np.zeros(wanted, np.int64)
    for place, positions in enumerate(np.indices(wanted, sparse=True)):
        if place != axis:
            others = others + positions * strides[place]
    scaled = build.emit("mul", (counted, build.scalar(strides[axis], indices)))
    offsets = build.constant(others.astype(build.type_of(indices).dtype.numpy))
    flat = build.emit("reshape", (x,), {"shape": (math.prod(shape),)})
    return build.emit("gather", (flat, build.emit("add", (scaled, offsets))), {"axis": 0})


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Gather", _gather),
    OpType("GatherElements", _gather_elements),
    OpType("GatherND", _gather_nd),
)
