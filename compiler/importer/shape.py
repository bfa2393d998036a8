"""Lowering of ops that move or view elements: reshape, transpose, slice, pad, split, tile and the like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from birc.compiler.importer.axes import axes_of, integers_of, positive_axes, positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError


def reshape(build: GraphBuilder, x: str, shape: Sequence[int]) -> str:
    """`x` in another shape; itself when it has it already."""
    return x if build.shape(x) == tuple(shape) else build.emit("reshape", (x,), {"shape": tuple(shape)})


def _reshape(node: OnnxNode, build: GraphBuilder) -> Results:
    """0 copies a dimension of the input (unless `allowzero`), -1 takes what is left."""
    x = node.input(0)
    old = build.shape(x)
    wanted = integers_of(node, build, 1, "shape") or ()
    sizes = list(wanted)
    if not node.int_attribute("allowzero", 0):
        if any(size == 0 and place >= len(old) for place, size in enumerate(sizes)):
            raise BadModelError(f"shape {list(wanted)} copies a dimension that {list(old)} lacks", where=node.where)
        sizes = [old[place] if size == 0 else size for place, size in enumerate(sizes)]
    if -1 in sizes:
        known = math.prod(size for size in sizes if size != -1)
        if sizes.count(-1) > 1 or known == 0 or math.prod(old) % known:
            raise BadModelError(f"shape {list(wanted)} does not divide {list(old)}", where=node.where)
        sizes[sizes.index(-1)] = math.prod(old) // known
    return build.emit("reshape", (x,), {"shape": tuple(sizes)})


def _transpose(node: OnnxNode, build: GraphBuilder) -> Results:
    backwards = tuple(reversed(range(len(build.shape(node.input(0))))))
    return build.emit("transpose", (node.input(0),), {"perm": node.ints_attribute("perm", backwards)})


def _flatten(node: OnnxNode, build: GraphBuilder) -> Results:
    shape = build.shape(node.input(0))
    axis = positive_axis(node, node.int_attribute("axis", 1), len(shape), inclusive=True)
    target = (math.prod(shape[:axis]), math.prod(shape[axis:]))
    return build.emit("reshape", (node.input(0),), {"shape": target})


def _squeeze(node: OnnxNode, build: GraphBuilder) -> Results:
    shape, given = build.shape(node.input(0)), axes_of(node, build, 1)
    if given is None:
        dropped = tuple(axis for axis, size in enumerate(shape) if size == 1)
    else:
        dropped = positive_axes(node, given, len(shape))
    if any(shape[axis] != 1 for axis in dropped):
        raise BadModelError(f"squeezes axes {list(dropped)} of {list(shape)}: not all of size 1", where=node.where)
    target = tuple(size for axis, size in enumerate(shape) if axis not in dropped)
    return build.emit("reshape", (node.input(0),), {"shape": target})


def _unsqueeze(node: OnnxNode, build: GraphBuilder) -> Results:
    shape, given = build.shape(node.input(0)), axes_of(node, build, 1) or ()
    rank = len(shape) + len(given)
    added, rest = positive_axes(node, given, rank), iter(shape)
    target = tuple(1 if axis in added else next(rest) for axis in range(rank))
    return build.emit("reshape", (node.input(0),), {"shape": target})


def _expand(node: OnnxNode, build: GraphBuilder) -> Results:
    """Broadcasts both ways: a size of 1 in the wanted shape keeps the input's."""
    shape, wanted = build.shape(node.input(0)), integers_of(node, build, 1, "shape") or ()
    try:
        target = np.broadcast_shapes(shape, wanted)
    except ValueError as error:
        raise BadModelError(f"{list(shape)} does not broadcast to {list(wanted)}", where=node.where) from error
    return build.emit("expand", (node.input(0),), {"shape": target})


def _tile(node: OnnxNode, build: GraphBuilder) -> Results:
    """Each repeated dimension gets one before it, which is expanded and merged."""
    x, shape = node.input(0), build.shape(node.input(0))
    repeats = integers_of(node, build, 1, "repeats") or ()
    if len(repeats) != len(shape):
        raise BadModelError(f"repeats {list(repeats)} for a tensor of rank {len(shape)}", where=node.where)
    split = tuple(entry for size in shape for entry in (1, size))
    spread = tuple(entry for count, size in zip(repeats, shape, strict=True) for entry in (count, size))
    tiled = build.emit("expand", (build.emit("reshape", (x,), {"shape": split}),), {"shape": spread})
    target = tuple(count * size for count, size in zip(repeats, shape, strict=True))
    return build.emit("reshape", (tiled,), {"shape": target})


def _concat(node: OnnxNode, build: GraphBuilder) -> Results:
    rank = len(build.shape(node.input(0)))
    return build.emit("concat", node.inputs, {"axis": positive_axis(node, node.int_attribute("axis", 1), rank)})


def _split(node: OnnxNode, build: GraphBuilder) -> Results:
    """Sizes from the attribute, the second input, or equal parts of which the last may be smaller."""
    x, shape = node.input(0), build.shape(node.input(0))
    axis = positive_axis(node, node.int_attribute("axis", 0), len(shape))
    sizes = node.ints_attribute("split") if node.has("split") else integers_of(node, build, 1, "list of sizes")
    if sizes is None:
        count = node.int_attribute("num_outputs", len(node.outputs))
        part = -(-shape[axis] // count)
        sizes = tuple(max(min(part, shape[axis] - part * place), 0) for place in range(count))
    if sum(sizes) != shape[axis] or len(sizes) != len(node.outputs):
        raise BadModelError(f"splits {shape[axis]} into {list(sizes)}", where=node.where)
    starts = np.cumsum((0, *sizes))
    return tuple(slice_axis(build, x, axis, int(starts[i]), int(starts[i + 1])) for i in range(len(sizes)))


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


def _slice_attributes(node: OnnxNode, build: GraphBuilder) -> Results:
    """Slice until operator set 9: everything is an attribute."""
    starts, ends = node.ints_attribute("starts"), node.ints_attribute("ends")
    return _sliced(node, build, starts, ends, node.ints_attribute("axes", range(len(starts))), (1,) * len(starts))


def _slice_inputs(node: OnnxNode, build: GraphBuilder) -> Results:
    """Slice since operator set 10."""
    starts = integers_of(node, build, 1, "starts") or ()
    ends = integers_of(node, build, 2, "ends") or ()
    axes = integers_of(node, build, 3, "axes")
    steps = integers_of(node, build, 4, "steps")
    axes = tuple(range(len(starts))) if axes is None else axes
    return _sliced(node, build, starts, ends, axes, (1,) * len(starts) if steps is None else steps)


def _sliced(
    node: OnnxNode,
    build: GraphBuilder,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int],
    steps: Sequence[int],
) -> str:
    """Python's slices, which clamp as ONNX asks; backward ones become gathers of known positions."""
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise BadModelError("starts, ends, axes and steps do not belong together", where=node.where)
    x, rank = node.input(0), len(build.shape(node.input(0)))
    shape = build.shape(x)
    first, last, stride = [0] * rank, list(shape), [1] * rank
    backwards: list[tuple[int, range]] = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = positive_axis(node, axis, rank)
        size = shape[place]
        stop = None if step < 0 and end < -size else end
        positions = range(size)[start:stop:step]
        if step < 0:
            backwards.append((place, positions))
        else:
            first[place], stride[place] = positions.start, step
            last[place] = max(positions.stop, positions.start)
    if (first, last, stride) != ([0] * rank, list(shape), [1] * rank) or not backwards:
        window = {"starts": tuple(first), "ends": tuple(last), "steps": tuple(stride)}
        x = build.emit("slice", (x,), window)
    for place, positions in backwards:
        x = take(build, x, place, np.array(positions, np.int64))
    return x


def _pad_attributes(node: OnnxNode, build: GraphBuilder) -> Results:
    """Pad until operator set 10: amounts and value are attributes."""
    rank = len(build.shape(node.input(0)))
    return _padded(node, build, node.ints_attribute("pads"), tuple(range(rank)), node.float_attribute("value", 0.0))


def _pad_inputs(node: OnnxNode, build: GraphBuilder) -> Results:
    """Pad since operator set 11: amounts, value and (since 18) axes are inputs."""
    rank = len(build.shape(node.input(0)))
    pads = integers_of(node, build, 1, "amounts of padding") or ()
    axes = integers_of(node, build, 3, "axes")
    value = node.optional(2)
    fill = build.required_constant(value, "padding value").reshape(()).item() if value else 0.0
    places = tuple(range(rank)) if axes is None else tuple(positive_axis(node, axis, rank) for axis in axes)
    return _padded(node, build, pads, places, float(fill))


def _padded(node: OnnxNode, build: GraphBuilder, pads: Sequence[int], axes: Sequence[int], value: float) -> str:
    """Negative amounts cut; constant padding is the core row; other modes gather known positions."""
    x, rank, mode = node.input(0), len(build.shape(node.input(0))), node.string_attribute("mode", "constant")
    if len(pads) != 2 * len(axes):
        raise BadModelError(f"{len(pads)} amounts of padding for {len(axes)} axes", where=node.where)
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        before[axis], after[axis] = pads[place], pads[place + len(axes)]
    for axis in range(rank):
        size = build.shape(x)[axis]
        x = slice_axis(build, x, axis, max(-before[axis], 0), size - max(-after[axis], 0))
    amounts = tuple(max(amount, 0) for amount in (*before, *after))
    if mode == "constant":
        return build.emit("pad", (x,), {"pads": amounts, "value": value})
    numpy_mode = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}.get(mode)
    if numpy_mode is None:
        raise BadModelError(f"padding mode {mode!r} is not a mode of ONNX", where=node.where)
    for axis in range(rank):
        around = (amounts[axis], amounts[axis + rank])
        if any(around):
            positions = np.pad(np.arange(build.shape(x)[axis]), around, mode=numpy_mode)  # type: ignore[call-overload]
            x = take(build, x, axis, positions)
    return x


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
    OpType("Pad", _pad_attributes, until=10),
    OpType("Pad", _pad_inputs, since=11),
    OpType("Reshape", _reshape),
    OpType("Slice", _slice_attributes, until=9),
    OpType("Slice", _slice_inputs, since=10),
    OpType("SpaceToDepth", _space_to_depth),
    OpType("Split", _split),
    OpType("Squeeze", _squeeze),
    OpType("Tile", _tile),
    OpType("Transpose", _transpose),
    OpType("Unsqueeze", _unsqueeze),
)
