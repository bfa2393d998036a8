"""Lowering of onnxruntime's GroupQueryAttention: heads share keys and values, the past grows in a cache.

Each sequence of the batch has its own length: its cache holds `past` tokens, followed by the new ones, then nothing.
What it holds is gathered, so that lengths that only the run knows do; tokens of the cache beyond them take no part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from birc.compiler.importer.attention_heads import attended, concatenated, joined_heads, lowest, split_heads
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.contrib_standard import DOMAIN
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.rotary import rotated
from birc.compiler.importer.term import Term, as_term, constant, where
from birc.runtime.errors import BadModelError

_OFF: Final = {"causal": 1, "sliding_window_cache": 0, "qk_output": 0}
_NONE: Final = ("k_quant_type", "v_quant_type")
_NORM_EPSILON: Final = 1e-6


@dataclass(frozen=True, slots=True)
class _Cache:
    """`past` (batch,) INT32: tokens before the new ones; `slots`: of the past given; `length`: of the present."""

    past: Term
    slots: int
    tokens: int
    length: int


def _group_query_attention(node: OnnxNode, build: GraphBuilder) -> Results:
    _require_plain(node)
    q, k, v = _heads(node, build)
    cache = _cache(node, build, q.shape[0], q.shape[2])
    if node.optional(14):
        q, k = _normalised(node, q, 14, "q"), _normalised(node, k, 15, "k")
    places = constant(build, np.arange(cache.tokens, dtype=np.int32).reshape(1, -1))
    positions = cache.past.reshape(q.shape[0], 1) + places
    if node.int_attribute("do_rotary", 0):
        tables = Term(build, node.input(7)), Term(build, node.input(8))
        given = Term(build, node.input(9)) if node.optional(9) else positions
        is_interleaved = bool(node.int_attribute("rotary_interleaved", 0))
        q, k = (rotated(each, given, *tables, is_interleaved=is_interleaved) for each in (q, k))
    k, v = (_present(build, node.optional(place), new, cache) for place, new in ((3, k), (4, v)))
    groups = q.shape[1] // k.shape[1]
    size = q.shape[3]
    scale = node.float_attribute("scale", 0.0) or 1.0 / math.sqrt(size)
    mask = _mask(node, build, q, positions, cache)
    result = attended(
        _grouped(q, k.shape[1]), k, v, scale, (_grouped(mask, k.shape[1], groups),),
        softcap=node.float_attribute("softcap", 0.0), sink=_sink(node, build, q, k.shape[1]),
    )  # fmt: skip
    whole = joined_heads(result.reshape(*q.shape[:3], v.shape[3])).name
    return (_guarded(node, build, whole, cache), k.name, v.name)[: len(node.outputs)]


def _require_plain(node: OnnxNode) -> None:
    for name, plain in _OFF.items():
        if node.int_attribute(name, plain) != plain:
            raise CannotLower(f"attribute {name} is {node.int_attribute(name, plain)}, which is not known here")
    for name in _NONE:
        if node.string_attribute(name, "NONE") != "NONE":
            raise CannotLower("its cache is quantised")
    if node.optional(16):
        raise CannotLower("new tokens of the sequences differ in number")
    if node.uses_output(3):
        raise CannotLower("its scores are asked for")


def _heads(node: OnnxNode, build: GraphBuilder) -> tuple[Term, Term, Term]:
    """Queries, keys and values, (batch, head, token, element) each; without keys, they are packed."""
    heads, shared = node.int_attribute("num_heads", 0), node.int_attribute("kv_num_heads", 0)
    if shared < 1 or heads < 1 or heads % shared:
        raise BadModelError(f"{heads} heads for {shared} of keys and values", where=node.where)
    query = Term(build, node.input(0))
    if node.optional(1):
        parts = (query, Term(build, node.input(1)), Term(build, node.input(2)))
    else:
        size = query.shape[2] // (heads + 2 * shared)
        ends = (0, heads * size, (heads + shared) * size, (heads + 2 * shared) * size)
        parts = (query.part(2, 0, ends[1]), query.part(2, ends[1], ends[2]), query.part(2, ends[2], ends[3]))
    q, k, v = (split_heads(node, part, count) for part, count in zip(parts, (heads, shared, shared), strict=True))
    if k.shape[2] != q.shape[2] or k.shape[3] != q.shape[3]:
        raise CannotLower(f"keys {list(k.shape)} for queries {list(q.shape)}")
    return q, k, v


def _normalised(node: OnnxNode, x: Term, place: int, side: str) -> Term:
    """Each head over the root of its mean square, times a weight."""
    epsilon = node.float_attribute(f"{side}_norm_epsilon", node.float_attribute("qk_norm_epsilon", _NORM_EPSILON))
    return Term(x.build, x.build.emit("rms_norm", (x.name, node.input(place)), {"axis": 3, "epsilon": epsilon}))


def _cache(node: OnnxNode, build: GraphBuilder, batch: int, tokens: int) -> _Cache:
    slots = build.shape(node.input(3))[2] if node.optional(3) else 0
    lengths = Term(build, node.input(5)).to("i32")
    past = (lengths.reshape(batch) - (tokens - 1)).at_least(0)
    if not slots:
        past = constant(build, np.zeros(past.shape, np.int32))
    total = build.constant_of(node.input(6))
    if total is not None:
        return _Cache(past, slots, tokens, max(slots, int(total.reshape(-1)[0])))
    declared = build.declared_shape(node, 1)
    if declared is not None:
        return _Cache(past, slots, tokens, declared[2])
    if slots and node.uses_output(1):
        raise CannotLower("the total sequence length comes from the inputs of the model, and no shape is declared")
    return _Cache(past, slots, tokens, slots + tokens)


def _present(build: GraphBuilder, past: str, new: Term, cache: _Cache) -> Term:
    """Keys or values with those of the past before them: (batch, head, `length`, element), 0 behind the last."""
    batch, _, tokens, _ = new.shape
    known = build.constant_of(cache.past.name)
    if known is not None and (known == cache.slots).all() and cache.length == cache.slots + tokens:
        return concatenated((Term(build, past), new), 2) if cache.slots else new
    both = concatenated((Term(build, past), new), 2) if cache.slots else new
    places = constant(build, np.arange(cache.length, dtype=np.int32).reshape(1, -1))
    before = cache.past.reshape(batch, 1)
    of_new = (places - before + cache.slots).within(0, cache.slots + tokens - 1)
    indices = as_term(build, where(places < before, places.at_most(max(cache.slots - 1, 0)), of_new))
    turned = both.transpose(0, 2, 1, 3)
    whole = indices.reshape(batch, cache.length, 1)
    rows = Term(build, build.emit("gather_nd", (turned.name, whole.name), {"batch_dims": 1})).transpose(0, 2, 1, 3)
    is_held = (places < before + tokens).reshape(batch, 1, cache.length, 1)
    return as_term(build, where(is_held, rows, 0.0))


def _mask(node: OnnxNode, build: GraphBuilder, q: Term, positions: Term, cache: _Cache) -> Term:
    """What is added to the scores: nothing, or a bias, for keys up to the token and within its window."""
    batch, tokens = positions.shape
    keys = constant(build, np.arange(cache.length, dtype=np.int32).reshape(1, 1, 1, -1))
    own = positions.reshape(batch, 1, tokens, 1)
    kept = keys <= own
    window = node.int_attribute("local_window_size", -1)
    if window >= 0:
        kept = kept & (keys > own - window)
    added = constant(build, np.zeros((), q.dtype.numpy))
    if node.optional(10):
        added = Term(build, node.input(10))
        missing = cache.length - added.shape[3]
        if missing > 0:
            added = added.row("pad", pads=(0, 0, 0, 0, 0, 0, 0, missing), value=0.0)
        added = added.part(3, 0, cache.length)
    return as_term(build, where(kept, added, lowest(q)))


def _grouped(x: Term, shared: int, groups: int = 0) -> Term:
    """Queries, or what is added to their scores, with the heads of a group one after the other as more tokens.

    One head that stands for all is repeated `groups` times.
    """
    batch, heads, tokens, size = x.shape
    if heads == 1 and groups:
        whole = x.reshape(batch, 1, 1, tokens, size).row("expand", shape=(batch, 1, groups, tokens, size))
        return whole.reshape(batch, 1, groups * tokens, size)
    return x.reshape(batch, shared, heads // shared * tokens, size)


def _sink(node: OnnxNode, build: GraphBuilder, q: Term, shared: int) -> Term | None:
    """The score of nothing, for each grouped row: given for each head, or 0; None where there is none."""
    heads, tokens = q.shape[1], q.shape[2]
    if node.optional(11):
        each = Term(build, node.input(11)).reshape(1, shared, heads // shared, 1, 1)
        whole = each.row("expand", shape=(1, shared, heads // shared, tokens, 1))
        return whole.reshape(1, shared, heads // shared * tokens, 1)
    if node.int_attribute("smooth_softmax", 0) == 1:
        return constant(build, np.zeros((1, 1, 1, 1), q.dtype.numpy))
    return None


def _guarded(node: OnnxNode, build: GraphBuilder, result: str, cache: _Cache) -> str:
    """The result, from a program that faults where the total length at run time is not the one it was made for."""
    total = Term(build, node.input(6))
    if build.constant_of(total.name) is not None:
        return result
    fits = (total.to("i32") <= cache.length) & (total.to("i32") > 0)
    if node.uses_output(1):
        fits = total.to("i32").at_least(cache.slots).equals(cache.length)
    return build.guarded(result, fits.reshape().name)


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("GroupQueryAttention", _group_query_attention, domain=DOMAIN),)
