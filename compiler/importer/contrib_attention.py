"""Lowering of onnxruntime's Attention: one input projected to queries, keys and values, of floats or quantised."""

from __future__ import annotations

import math
from typing import Final

from birc.compiler.importer.attention_heads import (
    attended,
    concatenated,
    joined_heads,
    padding_mask,
    split_heads,
    times,
    with_causal_mask,
)
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.contrib_standard import DOMAIN
from birc.compiler.importer.integer_products import operand, product
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.requantization import along_columns, single
from birc.compiler.importer.term import Term, stacked
from birc.runtime.errors import BadModelError

MASKED: Final = -10_000.0
"""What is added to the score of a padded key, unless `mask_filter_value` says otherwise."""


def _attention(node: OnnxNode, build: GraphBuilder) -> Results:
    projected = times(Term(build, node.input(0)), Term(build, node.input(1)))
    if node.optional(2):
        projected = projected + Term(build, node.input(2))
    return _self_attention(node, build, projected, (node.optional(3), node.optional(4), node.optional(5)))


def _quantised_attention(node: OnnxNode, build: GraphBuilder) -> Results:
    """The projection is a product of integers; what follows is of floats."""
    x, weights = Term(build, node.input(0)), Term(build, node.input(1))
    a = operand(x, single(node, build, 6) if node.optional(6) else None)
    b = operand(weights, along_columns(node, build, 7, weights.shape) if node.optional(7) else None)
    scale = single(node, build, 3) * along_columns(node, build, 4, weights.shape)
    projected = product(a, b).to("f32") * scale + Term(build, node.input(2))
    return _self_attention(node, build, projected, (node.optional(5), node.optional(8), ""))


def _self_attention(node: OnnxNode, build: GraphBuilder, projected: Term, others: tuple[str, str, str]) -> Results:
    """Attention of projected tokens, and keys and values with those of the past before them.

    `others` are the mask, the past and what is added to the scores; each may be "".
    """
    for name in ("do_rotary", "past_present_share_buffer"):
        if node.int_attribute(name, 0):
            raise CannotLower(f"attribute {name} is set")
    mask, past, bias = others
    heads = node.int_attribute("num_heads", 0)
    q, k, v = (split_heads(node, part, heads) for part in _parts(node, projected))
    if past:
        before = Term(build, past)
        k, v = (concatenated((before.at(0, place), part), 2) for place, part in ((0, k), (1, v)))
    batch, _, tokens, size = q.shape
    total = k.shape[2]
    added = None
    if mask:
        masked = node.float_attribute("mask_filter_value", MASKED)
        added = padding_mask(Term(build, mask), (batch, tokens, total), q.dtype.name, masked)
    if node.int_attribute("unidirectional", 0):
        added = with_causal_mask(added, q, total)
    terms = [each for each in (added, Term(build, bias) if bias else None) if each is not None]
    scale = node.float_attribute("scale", 0.0) or 1.0 / math.sqrt(size)
    result = joined_heads(attended(q, k, v, scale, tuple(terms))).name
    if not node.uses_output(1):
        return result
    if k.shape != v.shape:
        raise CannotLower(f"the present holds keys {list(k.shape)} and values {list(v.shape)}")
    return result, stacked((k, v), 0).name


def _parts(node: OnnxNode, projected: Term) -> tuple[Term, Term, Term]:
    """Queries, keys and values, (batch, token, all heads) each."""
    hidden = projected.shape[2]
    sizes = node.ints_attribute("qkv_hidden_sizes", (hidden // 3,) * 3)
    if len(sizes) != 3 or sum(sizes) != hidden or sizes[0] != sizes[1]:
        raise BadModelError(f"{hidden} projected elements do not make {list(sizes)}", where=node.where)
    first, second = sizes[0], sizes[0] + sizes[1]
    return projected.part(2, 0, first), projected.part(2, first, second), projected.part(2, second, hidden)


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Attention", _attention, domain=DOMAIN),
    OpType("QAttention", _quantised_attention, domain=DOMAIN),
)
