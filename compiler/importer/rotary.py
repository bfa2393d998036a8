"""Lowering of RotaryEmbedding, and the rotation of heads that attentions share.

Pairs of a head's elements are turned by angles that grow with the token's position; tables hold cosines and sines of
every position. Source: Su et al., RoFormer, 2021.
"""

from __future__ import annotations

from typing import Final

from birc.compiler.importer.attention_heads import joined_heads, split_heads
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.term import Term
from birc.runtime.errors import BadModelError

FIRST_VERSION: Final = 23


def rotated(heads: Term, positions: Term, cosines: Term, sines: Term, *, is_interleaved: bool) -> Term:
    """`heads` (batch, head, token, element) turned by the angles of their `positions` (batch or 1, token).

    The tables are (position, pair). Elements of a pair are neighbours when interleaved, else halves apart; those beyond
    the pairs stay as they are.
    """
    of_tokens = [table.gather(positions).reshape(*positions.shape, cosines.shape[1]) for table in (cosines, sines)]
    return turned(heads, *of_tokens, is_interleaved=is_interleaved)


def turned(heads: Term, cosines: Term, sines: Term, *, is_interleaved: bool) -> Term:
    """As `rotated`, by tables of (batch or 1, token, pair)."""
    build, size, pairs = heads.build, heads.shape[3], cosines.shape[2]
    tables = [table.reshape(table.shape[0], 1, *table.shape[1:]).name for table in (cosines, sines)]
    turning = heads.part(3, 0, 2 * pairs)
    name = build.emit("rotate", (turning.name, *tables), {"interleaved": int(is_interleaved)})
    if 2 * pairs < size:
        name = build.emit("concat", (name, heads.part(3, 2 * pairs, size).name), {"axis": 3})
    return Term(build, name)


def _rotary_embedding(node: OnnxNode, build: GraphBuilder) -> Results:
    """Of (batch, token, all heads) or (batch, head, token, element); without positions there are tables by token."""
    x, cosines, sines = (Term(build, node.input(place)) for place in range(3))
    heads = x if len(x.shape) == 4 else split_heads(node, x, node.int_attribute("num_heads", 0))
    size = heads.shape[3]
    pairs = (node.int_attribute("rotary_embedding_dim", 0) or size) // 2
    if sines.shape != cosines.shape or cosines.shape[-1] != pairs or 2 * pairs > size:
        problem = f"tables {list(cosines.shape)} and {list(sines.shape)} for {pairs} pairs in heads of {size} elements"
        raise BadModelError(problem, where=node.where)
    is_interleaved = bool(node.int_attribute("interleaved", 0))
    if node.optional(3):
        result = rotated(heads, Term(build, node.input(3)), cosines, sines, is_interleaved=is_interleaved)
    else:
        result = turned(heads, cosines, sines, is_interleaved=is_interleaved)
    return (result if len(x.shape) == 4 else joined_heads(result)).name


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("RotaryEmbedding", _rotary_embedding, FIRST_VERSION),)
