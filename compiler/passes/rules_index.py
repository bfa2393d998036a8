"""Rules on gathers whose positions are known."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.ir.attributes import integer
from birc.compiler.ir.graph import Node
from birc.compiler.passes.rules import Rewriter, Rule


def gather_nd_known(rewriter: Rewriter, node: Node) -> str | None:
    """gather_nd(x, constant) = a reshape when it takes everything in order, a gather from the flattened x
    otherwise
    """
    indices = rewriter.constant(node.inputs[1])
    if indices is None or integer(node.attributes, "batch_dims") != 0 or indices.data.size == 0:
        return None
    shape, depth = rewriter.sizes(node.inputs[0]), indices.data.shape[-1]
    leading, rest = shape[:depth], shape[depth:]
    positions = indices.data.reshape(-1, depth).astype(np.int64)
    positions = np.where(positions < 0, positions + np.array(leading), positions)
    flat = np.asarray(np.ravel_multi_index(tuple(positions.T), leading))
    target = {"shape": node.output.type.sizes}
    if np.array_equal(flat, np.arange(math.prod(leading))):
        return rewriter.emit("reshape", (node.inputs[0],), target, replaces=(node,))
    rows = rewriter.emit("reshape", (node.inputs[0],), {"shape": (math.prod(leading), *rest)}, replaces=(node,))
    taken = rewriter.add_constant(flat.reshape(indices.data.shape[:-1]).astype(np.int64), f"{node.name}.positions")
    return rewriter.emit("gather", (rows, taken), {"axis": 0}, replaces=(node,))


def gather_of_a_run(rewriter: Rewriter, node: Node) -> str | None:
    """gather(x, [a, a + 1, ..., b]) = slice(x), in the shape of the indices (a scalar takes the axis away)"""
    indices = rewriter.constant(node.inputs[1])
    if indices is None or indices.data.size == 0:
        return None
    axis, shape = integer(node.attributes, "axis"), rewriter.sizes(node.inputs[0])
    if indices.data.min() < -shape[axis] or indices.data.max() >= shape[axis]:
        return None  # fails on these very positions: left for the run, which says where
    picked = indices.data.reshape(-1) % shape[axis]
    first = int(picked[0])
    if first + picked.size > shape[axis] or not np.array_equal(picked, np.arange(first, first + picked.size)):
        return None
    starts = tuple(first if place == axis else 0 for place in range(len(shape)))
    ends = tuple(first + picked.size if place == axis else size for place, size in enumerate(shape))
    attributes = {"starts": starts, "ends": ends, "steps": (1,) * len(shape)}
    run = rewriter.emit("slice", (node.inputs[0],), attributes, replaces=(node,))
    if indices.data.ndim == 1:
        return run
    return rewriter.emit("reshape", (run,), {"shape": node.output.type.sizes}, replaces=(node,))


RULES: Final[tuple[Rule, ...]] = (
    Rule("gather-nd-known", "gather_nd", gather_nd_known),
    Rule("gather-of-a-run", "gather", gather_of_a_run),
)
