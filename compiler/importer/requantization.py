"""Scales and zero points as operators of quantised tensors take them, and sums of integers quantised with them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.term import Term, constant
from birc.runtime.dtypes import DType
from birc.runtime.errors import BadModelError

Sizes = tuple[int, ...]


def single(node: OnnxNode, build: GraphBuilder, place: int) -> Term:
    """The one scale or zero point for a whole tensor, of rank 0. Raises `BadModelError` when there are several."""
    found = Term(build, node.input(place))
    if math.prod(found.shape) != 1:
        raise _misfit(node, place, found.shape, "a whole tensor")
    return found.reshape()


def along_rows(node: OnnxNode, build: GraphBuilder, place: int, matrix: Sizes) -> Term:
    """One scale or zero point for a matrix or for each of its rows, as it broadcasts over the matrix."""
    found = Term(build, node.input(place))
    if math.prod(found.shape) == 1:
        return found.reshape()
    if len(matrix) > 1 and found.shape == matrix[-2:-1]:
        return found.reshape(*found.shape, 1)
    if found.shape != (*matrix[:-1], 1):
        raise _misfit(node, place, found.shape, f"the rows of {list(matrix)}")
    return found


def along_columns(node: OnnxNode, build: GraphBuilder, place: int, matrix: Sizes) -> Term:
    """One scale or zero point for a matrix or for each of its columns, as it broadcasts over the matrix."""
    found = Term(build, node.input(place))
    if math.prod(found.shape) == 1:
        return found.reshape()
    if len(matrix) < 2 or found.shape not in (matrix[-1:], (*matrix[:-2], 1, matrix[-1])):
        raise _misfit(node, place, found.shape, f"the columns of {list(matrix)}")
    return found


def along_axis(node: OnnxNode, build: GraphBuilder, place: int, shape: Sizes, axis: int) -> Term:
    """One scale or zero point for a tensor or for each position of an axis, as it broadcasts over the tensor."""
    found = Term(build, node.input(place))
    if math.prod(found.shape) == 1:
        return found.reshape()
    if found.shape != (shape[axis],):
        raise _misfit(node, place, found.shape, f"axis {axis} of {list(shape)}")
    return found.reshape(*(size if at == axis else 1 for at, size in enumerate(shape)))


def _misfit(node: OnnxNode, place: int, shape: Sizes, what: str) -> BadModelError:
    return BadModelError(
        f"input {place} of {node.op_type} is {list(shape)}, which does not fit {what}", where=node.where
    )


def requantized(sums: Term, scales: Sequence[Term], y_scale: Term, y_zero: Term) -> Term:
    """INT32 sums, whose unit is the product of `scales`, as integers of the scale and zero point of a result."""
    factor = scales[0].to("f32")
    for scale in scales[1:]:
        factor = factor * scale.to("f32")
    return quantized(sums.to("f32") * (factor / y_scale.to("f32")), None, y_zero, y_zero.dtype)


def quantized(x: Term, scale: Term | None, zero: Term | None, to: DType) -> Term:
    """x / scale + zero point, rounded to nearest even, saturated to the integers of `to`."""
    unit = scale if scale is not None else constant(x.build, np.ones((), x.dtype.numpy))
    inputs = (x.name, unit.name) if zero is None else (x.name, unit.name, zero.name)
    return Term(x.build, x.build.emit("quantize", inputs, {"to": to}))


def dequantized(x: Term, scale: Term, zero: Term | None) -> Term:
    """(x - zero point) * scale, in the type of the scale."""
    inputs = (x.name, scale.name) if zero is None else (x.name, scale.name, zero.name)
    return Term(x.build, x.build.emit("dequantize", inputs))
