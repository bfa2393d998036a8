"""Rules that move constant factors and terms per channel into the convolution before them."""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.ir.graph import Constant, Node
from birc.compiler.passes.constant_values import scaled_channels, uniform_or_dense
from birc.compiler.passes.rules import Rewriter, Rule

_CHANNEL_AXIS: Final = 1  # of the logical NCHW tensors that convolutions make


def _convolution_and_channels(rewriter: Rewriter, node: Node) -> tuple[Node, np.ndarray] | None:
    """The convolution among the operands, read by nobody else, and the other operand as one number per
    channel.
    """
    for value, other in (node.inputs, reversed(node.inputs)):
        conv, constant = rewriter.producer(value, "conv2d"), rewriter.constant(other)
        if conv is None or constant is None or not rewriter.has_one_use(conv.name):
            continue
        shape = (1,) * (conv.output.type.rank - constant.data.ndim) + constant.data.shape
        channels = conv.output.type.sizes[_CHANNEL_AXIS]
        per_channel = all(size == 1 or axis == _CHANNEL_AXIS for axis, size in enumerate(shape))
        if per_channel and node.output.type.logical == conv.output.type.logical:
            return conv, np.broadcast_to(constant.data.reshape(-1), (channels,))
    return None


def _bias(rewriter: Rewriter, conv: Node) -> Constant | None:
    """The bias of a convolution: zeros when it has none, None when it is computed."""
    if len(conv.present_inputs) > 2:
        return rewriter.constant(conv.inputs[2])
    return Constant.splat(0, conv.output.type.with_shape(conv.output.type.shape[1:2]))


def term_into_bias(rewriter: Rewriter, node: Node) -> str | None:
    """conv2d(x, w, b) + c = conv2d(x, w, b + c)"""
    found = _convolution_and_channels(rewriter, node)
    bias = _bias(rewriter, found[0]) if found else None
    if found is None or bias is None:
        return None
    conv, term = found
    merged = rewriter.add_constant(uniform_or_dense(bias.data + term), f"{node.name}.bias")
    return rewriter.emit("conv2d", (*conv.inputs[:2], merged), conv.attributes, replaces=(node, conv))


def factor_into_weights(rewriter: Rewriter, node: Node) -> str | None:
    """conv2d(x, w, b) * c = conv2d(x, w * c, b * c)"""
    found = _convolution_and_channels(rewriter, node)
    if found is None:
        return None
    conv, factor = found
    weights, bias = rewriter.constant(conv.inputs[1]), _bias(rewriter, conv)
    if weights is None or bias is None:
        return None
    scaled = scaled_channels(weights, factor.astype(np.float64))
    inputs = [conv.inputs[0], rewriter.add_constant(scaled, f"{conv.inputs[1]}.scaled")]
    if len(conv.present_inputs) > 2:
        inputs.append(rewriter.add_constant(uniform_or_dense(bias.data * factor), f"{node.name}.bias"))
    return rewriter.emit("conv2d", inputs, conv.attributes, replaces=(node, conv))


RULES: Final[tuple[Rule, ...]] = (
    Rule("term-into-convolution-bias", "add", term_into_bias),
    Rule("factor-into-convolution-weights", "mul", factor_into_weights),
)
