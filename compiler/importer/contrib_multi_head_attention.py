"""Lowering of onnxruntime's MultiHeadAttention: queries, keys and values come projected, apart or packed."""

from __future__ import annotations

import math
from typing import Final

from birc.compiler.importer.attention_heads import (
    attended,
    concatenated,
    joined_heads,
    padding_mask,
    split_heads,
    with_causal_mask,
)
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.contrib_attention import MASKED
from birc.compiler.importer.contrib_standard import DOMAIN
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.term import Term
from birc.runtime.errors import BadModelError


def _multi_head_attention(node: OnnxNode, build: GraphBuilder) -> Results:
    if node.optional(8) or node.optional(9):
        raise CannotLower("the past lies in a buffer that it shares with the present")
    if node.uses_output(3):
        raise CannotLower("its scores are asked for")
    q, k, v = _heads(node, build)
    if node.optional(6) and node.optional(7):
        k = concatenated((Term(build, node.input(6)), k), 2)
        v = concatenated((Term(build, node.input(7)), v), 2)
    batch, _, tokens, size = q.shape
    total = k.shape[2]
    added = None
    if node.optional(4):
        masked = node.float_attribute("mask_filter_value", MASKED)
        added = padding_mask(Term(build, node.input(4)), (batch, tokens, total), q.dtype.name, masked)
    if node.int_attribute("unidirectional", 0):
        added = with_causal_mask(added, q, total)
    bias = Term(build, node.input(5)) if node.optional(5) else None
    terms = tuple(each for each in (added, bias) if each is not None)
    scale = node.float_attribute("scale", 0.0) or 1.0 / math.sqrt(size)
    result = joined_heads(attended(q, k, v, scale, terms)).name
    present = (k.name if node.uses_output(1) else "", v.name if node.uses_output(2) else "")
    return (result, *present)[: len(node.outputs)]


def _heads(node: OnnxNode, build: GraphBuilder) -> tuple[Term, Term, Term]:
    """Queries, keys and values, (batch, head, token, element) each, plus their part of the bias."""
    heads = node.int_attribute("num_heads", 0)
    query = Term(build, node.input(0))
    bias = Term(build, node.input(3)) if node.optional(3) else None
    if len(query.shape) == 5:
        parts = [_unpacked(query, place) for place in range(3)]
    elif not node.optional(1):
        raise CannotLower("queries without keys")
    else:
        key = Term(build, node.input(1))
        if len(key.shape) == 5:
            parts = [query, _unpacked(key, 0), _unpacked(key, 1)]
        else:
            parts = [query, key, Term(build, node.input(2))]
    flat = [part if len(part.shape) == 4 else _biased(node, part, bias, place) for place, part in enumerate(parts)]
    q, k, v = (part if len(part.shape) == 4 else split_heads(node, part, heads) for part in flat)
    return q, k, v


def _unpacked(x: Term, place: int) -> Term:
    """One of what is packed for each head: (batch, token, head, packed, element) to (batch, token, all heads)."""
    part = x.at(3, place)
    batch, tokens, heads, size = part.shape
    return part.reshape(batch, tokens, heads * size)


def _biased(node: OnnxNode, x: Term, bias: Term | None, place: int) -> Term:
    """Queries, keys or values (by `place`) plus their part of the bias, whose first two parts are equally long."""
    if bias is None:
        return x
    hidden, whole = x.shape[2], bias.shape[0]
    start = whole - hidden if place == 2 else place * hidden
    if start < 0 or start + hidden > whole:
        raise BadModelError(f"a bias of {whole} for {hidden} elements a token", where=node.where)
    return x + bias.part(0, start, start + hidden)


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("MultiHeadAttention", _multi_head_attention, domain=DOMAIN),)
