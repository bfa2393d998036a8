"""Lowering of matrix products and convolutions of quantised operands: exact sums in INT32, scaled once."""

from __future__ import annotations

from typing import Final

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.integer_products import Operand, convolved, operand, product
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.requantization import along_axis, along_columns, along_rows, requantized, single
from birc.compiler.importer.term import Term
from birc.compiler.importer.window import checked, padded_window
from birc.runtime.errors import BadModelError


def _matmul_integer(node: OnnxNode, build: GraphBuilder) -> Results:
    """numpy's matmul of both operands, each less its zero point."""
    sums = matrix_product(node, build, (0, 1), (2, 3))
    return narrowed(sums, build.rank(node.input(0)), build.rank(node.input(1))).name


def _qlinear_matmul(node: OnnxNode, build: GraphBuilder) -> Results:
    """The product of the numbers that both operands stand for, quantised."""
    a, b = node.input(0), node.input(3)
    sums = matrix_product(node, build, (0, 3), (2, 5))
    of_a = along_rows(node, build, 1, build.shape(a))
    of_y = [along_rows(node, build, place, sums.shape) for place in (6, 7)]
    columns = along_columns(node, build, 4, build.shape(b))
    quantised = requantized(sums, (of_a, columns), *of_y)
    return narrowed(quantised, build.rank(a), build.rank(b)).name


def _conv_integer(node: OnnxNode, build: GraphBuilder) -> Results:
    return convolution_sums(node, build, (0, 1), (2, 3), "").name


def qlinear_conv(node: OnnxNode, build: GraphBuilder) -> str:
    """The convolution of the numbers that both operands stand for; the bias is quantised with the scale of the sums."""
    sums = convolution_sums(node, build, (0, 3), (2, 5), node.optional(8))
    scales = (single(node, build, 1), along_axis(node, build, 4, sums.shape, 1))
    return requantized(sums, scales, single(node, build, 6), single(node, build, 7)).name


def matrix_product(node: OnnxNode, build: GraphBuilder, places: tuple[int, int], zeros: tuple[int, int]) -> Term:
    """The INT32 product of the operands at two places less their zero points at two others.

    A vector is a matrix of one row (left) or one column (right). Raises `CannotLower` for other than 8-bit integers,
    `BadModelError` for zero points that do not fit.
    """
    left, right = (Term(build, node.input(place)) for place in places)
    a = operand(left, along_rows(node, build, zeros[0], left.shape) if node.optional(zeros[0]) else None)
    b = operand(right, along_columns(node, build, zeros[1], right.shape) if node.optional(zeros[1]) else None)
    if len(left.shape) == 1:
        a = Operand(a.value.reshape(1, *left.shape), a.zero)
    if len(right.shape) == 1:
        b = Operand(b.value.reshape(*right.shape, 1), b.zero)
    return product(a, b)


def narrowed(result: Term, rank_a: int, rank_b: int) -> Term:
    """A product without the row or column that stood for a vector."""
    shape = result.shape
    rows, columns = shape[-2:-1] if rank_a > 1 else (), shape[-1:] if rank_b > 1 else ()
    return result.reshape(*shape[:-2], *rows, *columns)


def convolution_sums(
    node: OnnxNode, build: GraphBuilder, places: tuple[int, int], zeros: tuple[int, int], bias: str
) -> Term:
    """The INT32 convolution of the image and the weights at two places less their zero points, plus a bias or "".

    Raises as `matrix_product`.
    """
    x, w = (Term(build, node.input(place)) for place in places)
    if len(w.shape) != len(x.shape) or len(x.shape) < 3:
        raise BadModelError(f"weights {list(w.shape)} for an input {list(x.shape)}", where=node.where)
    window = checked(node, padded_window(node, w.shape[2:], x.shape[2:]), x.shape[2:])
    image = operand(x, single(node, build, zeros[0]) if node.optional(zeros[0]) else None)
    weights = operand(w, along_axis(node, build, zeros[1], w.shape, 0) if node.optional(zeros[1]) else None)
    return convolved(image, weights, bias, window, node.int_attribute("group", 1))


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("ConvInteger", _conv_integer),
    OpType("MatMulInteger", _matmul_integer),
    OpType("QLinearConv", qlinear_conv),
    OpType("QLinearMatMul", _qlinear_matmul),
)
