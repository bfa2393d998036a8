"""Lowering of choices by position: OneHot and Trilu compare indices with 0, 1, ... along a dimension."""

from __future__ import annotations

from typing import Final

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import counting, from_end
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape, slice_axis
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError


def _one_hot(node: OnnxNode, build: GraphBuilder) -> Results:
    """The second value where a new axis counts to the index, else the first.

    Negative indices count from the end; those outside of the depth meet no position.
    """
    indices, values = node.input(0), node.input(2)
    shape = build.shape(indices)
    axis = positive_axis(node, node.int_attribute("axis", -1), len(shape) + 1)
    depth = _depth(node, build, axis)
    whole = from_end(build, cast(build, indices, dtype("i64")), depth)
    whole = reshape(build, whole, (*shape[:axis], 1, *shape[axis:]))
    hot = build.emit("equal", (whole, counting(build, depth, len(shape) - axis, dtype("i64"))))
    off = reshape(build, slice_axis(build, values, 0, 0, 1), ())
    on = reshape(build, slice_axis(build, values, 0, 1, 2), ())
    result = build.emit("where", (hot, on, off))
    given = node.input(1)
    if build.constant_of(given) is not None:
        return result
    given = cast(build, reshape(build, given, ()), dtype("i64"))
    return build.guarded(result, build.emit("equal", (given, build.scalar(depth, given))))


def _depth(node: OnnxNode, build: GraphBuilder, axis: int) -> int:
    known = build.constant_of(node.input(1))
    if known is not None:
        depth = int(known.reshape(()))
        if depth < 0:
            raise BadModelError(f"the depth of OneHot is {depth}", where=node.where)
        return depth
    declared = build.declared_shape(node)
    if declared is None:
        raise CannotLower("the depth comes from the inputs of the model")
    return declared[axis]


def _trilu(node: OnnxNode, build: GraphBuilder) -> Results:
    """The upper or lower triangle: a comparison of column less row with the diagonal."""
    x = node.input(0)
    rows, columns = build.shape(x)[-2:]
    number = dtype("i64")
    given = node.optional(1)
    diagonal = reshape(build, given, ()) if given else build.constant(number.numpy.type(0).reshape(()))
    distance = build.emit("sub", (counting(build, columns, 0, number), counting(build, rows, 1, number)))
    kept = build.emit("greater_equal" if node.int_attribute("upper", 1) else "less_equal", (distance, diagonal))
    if build.type_of(x).dtype == dtype("bool"):
        return build.emit("and", (kept, x))
    return build.emit("where", (kept, x, build.scalar(0, x)))


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("OneHot", _one_hot),
    OpType("Trilu", _trilu),
)
