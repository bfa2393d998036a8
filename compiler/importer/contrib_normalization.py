"""Lowering of onnxruntime's layer normalisations: without a mean, of a sum, of embeddings."""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import named_type
from birc.compiler.importer.contrib_standard import DOMAIN
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.term import Term, constant
from birc.runtime.errors import BadModelError

SKIP_EPSILON: Final = 1e-12
"""Of the normalisations of a sum and of embeddings; source: onnxruntime's operator schemas."""


def _simplified(node: OnnxNode, build: GraphBuilder) -> Results:
    """x over the root of its mean square, times a scale; the inverse root too, when it is asked for."""
    x, scale = Term(build, node.input(0)), Term(build, node.input(1))
    axis, epsilon = positive_axis(node, node.int_attribute("axis", -1), len(x.shape)), _epsilon(node, 1e-5)
    if scale.shape != x.shape[axis:]:
        raise BadModelError(f"a scale {list(scale.shape)} for {list(x.shape)} from axis {axis}", where=node.where)
    wide = x.to("f32")
    result = _rms_norm(wide, scale.to("f32"), axis, epsilon).to(scale.dtype.name).name
    if not node.uses_output(1):
        return result
    stash = named_type(node.int_attribute("stash_type", 1))
    mean = (wide * wide).reduce("reduce_mean", *range(axis, len(x.shape)), keep=True)
    return result, (mean + epsilon).row("rsqrt").to(stash.name).name


def _skip(*, has_mean: bool) -> Lower:
    """The normalisation of input + skip + bias over the last dimension, and that sum itself as result 3."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        if node.uses_output(1) or node.uses_output(2):
            raise CannotLower("its statistics are for training")
        x = Term(build, node.input(0))
        total = x.to("f32") + Term(build, node.input(1)).to("f32")
        bias = node.optional(4 if has_mean else 3)
        if bias:
            total = total + Term(build, bias).to("f32")
        gamma, axis = Term(build, node.input(2)).to("f32"), len(x.shape) - 1
        epsilon = _epsilon(node, SKIP_EPSILON)
        if has_mean:
            beta = Term(build, node.input(3)).to("f32") if node.optional(3) else None
            normal = _layer_norm(total, gamma, beta, axis, epsilon)
        else:
            normal = _rms_norm(total, gamma, axis, epsilon)
        results = (normal.to(x.dtype.name).name, "", "", total.to(x.dtype.name).name)
        return results[: len(node.outputs)]

    return lower


def _embed(node: OnnxNode, build: GraphBuilder) -> Results:
    """The normalised sum of the embeddings of words, positions and segments; how long each sequence is; the sum."""
    ids = Term(build, node.input(0))
    total = Term(build, node.input(2)).gather(ids) + _positions(node, build, ids)
    if node.optional(1) and node.optional(4):
        total = total + Term(build, node.input(4)).gather(Term(build, node.input(1)))
    normal = _layer_norm(total, Term(build, node.input(5)), Term(build, node.input(6)), 2, _epsilon(node, SKIP_EPSILON))
    results = [normal.name]
    if node.uses_output(1):
        results.append(_lengths(node, build, ids).name)
    elif len(node.outputs) > 1:
        results.append("")
    if node.uses_output(2):
        results.append(total.name)
    return tuple(results)


def _positions(node: OnnxNode, build: GraphBuilder, ids: Term) -> Term:
    """The embedding of each token's position, which is its place in the sequence unless told."""
    table = Term(build, node.input(3))
    if node.optional(8):
        return table.gather(Term(build, node.input(8)))
    count = ids.shape[1]
    if count > table.shape[0]:
        raise BadModelError(f"{count} positions, embeddings of {table.shape[0]}", where=node.where)
    return table.part(0, 0, count)


def _lengths(node: OnnxNode, build: GraphBuilder, ids: Term) -> Term:
    """How many tokens of each sequence the mask marks with 1; 0 without a mask."""
    if not node.optional(7):
        return constant(build, np.zeros(ids.shape[0], np.int32))
    return Term(build, node.input(7)).equals(1).to("i32").reduce("reduce_sum", 1)


def _layer_norm(x: Term, scale: Term, bias: Term | None, axis: int, epsilon: float) -> Term:
    inputs = (x.name, scale.name, bias.name) if bias is not None else (x.name, scale.name)
    return Term(x.build, x.build.emit("layer_norm", inputs, {"axis": axis, "epsilon": epsilon}))


def _rms_norm(x: Term, scale: Term, axis: int, epsilon: float) -> Term:
    return Term(x.build, x.build.emit("rms_norm", (x.name, scale.name), {"axis": axis, "epsilon": epsilon}))


def _epsilon(node: OnnxNode, default: float) -> float:
    return node.float_attribute("epsilon", default)


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("SimplifiedLayerNormalization", _simplified, is_extension=True),
    OpType("EmbedLayerNormalization", _embed, domain=DOMAIN),
    OpType("SkipLayerNormalization", _skip(has_mean=True), domain=DOMAIN),
    OpType("SkipSimplifiedLayerNormalization", _skip(has_mean=False), domain=DOMAIN),
)
