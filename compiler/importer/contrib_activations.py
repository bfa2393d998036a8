"""Lowering of onnxruntime's activations: GELUs with a bias before them, or approximated."""

from __future__ import annotations

from typing import Final

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.contrib_standard import DOMAIN
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.term import Term

QUICK_ALPHA: Final = 1.702
"""Hendrycks, Gimpel: Gaussian Error Linear Units: x * sigmoid(1.702 x) is near the GELU."""


def _biased_gelu(approximate: str) -> Lower:
    """The GELU of x, or of x plus a bias."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        x = node.input(0)
        if node.optional(1):
            x = build.emit("add", (x, node.input(1)))
        return build.emit("gelu", (x,), {"approximate": approximate})

    return lower


def _quick_gelu(node: OnnxNode, build: GraphBuilder) -> Results:
    """x * sigmoid(alpha x)"""
    x, alpha = Term(build, node.input(0)), node.float_attribute("alpha", QUICK_ALPHA)
    if alpha == 1.0:
        return x.row("silu").name
    return (x * (x * alpha).row("sigmoid")).name


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("BiasGelu", _biased_gelu("none"), domain=DOMAIN),
    OpType("FastGelu", _biased_gelu("tanh"), domain=DOMAIN),
    OpType("QuickGelu", _quick_gelu, domain=DOMAIN),
)
