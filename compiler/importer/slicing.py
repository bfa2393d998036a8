"""Lowering of ops that take a part of an axis: Slice and Split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from birc.compiler.importer.axes import integers_of, positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import from_end
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.run_time import (
    are,
    bounded_integers,
    counted_from_front,
    declared_result,
    flattened,
    for_axes,
    held,
    names_each_once,
)
from birc.compiler.importer.shape import slice_axis, take
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError


def _split(node: OnnxNode, build: GraphBuilder) -> Results:
    """Sizes from the attribute, the second input, or equal parts of which the last may be smaller."""
    x, shape = node.input(0), build.shape(node.input(0))
    axis = positive_axis(node, node.int_attribute("axis", 0), len(shape))
    if node.has("split"):
        sizes = node.ints_attribute("split")
    elif not node.optional(1):
        count = node.int_attribute("num_outputs", len(node.outputs))
        if count != len(node.outputs):
            raise BadModelError(f"num_outputs is {count}, but it has {len(node.outputs)} outputs", where=node.where)
        part = -(-shape[axis] // count)
        sizes = tuple(max(min(part, shape[axis] - part * place), 0) for place in range(count))
    elif build.constant_of(node.input(1)) is not None:
        sizes = integers_of(node, build, 1, "list of sizes") or ()
    else:
        sizes = _declared_sizes(node, build, axis)
        x = held(build, x, [are(build, flattened(build, node.input(1)), sizes)])
    if sum(sizes) != shape[axis] or len(sizes) != len(node.outputs):
        raise BadModelError(f"splits {shape[axis]} into {list(sizes)}", where=node.where)
    starts = np.cumsum((0, *sizes))
    return tuple(slice_axis(build, x, axis, int(starts[i]), int(starts[i + 1])) for i in range(len(sizes)))


def _declared_sizes(node: OnnxNode, build: GraphBuilder, axis: int) -> tuple[int, ...]:
    """The sizes of the parts as the model declares them; what is left is that of the one that it does not declare."""
    shapes = [build.declared_shape(node, place) for place in range(len(node.outputs))]
    sizes = [None if shape is None else shape[axis] for shape in shapes]
    if build.shape(flattened(build, node.input(1))) != (len(sizes),) or sizes.count(None) > 1:
        raise CannotLower("the sizes of its parts are only known at run time")
    left = build.shape(node.input(0))[axis] - sum(size or 0 for size in sizes)
    found = tuple(left if size is None else size for size in sizes)
    if left < 0 or sum(found) != build.shape(node.input(0))[axis]:
        raise CannotLower(f"the parts {list(found)} that the model declares are not the whole")
    return found


def _slice_attributes(node: OnnxNode, build: GraphBuilder) -> Results:
    """Slice until operator set 9: everything is an attribute."""
    starts, ends = node.ints_attribute("starts"), node.ints_attribute("ends")
    return _sliced(node, build, starts, ends, node.ints_attribute("axes", range(len(starts))), (1,) * len(starts))


def _slice_inputs(node: OnnxNode, build: GraphBuilder) -> Results:
    """Slice since operator set 10: everything is an input."""
    if any(name and build.constant_of(name) is None for name in node.inputs[1:]):
        return _sliced_at_run_time(node, build)
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
    x, rank = node.input(0), build.rank(node.input(0))
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


def _sliced_at_run_time(node: OnnxNode, build: GraphBuilder) -> str:
    """A gather of start + step * (0, 1, ...) along each axis that may be cut, as many as the model declares.

    Limits are clamped as ONNX asks; the program faults where they give another number of elements.
    """
    x, wanted = node.input(0), declared_result(node, build)
    shape, rank = build.shape(x), build.rank(x)
    starts, ends = (bounded_integers(build, node.input(place)) for place in (1, 2))
    (count,) = build.shape(starts)
    axes = _axes(node, build, count, rank)
    steps = bounded_integers(build, node.input(4)) if node.optional(4) else build.constant(np.ones(count, np.int64))
    if len(wanted) != rank or build.shape(ends) != (count,) or build.shape(steps) != (count,):
        raise BadModelError("starts, ends, axes and steps do not belong together", where=node.where)
    conditions = [names_each_once(build, axes, rank)] if isinstance(axes, str) else []
    limits = (
        for_axes(build, starts, axes, rank, (0,) * rank),
        for_axes(build, ends, axes, rank, shape),
        for_axes(build, steps, axes, rank, (1,) * rank),
    )
    for axis, (start, end, step) in enumerate(zip(*limits, strict=True)):
        if isinstance(axes, str) or axis in axes:
            first, fits = _window(build, (start, end, step), shape[axis], wanted[axis])
            conditions.append(fits)
            counted = build.emit("mul", (build.constant(np.arange(wanted[axis])), step))
            x = build.emit("gather", (x, build.emit("add", (counted, first))), {"axis": axis})
        elif wanted[axis] != shape[axis]:
            raise CannotLower(f"the model declares {wanted[axis]} of {shape[axis]} elements of an axis that is not cut")
    return held(build, x, conditions)


def _axes(node: OnnxNode, build: GraphBuilder, count: int, rank: int) -> tuple[int, ...] | str:
    """The axes that are cut: numbers, or the value that says so at run time."""
    if not node.optional(3):
        return tuple(range(count))
    known = build.constant_of(node.input(3))
    if known is not None:
        return tuple(positive_axis(node, int(axis), rank) for axis in known.reshape(-1))
    return counted_from_front(build, cast(build, node.input(3), dtype("i64")), rank)


def _window(build: GraphBuilder, limits: tuple[str, str, str], size: int, count: int) -> tuple[str, str]:
    """The first index of a slice of an axis of `size`, and whether it takes `count` elements.

    It does when the last of them lies before the end and the one behind it does not.
    """
    start, end, step = limits

    def number(value: int) -> str:
        return build.scalar(value, start)

    falls = build.emit("less", (step, number(0)))
    lowest = build.emit("where", (falls, number(-1), number(0)))
    highest = build.emit("where", (falls, number(size - 1), number(size)))

    def clamped(limit: str, least: str) -> str:
        return build.emit("minimum", (build.emit("maximum", (from_end(build, limit, size), least)), highest))

    first, last = clamped(start, number(0)), clamped(end, lowest)
    rising = build.emit("sub", (last, first))
    distance = build.emit("where", (falls, build.emit("neg", (rising,)), rising))
    # A step beyond the axis takes one element, as one of its size does; so no product leaves 32 bits.
    stride = build.emit("minimum", (build.emit("abs", (step,)), number(max(size, 1))))
    fits = build.emit("less", (number(0), stride))
    if count:
        before = build.emit("mul", (stride, number(count - 1)))
        fits = build.emit("and", (fits, build.emit("less", (before, distance))))
    behind = build.emit("mul", (stride, number(count)))
    return first, build.emit("and", (fits, build.emit("less_equal", (distance, behind))))


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Slice", _slice_attributes, until=9),
    OpType("Slice", _slice_inputs, since=10),
    OpType("Split", _split),
)
