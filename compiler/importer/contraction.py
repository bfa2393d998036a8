"""Lowering of matrix products."""

from __future__ import annotations

import math
from typing import Final

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode

NARROW_BITS: Final = 8
"""Integers of so many bits are multiplied by the T-core."""
MOST_WIDE_PRODUCTS: Final = 1 << 24


def _matmul(node: OnnxNode, build: GraphBuilder) -> Results:
    """numpy's matmul; a vector is a matrix of one row (left) or one column (right) for the time of the
    product.
    """
    a, b = node.input(0), node.input(1)
    rank_a, rank_b = build.rank(a), build.rank(b)
    if rank_a == 1:
        a = build.emit("reshape", (a,), {"shape": (1, *build.shape(a))})
    if rank_b == 1:
        b = build.emit("reshape", (b,), {"shape": (*build.shape(b), 1)})
    product = _product(build, a, b)
    if rank_a > 1 and rank_b > 1:
        return product
    shape = build.shape(product)
    rows = () if rank_a == 1 else shape[-2:-1]
    columns = () if rank_b == 1 else shape[-1:]
    return build.emit("reshape", (product,), {"shape": (*shape[:-2], *rows, *columns)})


def _gemm(node: OnnxNode, build: GraphBuilder) -> Results:
    """alpha op(A) op(B) + beta C"""
    a, b, c = node.input(0), node.input(1), node.optional(2)
    if node.int_attribute("transA", 0):
        a = build.emit("transpose", (a,), {"perm": (1, 0)})
    if node.int_attribute("transB", 0):
        b = build.emit("transpose", (b,), {"perm": (1, 0)})
    product = _scaled(build, _product(build, a, b), node.float_attribute("alpha", 1.0))
    if not c:
        return product
    return build.emit("add", (product, _scaled(build, c, node.float_attribute("beta", 1.0))))


def _product(build: GraphBuilder, a: str, b: str) -> str:
    """The product; integers are multiplied on the vector cores, which is for small ones."""
    dtype = build.type_of(a).dtype
    product = build.emit("matmul", (a, b))
    if dtype.is_integer and dtype.bits > NARROW_BITS:
        count = math.prod(build.shape(product)) * build.shape(a)[-1]
        if count > MOST_WIDE_PRODUCTS:
            raise CannotLower(f"multiplies {count} pairs of {dtype.name}, the vector cores take {MOST_WIDE_PRODUCTS}")
    return product


def _scaled(build: GraphBuilder, x: str, factor: float) -> str:
    if factor == 1.0:
        return x
    dtype = build.type_of(x).dtype
    if dtype.is_integer and not factor.is_integer():
        raise CannotLower(f"scales {dtype.name} by {factor}, which is no whole number")
    return build.emit("mul", (x, build.scalar(factor, x)))


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Gemm", _gemm),
    OpType("MatMul", _matmul),
)
