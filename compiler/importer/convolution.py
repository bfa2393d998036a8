"""Convolution over any number of spatial dimensions, as the core row over two."""

from __future__ import annotations

import math
from typing import Final

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape, slice_axis
from birc.compiler.importer.window import Sizes, Window, checked, padded_window
from birc.compiler.ir.attributes import AttributeValue
from birc.runtime.errors import BadModelError

MOST_TAPS: Final = 1024
"""Window positions of which each becomes nodes of its own."""


def _conv(node: OnnxNode, build: GraphBuilder) -> Results:
    x, w = node.input(0), node.input(1)
    shape, weights = build.shape(x), build.shape(w)
    if len(weights) != len(shape) or len(shape) < 3:
        raise BadModelError(f"weights of rank {len(weights)} for an input of rank {len(shape)}", where=node.where)
    window = checked(node, padded_window(node, weights[2:], shape[2:]), shape[2:])
    return convolution(build, x, w, node.optional(2), window, node.int_attribute("group", 1))


def convolution(build: GraphBuilder, x: str, w: str, bias: str, window: Window, group: int) -> str:
    """The convolution of `x` with weights `w` (out, in of a group, window); `bias` may be "".

    One spatial dimension becomes two, of which the first has size 1. Of more than two, the first goes into the batch.
    """
    shape, spatial = build.shape(x), len(build.shape(x)) - 2
    if spatial == 1:
        raised = convolution(build, _raised(build, x), _raised(build, w), bias, _raised_window(window), group)
        made = build.shape(raised)
        return build.emit("reshape", (raised,), {"shape": (*made[:2], made[3])})
    if spatial == 2:
        attributes: dict[str, AttributeValue] = {
            "stride": window.stride,
            "pads": (*window.begins, *window.ends),
            "dilation": window.dilation,
            "group": group,
        }
        return build.emit("conv2d", (x, w, bias) if bias else (x, w), attributes)
    layers = _layers(build, x, window, group)
    inner = Window(*(sizes[1:] for sizes in _sizes(window)))
    # Narrow floats would be rounded between the parts of the sum.
    is_wide = build.type_of(x).dtype.bits >= 32
    lower = _summed if is_wide and build.shape(w)[1] == 1 and build.shape(w)[0] == group else _stacked
    result = lower(build, layers, w, bias, inner, shape[3:])
    made = build.shape(result)
    split = reshape(build, result, (shape[0], made[0] // shape[0], *made[1:]))
    return build.emit("transpose", (split,), {"perm": (0, 2, 1, *range(3, len(shape)))})


def _sizes(window: Window) -> tuple[tuple[int, ...], ...]:
    return window.kernel, window.stride, window.dilation, window.begins, window.ends


def _raised(build: GraphBuilder, x: str) -> str:
    shape = build.shape(x)
    return build.emit("reshape", (x,), {"shape": (*shape[:2], 1, *shape[2:])})


def _raised_window(window: Window) -> Window:
    kernel, stride, dilation, begins, ends = _sizes(window)
    return Window((1, *kernel), (1, *stride), (1, *dilation), (0, *begins), (0, *ends))


def _layers(build: GraphBuilder, x: str, window: Window, group: int) -> list[str]:
    """For each position of the window along the first spatial dimension, the layers that it sees there.

    They are (batch, layer, group, channel of the group, pixel).
    """
    batch, channels, depth, *rest = build.shape(x)
    (count, *_), taps = window.results((depth, *rest)), window.kernel[0]
    if taps > MOST_TAPS:
        raise CannotLower(f"a window of {taps} layers, more than {MOST_TAPS}")
    grouped = reshape(build, x, (batch, group, channels // group, depth, math.prod(rest)))
    layered = build.emit("transpose", (grouped,), {"perm": (0, 3, 1, 2, 4)})
    if window.begins[0] or window.ends[0]:
        pads = (0, window.begins[0], 0, 0, 0, 0, window.ends[0], 0, 0, 0)
        layered = build.emit("pad", (layered,), {"pads": pads, "value": 0.0})
    starts = [tap * window.dilation[0] for tap in range(taps)]
    reach = (count - 1) * window.stride[0] + 1
    return [slice_axis(build, layered, 1, start, start + reach, window.stride[0]) for start in starts]


def _stacked(build: GraphBuilder, layers: list[str], w: str, bias: str, window: Window, rest: Sizes) -> str:
    """The layers' channels one after the other within a group: one convolution sums over all positions."""
    batch, count, group, channels, _ = build.shape(layers[0])
    out, _, taps, *kernel = build.shape(w)
    joined = layers[0] if taps == 1 else build.emit("concat", layers, {"axis": 3})
    pictures = reshape(build, joined, (batch * count, group * taps * channels, *rest))
    turned = build.emit("transpose", (w,), {"perm": (0, 2, 1, *range(3, len(kernel) + 3))})
    return convolution(build, pictures, reshape(build, turned, (out, taps * channels, *kernel)), bias, window, group)


def _summed(build: GraphBuilder, layers: list[str], w: str, bias: str, window: Window, rest: Sizes) -> str:
    """One convolution a position: with one channel a group the vector cores compute them, and their sum."""
    batch, count, group, *_ = build.shape(layers[0])
    out, _, _, *kernel = build.shape(w)
    total = ""
    for tap, layer in enumerate(layers):
        pictures = reshape(build, layer, (batch * count, group, *rest))
        weights = reshape(build, slice_axis(build, w, 2, tap, tap + 1), (out, 1, *kernel))
        part = convolution(build, pictures, weights, "" if total else bias, window, group)
        total = build.emit("add", (total, part)) if total else part
    return total


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("Conv", _conv),)
