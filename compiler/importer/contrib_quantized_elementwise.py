"""Lowering of onnxruntime's QLinear operators that are not products: to floats, the operator, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from birc.compiler.importer import pool
from birc.compiler.importer.attention_heads import concatenated
from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.contrib_standard import DOMAIN, as_standard
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.normalization import OP_TYPES as NORMALISATIONS
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.requantization import dequantized, quantized, single
from birc.compiler.importer.term import Term
from birc.runtime.errors import BadModelError

_AVERAGE_POOL: Final = as_standard(pool.OP_TYPES, "AveragePool", 19)
_MAX_POOL: Final = as_standard(pool.OP_TYPES, "MaxPool", 12)
_FIRST_PLAIN_SOFTMAX: Final = 13


def _floats(node: OnnxNode, build: GraphBuilder, place: int) -> Term:
    """The numbers that the input at `place` stands for, by the scale and zero point after it."""
    zero = single(node, build, place + 2) if node.optional(place + 2) else None
    return dequantized(Term(build, node.input(place)), single(node, build, place + 1), zero)


def _again(node: OnnxNode, build: GraphBuilder, x: Term, place: int, like: int = 0) -> Results:
    """`x` as integers of the type of input `like`, by the scale at `place` and the zero point after it."""
    zero = single(node, build, place + 1) if node.optional(place + 1) else None
    return quantized(x, single(node, build, place), zero, build.type_of(node.input(like)).dtype).name


def _of_two(combine: Callable[[Term, Term], Term]) -> Lower:
    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        return _again(node, build, combine(_floats(node, build, 0), _floats(node, build, 3)), 6)

    return lower


def _sigmoid(node: OnnxNode, build: GraphBuilder) -> Results:
    return _again(node, build, _floats(node, build, 0).row("sigmoid"), 3)


def _leaky_relu(node: OnnxNode, build: GraphBuilder) -> Results:
    alpha = node.float_attribute("alpha", 0.01)
    return _again(node, build, _floats(node, build, 0).row("leaky_relu", alpha=alpha), 3)


def _softmax(node: OnnxNode, build: GraphBuilder) -> Results:
    """Over one axis, or over all from it on: as the operator set that the attribute names."""
    version = node.int_attribute("opset", _FIRST_PLAIN_SOFTMAX)
    x = _floats(node, build, 0)
    lower = as_standard(NORMALISATIONS, "Softmax", version)
    return _again(node, build, Term(build, _one(lower(replace(node, inputs=(x.name,)), build))), 3)


def _average_pool(node: OnnxNode, build: GraphBuilder) -> Results:
    x = _channels_first(node, _floats(node, build, 0))
    pooled = Term(build, _one(_AVERAGE_POOL(replace(node, inputs=(x.name,)), build)))
    return _again(node, build, _channels_back(node, pooled), 3)


def _global_average_pool(node: OnnxNode, build: GraphBuilder) -> Results:
    x = _floats(node, build, 0)
    first = 1 if node.int_attribute("channels_last", 0) else 2
    axes = range(first, first + len(x.shape) - 2)
    return _again(node, build, x.reduce("reduce_mean", *axes, keep=True), 3)


def _concat(node: OnnxNode, build: GraphBuilder) -> Results:
    """Each input has its own scale and zero point; the result's come first."""
    if len(node.inputs) < 5 or (len(node.inputs) - 2) % 3:
        raise BadModelError(f"{len(node.inputs)} inputs are no tensors with scales and zero points", where=node.where)
    parts = tuple(_floats(node, build, place) for place in range(2, len(node.inputs), 3))
    axis = positive_axis(node, node.int_attribute("axis", 0), len(parts[0].shape))
    return _again(node, build, concatenated(parts, axis), 0, 2)


def _where(node: OnnxNode, build: GraphBuilder) -> Results:
    chosen, other = _floats(node, build, 1), _floats(node, build, 4)
    return _again(
        node, build, Term(build, build.emit("where", (node.input(0), chosen.name, other.name))), 7, 1
    )  # fmt: skip


def _nhwc_max_pool(node: OnnxNode, build: GraphBuilder) -> Results:
    """The standard's pool of an image with its channels last; its integers are not scaled."""
    x = Term(build, node.input(0))
    rank = len(x.shape)
    turned = x.transpose(0, rank - 1, *range(1, rank - 1))
    pooled = Term(build, _one(_MAX_POOL(replace(node, inputs=(turned.name,)), build)))
    return pooled.transpose(0, *range(2, rank), 1).name


def _channels_first(node: OnnxNode, x: Term) -> Term:
    rank = len(x.shape)
    return x.transpose(0, rank - 1, *range(1, rank - 1)) if node.int_attribute("channels_last", 0) else x


def _channels_back(node: OnnxNode, x: Term) -> Term:
    rank = len(x.shape)
    return x.transpose(0, *range(2, rank), 1) if node.int_attribute("channels_last", 0) else x


def _one(results: Results) -> str:
    return results if isinstance(results, str) else results[0]


OP_TYPES: Final[tuple[OpType, ...]] = tuple(
    OpType(name, lower, domain=DOMAIN)
    for name, lower in (
        ("NhwcMaxPool", _nhwc_max_pool),
        ("QLinearAdd", _of_two(Term.__add__)),
        ("QLinearAveragePool", _average_pool),
        ("QLinearConcat", _concat),
        ("QLinearGlobalAveragePool", _global_average_pool),
        ("QLinearLeakyRelu", _leaky_relu),
        ("QLinearMul", _of_two(Term.__mul__)),
        ("QLinearSigmoid", _sigmoid),
        ("QLinearSoftmax", _softmax),
        ("QLinearWhere", _where),
    )
)
