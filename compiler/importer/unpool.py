"""Lowering of MaxUnpool: each element of the result asks which maxima name it."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import counting, reduced, require_helpers
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.run_time import are, declared_result, flattened, held
from birc.compiler.importer.shape import reshape
from birc.compiler.importer.window import Sizes, Window, read_window, resolve_pads
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError

_SMALL: Final = 1 << 20
"""Pairs of a maximum and an element of the result that are all compared."""


def _max_unpool(node: OnnxNode, build: GraphBuilder) -> Results:
    """Indices count in the result of the attributes alone; a given output shape adds zeros at its ends.

    Source: onnx's reference of MaxUnpool.
    """
    x, indices = node.input(0), node.input(1)
    shape = build.shape(x)
    window, sizes = _window(node, shape[2:])
    if build.shape(indices) != shape:
        raise BadModelError(f"indices {list(build.shape(indices))} for maxima {list(shape)}", where=node.where)
    total = shape[0] * shape[1] * math.prod(sizes)
    is_small = total * math.prod(shape) <= _SMALL
    made = _anywhere(build, x, indices, total) if is_small else _in_windows(build, x, indices, window, sizes)
    result = reshape(build, made, (*shape[:2], *sizes))
    if not node.optional(2):
        return result
    wanted = flattened(build, node.optional(2))
    known = build.constant_of(wanted)
    target = declared_result(node, build) if known is None else tuple(int(size) for size in known)
    behind = [size - have for size, have in zip(target, build.shape(result), strict=True)]
    if len(target) != len(shape) or min(behind) < 0:
        raise BadModelError(f"output_shape {list(target)} is below {[*shape[:2], *sizes]}", where=node.where)
    if any(behind):
        pads = (*(0,) * len(shape), *behind)
        result = build.emit("pad", (result,), {"pads": pads, "value": 0.0})
    return result if known is not None else held(build, result, [are(build, wanted, target)])


def _window(node: OnnxNode, spatial: Sizes) -> tuple[Window, Sizes]:
    """The window of the pool that is undone, and the sizes of what it was applied to."""
    kernel = node.ints_attribute("kernel_shape")
    if len(kernel) != len(spatial):
        raise BadModelError(f"a window of {len(kernel)} dimensions over {len(spatial)}", where=node.where)
    plain = read_window(node, kernel)
    begins, ends = resolve_pads(node, plain, spatial)
    window = Window(plain.kernel, plain.stride, plain.dilation, begins, ends)
    sizes = tuple(
        (size - 1) * stride - begin - end + taps
        for size, stride, begin, end, taps in zip(spatial, window.stride, begins, ends, kernel, strict=True)
    )
    if min(sizes, default=1) < 1:
        raise BadModelError(f"the result would have {list(sizes)} elements", where=node.where)
    return window, sizes


def _anywhere(build: GraphBuilder, x: str, indices: str, total: int) -> str:
    """Every element compares itself with every index; of equal ones the last counts."""
    count = build.type_of(x).num_elements
    asked = reshape(build, indices, (1, count))
    elements = counting(build, total, 1, build.type_of(indices).dtype)
    numbers = counting(build, count)
    hits = build.emit("equal", (asked, elements))
    last = reduced(build, "reduce_max", build.emit("where", (hits, numbers, build.scalar(-1, numbers))), 1)
    padded = _with_zero(build, reshape(build, x, (1, count)))
    return build.emit("gather", (reshape(build, padded, (count + 1,)), _or(build, last, count)), {"axis": 0})


def _in_windows(build: GraphBuilder, x: str, indices: str, window: Window, sizes: Sizes) -> str:
    """Every element compares itself with the indices of the windows that it lies in.

    The program faults when a window names an element outside of it, as no MaxPool does.
    """
    shape = build.shape(x)
    pictures, count, pixels = shape[0] * shape[1], math.prod(shape[2:]), math.prod(sizes)
    windows = _covering(window, shape[2:], sizes)
    require_helpers(pictures * windows.size, "the indices of the windows that each element lies in")
    kind = build.type_of(indices).dtype.numpy
    seen = build.emit(
        "gather",
        (_with_zero(build, reshape(build, indices, (pictures, count)), -1), build.constant(windows)),
        {"axis": 1},
    )
    own = np.add.outer(np.arange(pictures) * pixels, np.arange(pixels)).reshape(pictures, pixels, 1)
    hits = build.emit("equal", (seen, build.constant(own.astype(kind))))
    none = build.constant(np.array(-1, np.int32))
    last = reduced(build, "reduce_max", build.emit("where", (hits, build.constant(windows), none)), 2)
    number = cast(build, hits, dtype("i32"))
    named = build.emit("reduce_sum", (number,), {"axes": (0, 1, 2), "keepdims": 0})
    firsts = build.constant(np.arange(pictures, dtype=np.int32).reshape(pictures, 1) * (count + 1))
    at = build.emit("add", (_or(build, last, count), firsts))
    flat = reshape(build, _with_zero(build, reshape(build, x, (pictures, count))), (pictures * (count + 1),))
    result = build.emit("gather", (flat, at), {"axis": 0})
    return held(build, result, [build.emit("equal", (named, build.scalar(pictures * count, named)))])


def _covering(window: Window, spatial: Sizes, sizes: Sizes) -> np.ndarray:
    """The numbers of the windows that each element lies in, ascending; filled up with the number of windows."""
    count = math.prod(spatial)
    table = np.zeros((1, 1), np.int32)
    inside = np.ones((1, 1), np.bool_)
    for size, windows, taps, stride, begin in zip(
        sizes, spatial, window.kernel, window.stride, window.begins, strict=True
    ):
        most = -(-taps // stride)
        places = np.arange(size)[:, None] + begin
        numbers = places // stride - np.arange(most)[::-1]
        valid = (numbers >= 0) & (numbers < windows) & (numbers * stride + taps > places)
        merged = table[:, None, :, None] * windows + numbers[None, :, None, :]
        table = merged.reshape(len(table) * size, -1)
        inside = (inside[:, None, :, None] & valid[None, :, None, :]).reshape(table.shape)
    return np.where(inside, table, count).astype(np.int32)


def _with_zero(build: GraphBuilder, x: str, value: int = 0) -> str:
    """Rows with one more element."""
    rows = build.shape(x)[0]
    return build.emit("concat", (x, build.splat(value, build.type_of(x).with_shape((rows, 1)))), {"axis": 1})


def _or(build: GraphBuilder, number: str, other: int) -> str:
    """The number where it is not negative, else another."""
    negative = build.emit("less", (number, build.scalar(0, number)))
    return build.emit("where", (negative, build.scalar(other, number), number))


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("MaxUnpool", _max_unpool, since=9),)
