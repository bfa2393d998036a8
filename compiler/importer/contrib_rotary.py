"""Lowering of onnxruntime's RotaryEmbedding, and the rotation of heads that its attention shares.

Pairs of a head's elements are turned by angles that grow with the token's position; tables hold cosines and sines of
every position. Source: Su et al., RoFormer, 2021.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.contrib_standard import DOMAIN
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.term import Term, constant, stacked
from birc.runtime.errors import BadModelError


def rotated(heads: Term, positions: Term, cosines: Term, sines: Term, *, is_interleaved: bool) -> Term:
    """`heads` (batch, head, token, element) turned by the angles of their `positions` (batch or 1, token).

    The tables are (position, pair). Elements of a pair are neighbours when interleaved, else halves apart; those beyond
    the pairs stay as they are.
    """
    batch, count, tokens, size = heads.shape
    pairs = cosines.shape[1]
    cosine, sine = (table.gather(positions).reshape(positions.shape[0], 1, tokens, pairs) for table in (cosines, sines))
    turning = heads.part(3, 0, 2 * pairs)
    if is_interleaved:
        apart = turning.reshape(batch, count, tokens, pairs, 2)
        real, imaginary = apart.at(4, 0), apart.at(4, 1)
    else:
        real, imaginary = turning.part(3, 0, pairs), turning.part(3, pairs, 2 * pairs)
    parts = [real * cosine - imaginary * sine, real * sine + imaginary * cosine]
    if is_interleaved:
        turned = stacked(parts, -1).reshape(batch, count, tokens, 2 * pairs)
        parts = [turned]
    if 2 * pairs < size:
        parts.append(heads.part(3, 2 * pairs, size))
    if len(parts) == 1:
        return parts[0]
    return Term(heads.build, heads.build.emit("concat", [part.name for part in parts], {"axis": 3}))


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
