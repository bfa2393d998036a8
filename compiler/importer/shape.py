"""Lowering of ops that give elements another shape or order: reshape, transpose, expand, tile, concat and the like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from birc.compiler.importer.axes import axes_of, positive_axes, positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.run_time import (
    are,
    candidate_axes,
    chosen,
    declared_result,
    flattened,
    held,
    matches,
)
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError


def reshape(build: GraphBuilder, x: str, shape: Sequence[int]) -> str:
    """`x` in another shape; itself when it has it already."""
    return x if build.shape(x) == tuple(shape) else build.emit("reshape", (x,), {"shape": tuple(shape)})


def _reshape(node: OnnxNode, build: GraphBuilder) -> Results:
    """0 copies a dimension of the input (unless `allowzero`), -1 takes what is left."""
    x, shape = node.input(0), node.input(1)
    old, copies = build.shape(x), not node.int_attribute("allowzero", 0)
    known = build.constant_of(shape)
    if known is not None:
        if known.dtype != np.int64:
            raise BadModelError(f"the shape of Reshape is {known.dtype}, not int64", where=node.where)
        sizes = _resolved(node, old, tuple(int(size) for size in known.reshape(-1)), copies)
        return build.emit("reshape", (x,), {"shape": sizes})
    sizes = declared_result(node, build)
    given = flattened(build, shape)
    if build.shape(given) != (len(sizes),) or math.prod(sizes) != math.prod(old):
        raise CannotLower(f"{list(old)} does not become the declared {list(sizes)}")
    is_left = build.emit("equal", (given, build.scalar(-1, given)))
    fits = build.emit("or", (are(build, given, sizes), is_left))
    if copies:
        same = np.array([size == old[place] if place < len(old) else False for place, size in enumerate(sizes)])
        is_copied = build.emit("equal", (given, build.scalar(0, given)))
        fits = build.emit("or", (fits, build.emit("and", (is_copied, build.constant(same)))))
    return held(build, build.emit("reshape", (x,), {"shape": sizes}), [fits, _at_most_one(build, is_left)])


def _resolved(node: OnnxNode, old: tuple[int, ...], wanted: tuple[int, ...], copies: bool) -> tuple[int, ...]:
    sizes = list(wanted)
    if copies:
        if any(size == 0 and place >= len(old) for place, size in enumerate(sizes)):
            raise BadModelError(f"shape {list(wanted)} copies a dimension that {list(old)} lacks", where=node.where)
        sizes = [old[place] if size == 0 else size for place, size in enumerate(sizes)]
    if -1 in sizes:
        known = math.prod(size for size in sizes if size != -1)
        if sizes.count(-1) > 1 or known == 0 or math.prod(old) % known:
            raise BadModelError(f"shape {list(wanted)} does not divide {list(old)}", where=node.where)
        sizes[sizes.index(-1)] = math.prod(old) // known
    return tuple(sizes)


def _at_most_one(build: GraphBuilder, flags: str) -> str:
    numbers = cast(build, flags, dtype("i32"))
    total = build.emit("reduce_sum", (numbers,), {"axes": (0,), "keepdims": 0})
    return build.emit("less_equal", (total, build.scalar(1, total)))


def _transpose(node: OnnxNode, build: GraphBuilder) -> Results:
    backwards = tuple(reversed(range(build.rank(node.input(0)))))
    return build.emit("transpose", (node.input(0),), {"perm": node.ints_attribute("perm", backwards)})


def _flatten(node: OnnxNode, build: GraphBuilder) -> Results:
    shape = build.shape(node.input(0))
    axis = positive_axis(node, node.int_attribute("axis", 1), len(shape), inclusive=True)
    target = (math.prod(shape[:axis]), math.prod(shape[axis:]))
    return build.emit("reshape", (node.input(0),), {"shape": target})


def _squeeze(node: OnnxNode, build: GraphBuilder) -> Results:
    x, shape = node.input(0), build.shape(node.input(0))
    if _axes_come_late(node, build):
        wanted, axes = declared_result(node, build), node.input(1)
        every = candidate_axes(shape, math.prod(build.shape(axes)))
        ones = (entry for entry in every if all(shape[axis] == 1 for axis in entry))
        return _reshaped_by(build, x, wanted, axes, len(shape), [e for e in ones if _without(shape, e) == wanted])
    given = axes_of(node, build, 1)
    if given is None:
        dropped = tuple(axis for axis, size in enumerate(shape) if size == 1)
    else:
        dropped = positive_axes(node, given, len(shape))
    if any(shape[axis] != 1 for axis in dropped):
        raise BadModelError(f"squeezes axes {list(dropped)} of {list(shape)}: not all of size 1", where=node.where)
    return build.emit("reshape", (x,), {"shape": _without(shape, dropped)})


def _unsqueeze(node: OnnxNode, build: GraphBuilder) -> Results:
    x, shape = node.input(0), build.shape(node.input(0))
    if _axes_come_late(node, build):
        wanted, axes = declared_result(node, build), node.input(1)
        every = candidate_axes(wanted, math.prod(build.shape(axes)))
        ones = (entry for entry in every if all(wanted[axis] == 1 for axis in entry))
        return _reshaped_by(build, x, wanted, axes, len(wanted), [e for e in ones if _without(wanted, e) == shape])
    given = axes_of(node, build, 1) or ()
    rank = len(shape) + len(given)
    added, rest = positive_axes(node, given, rank), iter(shape)
    target = tuple(1 if axis in added else next(rest) for axis in range(rank))
    return build.emit("reshape", (x,), {"shape": target})


def _axes_come_late(node: OnnxNode, build: GraphBuilder) -> bool:
    return bool(node.optional(1)) and build.constant_of(node.input(1)) is None


def _without(sizes: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for axis, size in enumerate(sizes) if axis not in axes)


def _reshaped_by(
    build: GraphBuilder, x: str, wanted: tuple[int, ...], axes: str, rank: int, candidates: list[tuple[int, ...]]
) -> str:
    """All lists of axes that lead to a shape lead to the same elements: that one of them arrives is what is held."""
    return chosen(build, matches(build, axes, rank, candidates), [reshape(build, x, wanted)])


def _expand(node: OnnxNode, build: GraphBuilder) -> Results:
    """Broadcasts both ways: a size of 1 in the wanted shape keeps the input's."""
    x, shape = node.input(0), build.shape(node.input(0))
    known = build.constant_of(node.input(1))
    if known is not None:
        wanted = tuple(int(size) for size in known.reshape(-1))
        try:
            target = np.broadcast_shapes(shape, wanted)
        except ValueError as error:
            raise BadModelError(f"{list(shape)} does not broadcast to {list(wanted)}", where=node.where) from error
        return build.emit("expand", (x,), {"shape": target})
    sizes, given = declared_result(node, build), flattened(build, node.input(1))
    missing = len(sizes) - build.shape(given)[0]
    padded = (1,) * (len(sizes) - len(shape)) + shape
    if missing < 0 or any(size not in (1, target) for size, target in zip(padded, sizes, strict=False)):
        raise CannotLower(f"{list(shape)} does not become the declared {list(sizes)}")
    if padded[:missing] != sizes[:missing]:
        raise CannotLower(f"{list(shape)} does not become the declared {list(sizes)} by {build.shape(given)[0]} sizes")
    may_be_one = build.constant(np.array([a == b for a, b in zip(padded, sizes, strict=True)][missing:], np.bool_))
    is_one = build.emit("and", (build.emit("equal", (given, build.scalar(1, given))), may_be_one))
    fits = build.emit("or", (are(build, given, sizes[missing:]), is_one))
    return held(build, build.emit("expand", (x,), {"shape": sizes}), [fits])


def _tile(node: OnnxNode, build: GraphBuilder) -> Results:
    x, shape = node.input(0), build.shape(node.input(0))
    known = build.constant_of(node.input(1))
    if known is not None:
        repeats = tuple(int(count) for count in known.reshape(-1))
        if len(repeats) != len(shape) or min(repeats, default=0) < 0:
            raise BadModelError(f"repeats {list(repeats)} for a tensor of rank {len(shape)}", where=node.where)
        return _repeated(build, x, repeats)
    sizes, given = declared_result(node, build), flattened(build, node.input(1))
    if len(sizes) != len(shape) or any(size % (old or 1) for size, old in zip(sizes, shape, strict=True)):
        raise CannotLower(f"{list(shape)} is not repeated to the declared {list(sizes)}")
    repeats = tuple(size // (old or 1) for size, old in zip(sizes, shape, strict=True))
    return held(build, _repeated(build, x, repeats), [are(build, given, repeats)])


def _repeated(build: GraphBuilder, x: str, repeats: tuple[int, ...]) -> str:
    """Axis by axis, the last first: what lies from the axis on is repeated as a whole."""
    shape = list(build.shape(x))
    if 0 in repeats:
        target = tuple(count * size for count, size in zip(repeats, shape, strict=True))
        return build.splat(0, build.type_of(x).with_shape(target))
    for axis in reversed(range(len(shape))):
        count = repeats[axis]
        if count > 1:
            before, after = math.prod(shape[:axis]), math.prod(shape[axis:])
            blocks = reshape(build, x, (before, 1, after))
            shape[axis] *= count
            x = reshape(build, build.emit("expand", (blocks,), {"shape": (before, count, after)}), shape)
    return x


def _concat(node: OnnxNode, build: GraphBuilder) -> Results:
    rank = build.rank(node.input(0))
    return build.emit("concat", node.inputs, {"axis": positive_axis(node, node.int_attribute("axis", 1), rank)})


def slice_axis(build: GraphBuilder, x: str, axis: int, start: int, end: int, step: int = 1) -> str:
    """Elements `start` to `end` (excluded) of one axis; `x` itself when that is all of them."""
    shape = build.shape(x)
    if (start, end, step) == (0, shape[axis], 1):
        return x
    starts = tuple(start if place == axis else 0 for place in range(len(shape)))
    ends = tuple(end if place == axis else size for place, size in enumerate(shape))
    steps = tuple(step if place == axis else 1 for place in range(len(shape)))
    return build.emit("slice", (x,), {"starts": starts, "ends": ends, "steps": steps})


def take(build: GraphBuilder, x: str, axis: int, positions: np.ndarray) -> str:
    """The elements at `positions` (known now) of one axis."""
    indices = build.constant(np.asarray(positions, np.int64))
    return build.emit("gather", (x, indices), {"axis": axis})


def _depth_to_space(node: OnnxNode, build: GraphBuilder) -> Results:
    """Blocks of channels become blocks of pixels; DCR has the block outermost among the channels, CRD
    innermost.
    """
    batch, channels, height, width = build.shape(node.input(0))
    block = node.int_attribute("blocksize", 1)
    depth = channels // (block * block)
    if node.string_attribute("mode", "DCR") == "DCR":
        split, perm = (batch, block, block, depth, height, width), (0, 3, 4, 1, 5, 2)
    else:
        split, perm = (batch, depth, block, block, height, width), (0, 1, 4, 2, 5, 3)
    blocks = build.emit("reshape", (node.input(0),), {"shape": split})
    moved = build.emit("transpose", (blocks,), {"perm": perm})
    return build.emit("reshape", (moved,), {"shape": (batch, depth, height * block, width * block)})


def _space_to_depth(node: OnnxNode, build: GraphBuilder) -> Results:
    batch, channels, height, width = build.shape(node.input(0))
    block = node.int_attribute("blocksize", 1)
    split = (batch, channels, height // block, block, width // block, block)
    perm = (0, 3, 5, 1, 2, 4) if node.string_attribute("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    blocks = build.emit("reshape", (node.input(0),), {"shape": split})
    moved = build.emit("transpose", (blocks,), {"perm": perm})
    target = (batch, channels * block * block, height // block, width // block)
    return build.emit("reshape", (moved,), {"shape": target})


def _identity(node: OnnxNode, build: GraphBuilder) -> Results:
    return node.input(0)


def _dropout(node: OnnxNode, build: GraphBuilder) -> Results:
    """Nothing is dropped at inference: the data passes and the mask is all true."""
    x, training = node.input(0), node.optional(2)
    if training and bool(build.required_constant(training, "training mode").any()):
        ratio = node.optional(1)
        if not ratio or build.required_constant(ratio, "ratio").any():
            raise CannotLower("training mode draws random numbers")
    if len(node.outputs) == 1:
        return x
    mask_type = dtype("bool") if node.version >= 10 else build.type_of(x).dtype
    return x, build.splat(1, build.type_of(x).with_dtype(mask_type))


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Concat", _concat),
    OpType("DepthToSpace", _depth_to_space),
    OpType("Dropout", _dropout),
    OpType("Expand", _expand),
    OpType("Flatten", _flatten),
    OpType("Identity", _identity),
    OpType("Reshape", _reshape),
    OpType("SpaceToDepth", _space_to_depth),
    OpType("Squeeze", _squeeze),
    OpType("Tile", _tile),
    OpType("Transpose", _transpose),
    OpType("Unsqueeze", _unsqueeze),
)
