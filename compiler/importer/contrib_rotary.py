"""Lowering of onnxruntime's RotaryEmbedding, of which the one in the standard came (rotary.py)."""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.contrib_standard import DOMAIN
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.rotary import rotated
from birc.compiler.importer.term import Term, constant
from birc.runtime.errors import BadModelError


def _rotary_embedding(node: OnnxNode, build: GraphBuilder) -> Results:
    """Of (batch, token, all heads) or (batch, head, token, element); one position is that of the first token."""
    x, cosines, sines = (Term(build, node.input(place)) for place in (0, 2, 3))
    if node.int_attribute("is_packed_batching", 0):
        raise CannotLower("sequences of a batch lie packed one after the other")
    if node.float_attribute("scale", 1.0) != 1.0:
        raise CannotLower("scales what it rotates")
    heads = x if len(x.shape) == 4 else _heads(node, x, cosines)
    batch, _, tokens, size = heads.shape
    if sines.shape != cosines.shape or 2 * cosines.shape[1] > size:
        raise BadModelError(f"tables of {cosines.shape[1]} pairs for heads of {size} elements", where=node.where)
    positions = Term(build, node.input(1))
    if positions.shape != (batch, tokens):
        first = positions.to("i32").reshape(1, 1)
        positions = first + constant(build, np.arange(tokens, dtype=np.int32).reshape(1, tokens))
    is_interleaved = bool(node.int_attribute("interleaved", 0))
    result = rotated(heads, positions, cosines, sines, is_interleaved=is_interleaved)
    return (result if len(x.shape) == 4 else result.transpose(0, 2, 1, 3).reshape(*x.shape)).name


def _heads(node: OnnxNode, x: Term, cosines: Term) -> Term:
    batch, tokens, hidden = x.shape
    if node.int_attribute("rotary_embedding_dim", 0):
        size = hidden // max(node.int_attribute("num_heads", 0), 1)
    else:
        size = 2 * cosines.shape[1]
    if size < 1 or hidden % size:
        raise BadModelError(f"{hidden} elements a token do not make heads of {size}", where=node.where)
    return x.reshape(batch, tokens, hidden // size, size).transpose(0, 2, 1, 3)


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("RotaryEmbedding", _rotary_embedding, domain=DOMAIN),)
