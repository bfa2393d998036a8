"""Ops that reduce whole dimensions on the vector cores: softmax, layer norm, sums and means."""

from __future__ import annotations

import math

from birc.compiler.ir.attributes import integer, integers, number
from birc.compiler.ir.graph import Node
from birc.compiler.passes.lower.expression import Expression
from birc.compiler.passes.lower.frame import Frame
from birc.compiler.passes.lower.group import GroupLowering
from birc.compiler.passes.lower.macros import exp, log

REDUCTIONS = {
    "reduce_sum": "vredsum",
    "reduce_mean": "vredsum",
    "reduce_max": "vredmax",
    "reduce_min": "vredmin",
    "reduce_prod": "vredprod",
}


def softmax(lowering: GroupLowering, node: Node) -> Expression:
    """exp(x - max) / sum, along one axis."""
    shifted, dims = _shifted(lowering, node)
    powers = exp(lowering.builder, shifted)
    total = lowering.builder.reduce("vredsum", powers, dims)
    return lowering.builder.op("vmul", powers, lowering.builder.op("vrcp", total))


def log_softmax(lowering: GroupLowering, node: Node) -> Expression:
    """x - max - log(sum(exp(x - max))), along one axis."""
    shifted, dims = _shifted(lowering, node)
    total = lowering.builder.reduce("vredsum", exp(lowering.builder, shifted), dims)
    return lowering.builder.op("vsub", shifted, log(lowering.builder, total))


def layer_norm(lowering: GroupLowering, node: Node) -> Expression:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the axes from `axis` on."""
    b = lowering.builder
    x = lowering.expression(node.inputs[0])
    dims, count = _from_axis(lowering, node)
    centred = b.op("vsub", x, b.op("vmul", b.reduce("vredsum", x, dims), 1.0 / count))
    variance = b.reduce("vredsum", b.op("vmul", centred, centred), dims)
    factor = b.op("vrsqrt", b.op("vfma", variance, 1.0 / count, number(node.attributes, "epsilon")))
    return _scaled(lowering, node, b.op("vmul", centred, factor))


def rms_norm(lowering: GroupLowering, node: Node) -> Expression:
    """x / sqrt(mean(x^2) + epsilon) * scale over the axes from `axis` on."""
    b = lowering.builder
    x = lowering.expression(node.inputs[0])
    dims, count = _from_axis(lowering, node)
    squares = b.reduce("vredsum", b.op("vmul", x, x), dims)
    factor = b.op("vrsqrt", b.op("vfma", squares, 1.0 / count, number(node.attributes, "epsilon")))
    return _scaled(lowering, node, b.op("vmul", x, factor))


def reduction(lowering: GroupLowering, node: Node) -> Expression:
    """A sum, mean, maximum, minimum or product over axes; the space is that of the input."""
    axes = integers(node.attributes, "axes")
    dims = tuple(lowering.frame.name_of_axis(axis) for axis in axes)
    x = lowering.expression(node.inputs[0])
    result = lowering.builder.reduce(REDUCTIONS[node.op], x, dims) if dims else x
    if node.op == "reduce_mean":
        shape = lowering.type_of(node.inputs[0]).sizes
        result = lowering.builder.op("vmul", result, 1.0 / math.prod(shape[axis] for axis in axes))
    return result


def kept_frame(frame: Frame, axes: tuple[int, ...]) -> Frame:
    """The frame of the result of a reduction that keeps its axes with extent 1."""
    shape = tuple(1 if axis in axes else extent for axis, extent in enumerate(frame.shape))
    return Frame(shape, tuple((extent,) for extent in shape), frame.order, frame.names)


def _shifted(lowering: GroupLowering, node: Node) -> tuple[Expression, tuple[str, ...]]:
    x = lowering.expression(node.inputs[0])
    dims = (lowering.frame.name_of_axis(integer(node.attributes, "axis")),)
    return lowering.builder.op("vsub", x, lowering.builder.reduce("vredmax", x, dims)), dims


def _from_axis(lowering: GroupLowering, node: Node) -> tuple[tuple[str, ...], int]:
    axis = integer(node.attributes, "axis")
    shape = lowering.type_of(node.inputs[0]).sizes
    dims = tuple(lowering.frame.name_of_axis(i) for i in range(axis % len(shape), len(shape)))
    return dims, math.prod(shape[axis % len(shape) :])


def _scaled(lowering: GroupLowering, node: Node, value: Expression) -> Expression:
    """value * scale + bias, where the optional operands are given."""
    result = value
    if len(node.inputs) > 1 and node.inputs[1]:
        result = lowering.builder.op("vmul", result, lowering.operand(node.inputs[1]))
    if len(node.inputs) > 2 and node.inputs[2]:
        result = lowering.builder.op("vadd", result, lowering.operand(node.inputs[2]))
    return result
