"""Lowering of matrix products."""

from __future__ import annotations

from typing import Final

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode


def _matmul(node: OnnxNode, build: GraphBuilder) -> Results:
    """numpy's matmul; a vector is a matrix of one row (left) or one column (right) for the time of the
    product.
    """
    a, b = node.input(0), node.input(1)
    shape_a, shape_b = build.shape(a), build.shape(b)
    if len(shape_a) == 1:
        a = build.emit("reshape", (a,), {"shape": (1, *shape_a)})
    if len(shape_b) == 1:
        b = build.emit("reshape", (b,), {"shape": (*shape_b, 1)})
    product = build.emit("matmul", (a, b))
    if len(shape_a) > 1 and len(shape_b) > 1:
        return product
    shape = build.shape(product)
    rows = () if len(shape_a) == 1 else shape[-2:-1]
    columns = () if len(shape_b) == 1 else shape[-1:]
    return build.emit("reshape", (product,), {"shape": (*shape[:-2], *rows, *columns)})


def _gemm(node: OnnxNode, build: GraphBuilder) -> Results:
    """alpha op(A) op(B) + beta C"""
    a, b, c = node.input(0), node.input(1), node.optional(2)
    if node.int_attribute("transA", 0):
        a = build.emit("transpose", (a,), {"perm": (1, 0)})
    if node.int_attribute("transB", 0):
        b = build.emit("transpose", (b,), {"perm": (1, 0)})
    product = _scaled(build, build.emit("matmul", (a, b)), node.float_attribute("alpha", 1.0))
    if not c:
        return product
    return build.emit("add", (product, _scaled(build, c, node.float_attribute("beta", 1.0))))


def _scaled(build: GraphBuilder, x: str, factor: float) -> str:
    return x if factor == 1.0 else build.emit("mul", (x, build.scalar(factor, x)))


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Gemm", _gemm),
    OpType("MatMul", _matmul),
)
