"""Lowering of onnxruntime's products of quantised operands whose results, or left operands, are floats."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.contrib_standard import DOMAIN
from birc.compiler.importer.integer_products import Operand, operand, product
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.quantized_products import matrix_product, narrowed, qlinear_conv
from birc.compiler.importer.requantization import along_columns, along_rows, quantized, single
from birc.compiler.importer.term import Term, constant

_LEVELS: Final = 255.0
_LEAST_SCALE: Final = 1.0
"""Of a tensor of zeros alone: any scale does."""


def _matmul_integer_to_float(node: OnnxNode, build: GraphBuilder) -> Results:
    """The product of the numbers that both operands stand for, plus a bias."""
    a, b = build.shape(node.input(0)), build.shape(node.input(1))
    sums = matrix_product(node, build, (0, 1), (4, 5))
    scale = along_rows(node, build, 2, a) * along_columns(node, build, 3, b)
    result = narrowed(sums.to(scale.dtype.name) * scale, len(a), len(b))
    return _biased(node, build, result, 6).name


def _dynamic_quantize_matmul(node: OnnxNode, build: GraphBuilder) -> Results:
    """The left operand is quantised to bytes first, by its own range."""
    x, b = Term(build, node.input(0)), Term(build, node.input(1))
    value, scale, zero = _by_range(x)
    left = operand(value.reshape(1, *x.shape) if len(x.shape) == 1 else value, zero)
    right = operand(b, along_columns(node, build, 3, b.shape) if node.optional(3) else None)
    if len(b.shape) == 1:
        right = Operand(right.value.reshape(*b.shape, 1), right.zero)
    sums = product(left, right).to("f32") * (scale * along_columns(node, build, 2, b.shape))
    return _biased(node, build, narrowed(sums, len(x.shape), len(b.shape)), 4).name


def _by_range(x: Term) -> tuple[Term, Term, Term]:
    """DynamicQuantizeLinear of the standard: bytes, scale and zero point of a tensor whose range includes 0."""
    axes = tuple(range(len(x.shape)))
    least = x.reduce("reduce_min", *axes).at_most(0.0)
    scale = (x.reduce("reduce_max", *axes).at_least(0.0) - least) / _LEVELS
    nothing = constant(x.build, np.array(_LEAST_SCALE, np.float32))
    names = (scale.equals(0.0).name, nothing.name, scale.name)
    scale = Term(x.build, x.build.emit("where", names))
    zero = (-(least / scale)).within(0.0, _LEVELS).row("round").to("u8")
    return quantized(x, scale, zero, zero.dtype), scale, zero


def _qgemm(node: OnnxNode, build: GraphBuilder) -> Results:
    """alpha op(A) op(B) + C, of which C has the scale of the product; floats without a scale for the result."""
    a, b = Term(build, node.input(0)), Term(build, node.input(3))
    a = a.transpose(1, 0) if node.int_attribute("transA", 0) else a
    b = b.transpose(1, 0) if node.int_attribute("transB", 0) else b
    right = operand(b, along_columns(node, build, 5, b.shape))
    sums = product(operand(a, single(node, build, 2)), right)
    if node.optional(6):
        sums = sums + Term(build, node.input(6))
    scale = single(node, build, 1) * along_columns(node, build, 4, b.shape) * node.float_attribute("alpha", 1.0)
    if not node.optional(7):
        return (sums.to("f32") * scale).name
    y_zero = single(node, build, 8)
    return quantized(sums.to("f32") * (scale / single(node, build, 7)), None, y_zero, y_zero.dtype).name


def _qlinear_conv(node: OnnxNode, build: GraphBuilder) -> Results:
    """The standard's, whose image may have its channels last."""
    if not node.int_attribute("channels_last", 0):
        return qlinear_conv(node, build)
    x = Term(build, node.input(0))
    rank = len(x.shape)
    first = x.transpose(0, rank - 1, *range(1, rank - 1))
    made = qlinear_conv(replace(node, inputs=(first.name, *node.inputs[1:])), build)
    return Term(build, made).transpose(0, *range(2, rank), 1).name


def _biased(node: OnnxNode, build: GraphBuilder, x: Term, place: int) -> Term:
    return x + Term(build, node.input(place)) if node.optional(place) else x


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("DynamicQuantizeMatMul", _dynamic_quantize_matmul, domain=DOMAIN),
    OpType("MatMulIntegerToFloat", _matmul_integer_to_float, domain=DOMAIN),
    OpType("QGemm", _qgemm, domain=DOMAIN),
    OpType("QLinearConv", _qlinear_conv, domain=DOMAIN),
)
