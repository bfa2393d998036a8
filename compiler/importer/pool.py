"""Lowering of pooling over windows and over whole images."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.floats import widened
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.planes import Plane, planes
from birc.compiler.importer.shape import reshape
from birc.compiler.importer.window import Sizes, Window, checked, padded_window, rounded_up
from birc.compiler.ir.attributes import AttributeValue
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError


def _max_pool(node: OnnxNode, build: GraphBuilder) -> Results:
    x, spatial = node.input(0), build.shape(node.input(0))[2:]
    window = _rounded(node, _given(node, spatial), spatial)
    if not node.uses_output(1):
        return _of_whole(build, "reduce_max", x) if window.is_whole(spatial) else pooled(build, "max_pool2d", x, window)
    peak, place = _places(build, x, window)
    if node.int_attribute("storage_order", 0):
        # Column-major: the first spatial dimension varies fastest.
        order = np.arange(math.prod(spatial), dtype=np.int32).reshape(spatial[::-1]).transpose()
        place = build.emit("gather", (build.constant(np.ravel(order)), place), {"axis": 0})
    batch, channels, *rest = build.shape(place)
    pictures = np.arange(batch * channels, dtype=np.int64).reshape(batch, channels, *(1,) * len(rest))
    place = cast(build, place, dtype("i64"))
    return peak, build.emit("add", (place, build.constant(pictures * math.prod(spatial))))


def _given(node: OnnxNode, spatial: Sizes) -> Window:
    return padded_window(node, node.ints_attribute("kernel_shape"), spatial)


def _rounded(node: OnnxNode, window: Window, spatial: Sizes) -> Window:
    return checked(node, rounded_up(window, spatial) if node.int_attribute("ceil_mode", 0) else window, spatial)


def pooled(build: GraphBuilder, op: str, x: str, window: Window) -> str:
    """A pool of core rows `op` over all spatial dimensions of `x`."""
    shape = build.shape(x)
    for plane in planes(shape, window):
        x = build.emit(op, (reshape(build, x, plane.shape),), plane.attributes(window))
    return reshape(build, x, (*shape[:2], *window.results(shape[2:])))


def _places(build: GraphBuilder, x: str, window: Window) -> tuple[str, str]:
    """The maxima, and where in its picture (row-major) each lies.

    From the second step on the rows of a plane are layers of which the step before knows the maxima and their places:
    of the layer that wins, that place counts.
    """
    shape = build.shape(x)
    result = (*shape[:2], *window.results(shape[2:]))
    place, layer_size = "", 1
    for plane in planes(shape, window):
        picture = reshape(build, x, plane.shape)
        x = build.emit("max_pool2d", (picture,), plane.attributes(window))
        found = build.emit("max_pool2d_position", (picture,), plane.attributes(window))
        place = _of_layer(build, place, found, plane, layer_size) if place else found
        layer_size = math.prod(shape[2 + min(p for p in (plane.row, plane.column) if p is not None) :])
    return reshape(build, x, result), reshape(build, place, result)


def _of_layer(build: GraphBuilder, places: str, found: str, plane: Plane, layer_size: int) -> str:
    """`places` at the winners that `found` names in each plane, after the layers before the winner's.

    `layer_size` is how many elements of the input a row of the plane stands for.
    """
    batch, outer, rows, columns = plane.shape
    planes_before = np.arange(batch * outer, dtype=np.int32).reshape(batch, outer, 1, 1) * (rows * columns)
    flat = reshape(build, places, (batch * outer * rows * columns,))
    at = build.emit("add", (found, build.constant(planes_before)))
    before = np.repeat(np.arange(rows, dtype=np.int32) * layer_size, columns)
    skipped = build.emit("gather", (build.constant(before), found), {"axis": 0})
    return build.emit("add", (build.emit("gather", (flat, at), {"axis": 0}), skipped))


def _average_pool(node: OnnxNode, build: GraphBuilder) -> Results:
    """Where pads count, those that only ceil_mode adds do not."""
    x, spatial = node.input(0), build.shape(node.input(0))[2:]
    given = _given(node, spatial)
    window = _rounded(node, given, spatial)
    if window.is_whole(spatial):
        return _of_whole(build, "reduce_mean", x)
    return _mean(build, x, window, given, node.int_attribute("count_include_pad", 0))


def _mean(build: GraphBuilder, x: str, window: Window, counted: Window, includes_pads: int) -> str:
    """The mean of each window; `counted` has the pads that count if `includes_pads` says so."""
    shape, kept = build.shape(x), build.type_of(x).dtype
    steps = planes(shape, window)
    if len(steps) > 1:
        x = widened(build, x)
    for plane in steps:
        attributes: dict[str, AttributeValue] = {
            **plane.attributes(window),
            "count_include_pad": includes_pads,
            "divisor_pads": plane.pads(counted),
        }
        x = build.emit("avg_pool2d", (reshape(build, x, plane.shape),), attributes)
    return cast(build, reshape(build, x, (*shape[:2], *window.results(shape[2:]))), kept)


def _lp_pool(node: OnnxNode, build: GraphBuilder) -> Results:
    """The root of the sum of powers: the mean over windows that count every pad, times the number of elements."""
    x, spatial = node.input(0), build.shape(node.input(0))[2:]
    order = _order(node)
    window = _rounded(node, _given(node, spatial), spatial)
    mean = _mean(build, _power(build, x, order), window, window, 1)
    total = build.emit("mul", (mean, build.scalar(math.prod(window.kernel), mean)))
    return _root(build, total, order)


def _global_lp_pool(node: OnnxNode, build: GraphBuilder) -> Results:
    order, powers = _order(node), _power(build, node.input(0), _order(node))
    axes = tuple(range(2, len(build.shape(powers))))
    return _root(build, build.emit("reduce_sum", (powers,), {"axes": axes, "keepdims": 1}), order)


def _order(node: OnnxNode) -> int:
    order = node.int_attribute("p", 2)
    if order < 1:
        raise BadModelError(f"p is {order}, not at least 1", where=node.where)
    return order


def _power(build: GraphBuilder, x: str, order: int) -> str:
    """|x| to a whole power"""
    if order == 2:
        return build.emit("mul", (x, x))
    size = build.emit("abs", (x,))
    return size if order == 1 else build.emit("pow", (size, build.scalar(order, x)))


def _root(build: GraphBuilder, x: str, order: int) -> str:
    if order == 1:
        return x
    return build.emit("sqrt", (x,)) if order == 2 else build.emit("pow", (x, build.scalar(1 / order, x)))


def _global_pool(op: str) -> Lower:
    """Pooling over all spatial dimensions."""
    return lambda node, build: _of_whole(build, op, node.input(0))


def _of_whole(build: GraphBuilder, op: str, x: str) -> str:
    """Pooling by a window that is all of the image: a reduction."""
    return build.emit(op, (x,), {"axes": tuple(range(2, len(build.shape(x)))), "keepdims": 1})


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("AveragePool", _average_pool),
    OpType("GlobalAveragePool", _global_pool("reduce_mean")),
    OpType("GlobalLpPool", _global_lp_pool, since=2),
    OpType("GlobalMaxPool", _global_pool("reduce_max")),
    OpType("LpPool", _lp_pool, since=2),
    OpType("MaxPool", _max_pool),
)
