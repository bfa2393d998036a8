"""Ops that fold a window around each element on the vector cores: pools, depthwise convolution, response norm."""

from __future__ import annotations

import math

import numpy as np

from birc.compiler.ir.attributes import integer, integers, number
from birc.compiler.ir.graph import Node
from birc.compiler.ir.ops.pool import divisors
from birc.compiler.ir.plan import RED, Access, Dimension, Index, View
from birc.compiler.passes.lower.expression import Expression
from birc.compiler.passes.lower.frame import Frame, unit
from birc.compiler.passes.lower.group import GroupLowering
from birc.compiler.passes.lower.macros import power
from birc.compiler.passes.lower.views import channel_view, transpose

CHANNELS_LAST = (0, 2, 3, 1)
WINDOW = ("r", "s")
LOWEST_INTEGER = float(-(1 << 31))


def max_pool2d(lowering: GroupLowering, node: Node) -> Expression:
    """The maximum of each window; positions outside the image never win."""
    window = _window(lowering, node, integers(node.attributes, "dilation"), "lowest")
    return lowering.builder.fold("vfoldmax", window, WINDOW)


def max_pool2d_position(lowering: GroupLowering, node: Node) -> Expression:
    """The least place whose element is not below the maximum of its window: a second walk through the window.

    Places are negated, so that those outside the image, read as the lowest integer, never win.
    """
    window = _window(lowering, node, integers(node.attributes, "dilation"), "lowest")
    b = lowering.builder
    peak = b.fold("vfoldmax", window, WINDOW)
    _, _, height, width = lowering.type_of(node.inputs[0]).sizes
    places = -np.arange(height * width, dtype=np.int32).reshape(1, height, width, 1)
    view = lowering.env.packed_constant(f"places.{height}x{width}", (), places, "i32")
    place = (Index(), *_under(node, integers(node.attributes, "dilation")), Index())
    negated = b.load(Access(view, place, "lowest"), is_float=False)
    below = b.op("vlt", window, peak, is_float=False)
    first = b.fold("vfoldmax", b.op("vsel", below, LOWEST_INTEGER, negated, is_float=False), WINDOW)
    return b.op("vsub", 0.0, first, is_float=False)


def avg_pool2d(lowering: GroupLowering, node: Node) -> Expression:
    """The mean of each window. Where windows reach over the edge, the divisor is a small table."""
    window = _window(lowering, node, integers(node.attributes, "dilation"), "zero")
    total = lowering.builder.fold("vfoldsum", window, WINDOW)
    counts = divisors(lowering.type_of(node.inputs[0]).sizes, node.output.type.sizes, node.attributes)
    with np.errstate(divide="ignore"):
        scale = 1.0 / counts
    if np.all(scale == scale.flat[0]):
        return lowering.builder.op("vmul", total, float(scale.flat[0]))
    table = scale.astype(np.float32)[None, None]
    view = lowering.env.packed_constant(f"{node.name}.divisors", (), table, "f32")
    return lowering.builder.op("vmul", total, lowering.builder.load(lowering.frame.access(view)))


def depthwise_conv2d(lowering: GroupLowering, node: Node) -> Expression:
    """A convolution with one input channel a group: products and sums on the vector cores."""
    _, _, kernel_y, kernel_x = lowering.type_of(node.inputs[1]).sizes
    window = _window(lowering, node, integers(node.attributes, "dilation"), "zero", (kernel_y, kernel_x))
    weights = _depthwise_weights(lowering, node)
    # The register has the axes n, y, x, o: the window dimensions take the places of y and x with extent 1.
    tap = View(weights.buffer, weights.offset, (1, *weights.dims), (0, *weights.strides))
    access = Access(tap, (Index(), unit("r"), unit("s"), unit("d1")))
    b = lowering.builder
    is_float = window.is_float
    product = b.op("vmul", window, b.load(access, is_float), is_float=is_float)
    total = b.fold("vfoldsum", product, WINDOW)
    lowering.macs = math.prod(node.output.type.sizes) * kernel_y * kernel_x
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = lowering.frame.access(channel_view(lowering.view(node.inputs[2]), 4))
        total = b.op("vadd", total, b.load(bias, is_float), is_float=is_float)
    return total


def _depthwise_weights(lowering: GroupLowering, node: Node) -> View:
    """The weights [channel, 1, row, column] seen as [row, column, channel], dense when constant."""
    outer = lowering.outer[node.inputs[1]]
    constant = lowering.env.graph.constants.get(outer)
    if constant is not None:
        data = np.asarray(constant.data)[:, 0].transpose(1, 2, 0)
        return lowering.env.packed_constant(outer, ("depthwise",), data, lowering.env.storage(constant.type))
    view = lowering.view(node.inputs[1])
    channel, _, row, column = range(4)
    order = (row, column, channel)
    return View(view.buffer, view.offset, tuple(view.dims[i] for i in order), tuple(view.strides[i] for i in order))


def lrn(lowering: GroupLowering, node: Node) -> Expression:
    """Local response normalisation over a window of channels."""
    size = integer(node.attributes, "size")
    alpha, beta, k = (number(node.attributes, name) for name in ("alpha", "beta", "k"))
    lowering.frame = Frame.of(node.output.type.sizes, CHANNELS_LAST)
    lowering.red_dims = (Dimension("r", size, RED),)
    view = lowering.frame.view(lowering.view(node.inputs[0]))
    channel = Index((("d1", 1), ("r", 1)), -((size - 1) // 2))
    neighbour = lowering.builder.load(Access(view, (unit("d0"), unit("d2"), unit("d3"), channel)))
    squares = lowering.builder.fold("vfoldsum", lowering.builder.op("vmul", neighbour, neighbour), ("r",))
    scale = power(lowering.builder, lowering.builder.op("vfma", squares, alpha / size, k), -beta)
    return lowering.builder.op("vmul", lowering.expression(node.inputs[0]), scale)


def _window(
    lowering: GroupLowering,
    node: Node,
    dilation: tuple[int, ...],
    fill: str,
    kernel: tuple[int, ...] = (),
) -> Expression:
    """The input under the window, at every output element; sets the frame (channels last) and the window loops."""
    kernel = kernel or integers(node.attributes, "kernel")
    lowering.frame = Frame.of(node.output.type.sizes, CHANNELS_LAST)
    lowering.red_dims = (Dimension("r", kernel[0], RED), Dimension("s", kernel[1], RED))
    view = transpose(lowering.view(node.inputs[0]), CHANNELS_LAST)
    index = (unit("d0"), *_under(node, dilation), unit("d1"))
    is_float = lowering.type_of(node.inputs[0]).dtype.is_float
    return lowering.builder.load(Access(view, index, fill), is_float)


def _under(node: Node, dilation: tuple[int, ...]) -> tuple[Index, Index]:
    """The row and the column of the image that an output element sees at one place of its window."""
    stride, pads = integers(node.attributes, "stride"), integers(node.attributes, "pads")
    return (
        Index((("d2", stride[0]), ("r", dilation[0])), -pads[0]),
        Index((("d3", stride[1]), ("s", dilation[1])), -pads[1]),
    )
