"""Lowering of products and convolutions that onnxruntime fused with what stands before or after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.contraction import OP_TYPES as CONTRACTIONS
from birc.compiler.importer.contrib_standard import DOMAIN, as_standard
from birc.compiler.importer.convolution import OP_TYPES as CONVOLUTIONS
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.term import Term
from birc.runtime.errors import BadModelError

_MATMUL: Final = as_standard(CONTRACTIONS, "MatMul", 13)
_GEMM: Final = as_standard(CONTRACTIONS, "Gemm", 13)
_CONV: Final = as_standard(CONVOLUTIONS, "Conv", 11)


def _fused_matmul(node: OnnxNode, build: GraphBuilder) -> Results:
    """alpha op(A) op(B)"""
    a, b = (_turned(node, Term(build, node.input(place)), side) for place, side in ((0, "A"), (1, "B")))
    product = _one(_MATMUL(replace(node, inputs=(a.name, b.name)), build))
    alpha = node.float_attribute("alpha", 1.0)
    return product if alpha == 1.0 else (Term(build, product) * alpha).name


def _turned(node: OnnxNode, x: Term, side: str) -> Term:
    """An operand with its last two dimensions swapped (`trans`); before that, with its first one moved before the
    last (`transBatch`). A vector stays as it is.
    """
    rank = len(x.shape)
    order = list(range(rank))
    if node.int_attribute(f"transBatch{side}", 0) and rank > 2:
        order = [*order[1:-1], 0, rank - 1]
    if node.int_attribute(f"trans{side}", 0) and rank > 1:
        order[-2:] = order[:-3:-1]
    return x.transpose(*order)


def _fused_gemm(node: OnnxNode, build: GraphBuilder) -> Results:
    parameters = [node.float_attribute(f"activation_{name}", 0.0) for name in ("alpha", "beta", "gamma")]
    return _activated(node, Term(build, _one(_GEMM(node, build))), parameters).name


def _fused_conv(node: OnnxNode, build: GraphBuilder) -> Results:
    """The activation of the convolution plus, perhaps, a tensor of its shape."""
    product = Term(build, _one(_CONV(replace(node, inputs=node.inputs[:3]), build)))
    if node.optional(3):
        product = product + Term(build, node.input(3))
    parameters = node.attributes.get("activation_params", ())
    if not isinstance(parameters, tuple):
        raise BadModelError("attribute 'activation_params' must be a list of floats", where=node.where)
    return _activated(node, product, [float(value) for value in parameters]).name


def _activated(node: OnnxNode, x: Term, parameters: Sequence[float]) -> Term:
    """What the attribute `activation` names. Raises `CannotLower` for a name that is not known."""
    name = node.string_attribute("activation", "")
    padded = (*parameters, 0.0, 0.0)
    match name:
        case "":
            return x
        case "Relu" | "Sigmoid" | "Tanh":
            return x.row(name.lower())
        case "LeakyRelu":
            return x.row("leaky_relu", alpha=padded[0])
        case "HardSigmoid":
            return x.row("hard_sigmoid", alpha=padded[0], beta=padded[1])
        case "Clip":
            return x.row("clip", minimum=padded[0], maximum=padded[1])
    raise CannotLower(f"activation {name!r} is not known")


def _one(results: Results) -> str:
    return results if isinstance(results, str) else results[0]


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("FusedConv", _fused_conv, domain=DOMAIN),
    OpType("FusedGemm", _fused_gemm, domain=DOMAIN),
    OpType("FusedMatMul", _fused_matmul, domain=DOMAIN),
    OpType("TransposeMatMul", _fused_matmul, domain=DOMAIN),
)
