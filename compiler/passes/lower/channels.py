"""Ops with one set of parameters a channel: batch norm whose parameters are not constants."""

from __future__ import annotations

from birc.compiler.ir.attributes import number
from birc.compiler.ir.graph import Node
from birc.compiler.passes.lower.expression import Expression
from birc.compiler.passes.lower.group import GroupLowering
from birc.compiler.passes.lower.views import channel_view


def batch_norm(lowering: GroupLowering, node: Node) -> Expression:
    """(x - mean) * (scale / sqrt(variance + epsilon)) + bias"""
    b = lowering.builder
    rank = len(node.output.type.sizes)
    scale, bias, mean, variance = (
        b.load(lowering.frame.access(channel_view(lowering.view(name), rank))) for name in node.inputs[1:]
    )
    factor = b.op("vmul", scale, b.op("vrsqrt", b.op("vadd", variance, number(node.attributes, "epsilon"))))
    return b.op("vfma", b.op("vsub", lowering.expression(node.inputs[0]), mean), factor, bias)
