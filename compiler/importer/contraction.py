"""Lowering of matrix products and convolutions."""

from __future__ import annotations

from typing import Final

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.window import read_window, resolve_pads
from birc.compiler.ir.attributes import AttributeValue
from birc.runtime.errors import BadModelError


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


def _conv(node: OnnxNode, build: GraphBuilder) -> Results:
    """Two spatial dimensions are the core row; one becomes two, of which the first has size 1."""
    x, w, bias = node.input(0), node.input(1), node.optional(2)
    shape, weights = build.shape(x), build.shape(w)
    spatial = len(shape) - 2
    if spatial not in (1, 2):
        raise CannotLower(f"convolution over {spatial} spatial dimensions; 1 and 2 are supported")
    if len(weights) != len(shape):
        raise BadModelError(f"weights of rank {len(weights)} for an input of rank {len(shape)}", where=node.where)
    window = read_window(node, weights[2:])
    begins, ends = resolve_pads(node, window, shape[2:])
    pads, lead = (*begins, *ends), (1,) * (2 - spatial)
    if spatial == 1:
        x = build.emit("reshape", (x,), {"shape": (*shape[:2], 1, *shape[2:])})
        w = build.emit("reshape", (w,), {"shape": (*weights[:2], 1, *weights[2:])})
        pads = (0, begins[0], 0, ends[0])
    attributes: dict[str, AttributeValue] = {
        "stride": lead + window.stride,
        "pads": pads,
        "dilation": lead + window.dilation,
        "group": node.int_attribute("group", 1),
    }
    result = build.emit("conv2d", (x, w, bias) if bias else (x, w), attributes)
    if spatial == 2:
        return result
    made = build.shape(result)
    return build.emit("reshape", (result,), {"shape": (*made[:2], *made[3:])})


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Conv", _conv),
    OpType("Gemm", _gemm),
    OpType("MatMul", _matmul),
)
