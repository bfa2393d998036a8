"""Attention over heads, (batch, head, token, element) each, and the masks that onnxruntime's operators add to scores.

Source: Vaswani et al., Attention is all you need, 2017: softmax(Q K' scale + mask) V.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.term import Term, as_term, constant, where
from birc.runtime.errors import BadModelError


def split_heads(node: OnnxNode, x: Term, heads: int) -> Term:
    """(batch, token, all heads) as (batch, head, token, element). Raises `BadModelError` when it does not divide."""
    batch, tokens, hidden = x.shape
    if heads < 1 or hidden % heads:
        raise BadModelError(f"{hidden} elements a token do not make {heads} heads", where=node.where)
    return x.reshape(batch, tokens, heads, hidden // heads).transpose(0, 2, 1, 3)


def joined_heads(x: Term) -> Term:
    """(batch, head, token, element) as (batch, token, all heads)."""
    batch, heads, tokens, size = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * size)


def concatenated(parts: tuple[Term, ...], axis: int) -> Term:
    """The parts one after the other along an axis."""
    build = parts[0].build
    return parts[0] if len(parts) == 1 else Term(build, build.emit("concat", [p.name for p in parts], {"axis": axis}))


def times(a: Term, b: Term) -> Term:
    """The matrix product."""
    return Term(a.build, a.build.emit("matmul", (a.name, b.name)))


def attended(
    q: Term, k: Term, v: Term, scale: float, added: tuple[Term, ...] = (), *, softcap: float = 0.0,
    sink: Term | None = None,
) -> Term:  # fmt: skip
    """softmax(q k' scale + what is added) v.

    `softcap` holds scaled scores between it and its negative. `sink` is one more score for each row (it broadcasts to
    them), whose share of the softmax is lost.
    """
    scores = times(q, k.transpose(0, 1, 3, 2)) * scale
    if softcap:
        scores = (scores * (1.0 / softcap)).row("tanh") * softcap
    for each in added:
        scores = scores + each
    if sink is None:
        return times(scores.row("softmax", axis=3), v)
    batch, heads, tokens, total = scores.shape
    column = sink.row("expand", shape=(batch, heads, tokens, 1))
    shares = concatenated((scores, column), 3).row("softmax", axis=3)
    return times(shares.part(3, 0, total), v)


def lowest(x: Term) -> float:
    """The least number of the element type of `x`: as a score it takes no part."""
    return float(ml_dtypes.finfo(x.dtype.numpy).min)


def causal(tokens: int, total: int) -> np.ndarray:
    """Which of `total` keys each of the last `tokens` of them may see: none after itself. (token, key)"""
    return np.tri(tokens, total, total - tokens, dtype=np.bool_)


def padding_mask(mask: Term, sizes: tuple[int, int, int], kind: str, masked: float) -> Term:
    """What a mask of keys adds to scores of type `kind`: 0, or `masked`. `sizes` are batch, tokens and keys.

    It holds for each sequence its length, or its end and then for each its start, or a flag for each key, or for each
    token and key. Raises `CannotLower` for other forms.
    """
    batch, tokens, total = sizes
    places = constant(mask.build, np.arange(total, dtype=np.int32).reshape(1, total))
    mask = mask.to("i32")
    match mask.shape:
        case (count,) if count in (batch, 2 * batch):
            kept = places < mask.part(0, 0, batch).reshape(batch, 1)
            if count == 2 * batch:
                kept = kept & (places >= mask.part(0, batch, count).reshape(batch, 1))
            kept = kept.reshape(batch, 1, 1, total)
        case (count, keys) if count == batch and keys == total:
            kept = (mask > 0).reshape(batch, 1, 1, total)
        case (count, rows, keys) if (count, rows, keys) == (batch, tokens, total):
            kept = (mask > 0).reshape(batch, 1, tokens, total)
        case shape:
            raise CannotLower(f"a mask {list(shape)} for {batch} sequences of {tokens} tokens over {total} keys")
    return as_term(mask.build, where(kept, constant(mask.build, np.zeros((), np.float32)), masked)).to(kind)


def with_causal_mask(added: Term | None, q: Term, total: int) -> Term:
    """What is added to the scores of `q`, where later keys take no part."""
    kept = constant(q.build, causal(q.shape[2], total))
    nothing = constant(q.build, np.zeros((), q.dtype.numpy))
    return as_term(q.build, where(kept, nothing if added is None else added, lowest(q)))
