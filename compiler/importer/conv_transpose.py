"""Transposed convolution: a convolution with the window turned round that makes every phase of the stride at once.

Without padding, element j of the result is the sum of x[i] w[k] over i * stride + k = j. With j = stride * q + r and
k = stride * t + r that is the sum of x[q - t] w[stride * t + r]: for each of the `stride` phases r a convolution of x
with every stride-th weight. The phases are output channels of one convolution; then they take their places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.convolution import convolution
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape, slice_axis, take
from birc.compiler.importer.window import Sizes, Window, read_window, resolve_pads
from birc.runtime.errors import BadModelError


@dataclass(frozen=True, slots=True)
class _Line:
    """One dimension. Of the result before padding is taken off, elements `start` to before `start + size` stay."""

    taps: int
    stride: int
    dilation: int
    start: int
    size: int

    @property
    def first(self) -> int:
        """The first place of the convolution, of `stride` elements each, that is needed."""
        return self.start // self.stride

    @property
    def places(self) -> int:
        """How many places are needed."""
        return -(-(self.start + self.size) // self.stride) - self.first

    @property
    def reach(self) -> int:
        """How far back of a place the window begins."""
        return (self.taps - 1) * self.dilation


def _conv_transpose(node: OnnxNode, build: GraphBuilder) -> Results:
    x, w, group = node.input(0), node.input(1), node.int_attribute("group", 1)
    shape, weights = build.shape(x), build.shape(w)
    if len(weights) != len(shape) or len(shape) < 3:
        raise BadModelError(f"weights of rank {len(weights)} for an input of rank {len(shape)}", where=node.where)
    if shape[1] != weights[0] or shape[1] % group:
        raise BadModelError(f"weights {list(weights)} for {shape[1]} channels in {group} groups", where=node.where)
    window = read_window(node, weights[2:])
    starts, sizes = _kept(node, window, shape[2:])
    lines = []
    for place, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        stride, dilation = window.stride[place], window.dilation[place]
        if stride > 1:
            w = _without_gaps(build, w, 2 + place, dilation, stride)
        taps = build.shape(w)[2 + place] // stride
        lines.append(_Line(taps, stride, 1 if stride > 1 else dilation, start, size))
    bias = node.optional(2)
    phases = math.prod(line.stride for line in lines)
    if bias and phases > 1:
        channels = weights[1] * group
        repeated = build.emit("expand", (reshape(build, bias, (channels, 1)),), {"shape": (channels, phases)})
        bias = reshape(build, repeated, (channels * phases,))
    cropped, phased = _padded_input(build, x, lines)
    result = convolution(build, cropped, _phased_weights(build, w, lines, group), bias, phased, group)
    return _in_place(build, result, lines)


def _kept(node: OnnxNode, window: Window, spatial: Sizes) -> tuple[Sizes, Sizes]:
    """Where in the result without padding that of the node begins, and its sizes.

    Source: ONNX operator reference, ConvTranspose, since operator set 11: a wanted size, or one of size * stride for
    SAME, is reached by padding, of which the odd element goes after (SAME_UPPER) or before (else). None is negative.
    """
    rank = len(spatial)
    extra = node.ints_attribute("output_padding", (0,) * rank)
    if len(extra) < rank or min(extra, default=0) < 0:
        raise BadModelError(f"output_padding is {list(extra)}, not {rank} numbers of at least 0", where=node.where)
    whole = tuple(
        stride * (size - 1) + more + extent
        for size, stride, more, extent in zip(spatial, window.stride, extra[:rank], window.extent, strict=True)
    )
    mode = node.string_attribute("auto_pad", "NOTSET")
    if node.has("output_shape"):
        wanted = node.ints_attribute("output_shape")[-rank:]
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(size * stride for size, stride in zip(spatial, window.stride, strict=True))
    else:
        begins, ends = resolve_pads(node, window, spatial)
        wanted = tuple(size - begin - end for size, begin, end in zip(whole, begins, ends, strict=True))
        return begins, _positive(node, wanted, rank)
    total = [max(size - want, 0) for size, want in zip(whole, _positive(node, wanted, rank), strict=True)]
    return tuple(pad // 2 if mode == "SAME_UPPER" else pad - pad // 2 for pad in total), wanted


def _positive(node: OnnxNode, sizes: Sizes, rank: int) -> Sizes:
    if len(sizes) != rank or min(sizes) < 1:
        raise BadModelError(f"the result would have {list(sizes)} elements in {rank} dimensions", where=node.where)
    return sizes


def _without_gaps(build: GraphBuilder, w: str, axis: int, dilation: int, stride: int) -> str:
    """The weights with zeros in place of the dilation, and as many behind them as fill up the stride."""
    shape = build.shape(w)
    taps = shape[axis]
    if dilation > 1:
        spread = reshape(build, w, (*shape[:axis], taps, 1, *shape[axis + 1 :]))
        spread = reshape(
            build,
            _zeros_behind(build, spread, axis + 1, dilation - 1),
            (*shape[:axis], taps * dilation, *shape[axis + 1 :]),
        )
        taps = (taps - 1) * dilation + 1
        w = slice_axis(build, spread, axis, 0, taps)
    return _zeros_behind(build, w, axis, -taps % stride)


def _zeros_behind(build: GraphBuilder, x: str, axis: int, count: int) -> str:
    if not count:
        return x
    rank = len(build.shape(x))
    pads = (*(0,) * rank, *(count if place == axis else 0 for place in range(rank)))
    return build.emit("pad", (x,), {"pads": pads, "value": 0.0})


def _phased_weights(build: GraphBuilder, w: str, lines: list[_Line], group: int) -> str:
    """From (in, out of a group, window) to (out and phases, in of a group, taps turned round).

    Dimension by dimension: what is (group, in, out, taps * stride, rest) becomes (group, in * taps, out * stride,
    rest), so that no step moves more than six dimensions.
    """
    inner, outer, *kernel = build.shape(w)
    rows, columns = inner // group, outer
    for place, line in enumerate(lines):
        rest = math.prod(kernel[place + 1 :])
        split = reshape(build, w, (group, rows, columns, line.taps, line.stride, rest))
        if line.taps > 1:
            split = take(build, split, 3, np.arange(line.taps)[::-1])
        w = build.emit("transpose", (split,), {"perm": (0, 1, 3, 2, 4, 5)})
        rows, columns = rows * line.taps, columns * line.stride
    w = build.emit("transpose", (reshape(build, w, (group, rows, columns)),), {"perm": (0, 2, 1)})
    return reshape(build, w, (group * columns, inner // group, *(line.taps for line in lines)))


def _padded_input(build: GraphBuilder, x: str, lines: list[_Line]) -> tuple[str, Window]:
    """The input, without what no kept element sees, and the window that makes the needed places of it."""
    begins, ends = [], []
    for axis, line in enumerate(lines, start=2):
        size = build.shape(x)[axis]
        before, after = line.reach - line.first, line.first + line.places - size
        if size + min(before, 0) + min(after, 0) < 1:
            raise CannotLower("all that its padding leaves of the result is more padding")
        x = slice_axis(build, x, axis, max(-before, 0), size - max(-after, 0))
        begins.append(max(before, 0))
        ends.append(max(after, 0))
    ones = (1,) * len(lines)
    taps, dilation = tuple(line.taps for line in lines), tuple(line.dilation for line in lines)
    return x, Window(taps, ones, dilation, tuple(begins), tuple(ends))


def _in_place(build: GraphBuilder, x: str, lines: list[_Line]) -> str:
    """The phases of all dimensions, which are channels, at their elements; the last two dimensions first."""
    batch, channels, *sizes = build.shape(x)
    outer = batch * channels
    for end in range(len(lines), 0, -2):
        pair = range(max(end - 2, 0), end)
        strides = [lines[place].stride for place in pair]
        outer //= math.prod(strides)
        before, after = math.prod(sizes[: pair.start]), math.prod(sizes[end:])
        if math.prod(strides) > 1:
            places = [sizes[place] for place in pair]
            x = _interleaved(build, reshape(build, x, (outer, *strides, before, *places, after)), len(strides))
            for place in pair:
                sizes[place] *= lines[place].stride
    channels //= math.prod(line.stride for line in lines)
    x = reshape(build, x, (batch, channels, *sizes))
    for axis, line in enumerate(lines, start=2):
        skipped = line.start - line.first * line.stride
        x = slice_axis(build, x, axis, skipped, skipped + line.size)
    return x


def _interleaved(build: GraphBuilder, x: str, count: int) -> str:
    """(outer, strides, before, places, after) with each stride behind its places."""
    order = [0, count + 1]
    for place in range(count):
        order += [count + 2 + place, 1 + place]
    return build.emit("transpose", (x,), {"perm": (*order, 2 * count + 2)})


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("ConvTranspose", _conv_transpose),)
