"""Pass: attention to more keys than one kernel takes is computed for pieces of the keys, which are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from birc.compiler.ir.graph import Graph
from birc.compiler.passes.attention import Attention, Range, attention_of
from birc.compiler.passes.attention_pieces import AttentionPieces, in_pieces
from birc.compiler.passes.base import Pass, PassResult
from birc.compiler.passes.fuse import most_row_tiles
from birc.runtime.machine import Machine

MASKED_SHARE = 0.75
"""The part of a row that a piece has under a mask of run time: tiles of the mask take registers, too."""

Rows = tuple[Range, list[Range]]
"""Rows, and the pieces of the keys that they see."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an attention to a piece of the keys comes to; among others also the logarithms of its rows' sums."""

    output: str
    logsumexp: str
    keys: int


@dataclass(frozen=True, slots=True)
class DivideKeys(Pass):
    """An attention to more than `most` keys becomes one for each piece of them, and what these come to.

    Each piece gives a result o, and z, the logarithm of the sum of its powers. They come to the sum of o * softmax(z)
    over the pieces (Milakov and Gimelshein, Online normalizer calculation for softmax, 2018; Dao et al.,
    FlashAttention, 2022). Under a constant mask, groups of half as many rows take the pieces in which they see
    anything; those in front that need the first piece alone are left as one attention. Pieces are whole tiles of
    `tile` columns; under a mask of run time they have `most_masked` keys. (What that adds to all scores of a row is
    left out: a row that is masked throughout by finite numbers has the shares of its scores, of which no digits are
    lost beside such numbers. One that is masked by minus infinity still has no numbers.)

    before:
        graph "g" {
          input %q : f32[1,1,8]
          input %k : f32[1,8,2]
          input %v : f32[1,2,8]
          %s : f32[1,1,2] = matmul(%q, %k)
          %p : f32[1,1,2] = softmax(%s) {axis = 2}
          %y : f32[1,1,8] = matmul(%p, %v)
          output %y
        }
    after:
        graph "g" {
          input %q : f32[1,1,8]
          input %k : f32[1,8,2]
          input %v : f32[1,2,8]
          %s.1 : f32[1,8,1] = slice(%k) {starts = [0, 0, 0], ends = [1, 8, 1], steps = [1, 1, 1]}
          %s.2 : f32[1,1,1] = matmul(%q, %s.1)
          %p.1 : f32[1,1,1] = softmax(%s.2) {axis = 2}
          %p.2 : f32[1,1,1] = logsumexp(%s.2) {axis = 2}
          %s.3 : f32[1,8,1] = slice(%k) {starts = [0, 0, 1], ends = [1, 8, 2], steps = [1, 1, 1]}
          %s.4 : f32[1,1,1] = matmul(%q, %s.3)
          %p.3 : f32[1,1,1] = softmax(%s.4) {axis = 2}
          %p.4 : f32[1,1,1] = logsumexp(%s.4) {axis = 2}
          %y.1 : f32[1,1,8] = slice(%v) {starts = [0, 0, 0], ends = [1, 1, 8], steps = [1, 1, 1]}
          %y.2 : f32[1,1,8] = matmul(%p.1, %y.1)
          %y.3 : f32[1,1,8] = slice(%v) {starts = [0, 1, 0], ends = [1, 2, 8], steps = [1, 1, 1]}
          %y.4 : f32[1,1,8] = matmul(%p.3, %y.3)
          %y.5 : f32[1,2,8] = concat(%y.2, %y.4) {axis = 1}
          %y.6 : f32[1,2,1,8] = reshape(%y.5) {shape = [1, 2, 1, 8]}
          %y.7 : f32[1,2,1] = concat(%p.2, %p.4) {axis = 1}
          %y.8 : f32[1,2,1,1] = reshape(%y.7) {shape = [1, 2, 1, 1]}
          %y.9 : f32[1,2,1,1] = softmax(%y.8) {axis = 1}
          %y.10 : f32[1,2,1,8] = mul(%y.6, %y.9)
          %y : f32[1,1,8] = reduce_sum(%y.10) {axes = [1], keepdims = 0}
          output %y
        }
    """

    name: ClassVar[str] = "divide_keys"
    most: int = 1
    tile: int = 1
    most_masked: int = 1

    def run(self, graph: Graph) -> PassResult:
        found = [a for node in graph.nodes if (a := attention_of(graph, node, run_time=True)) is not None]
        # Logarithms of sums need the digits of single precision.
        long = [a for a in found if a.sizes[-1] > self.most and a.softmax.output.type.dtype.name == "f32"]
        return in_pieces(graph, self.name, [(attention, self._groups(attention)) for attention in long], _parts)

    def _groups(self, attention: Attention) -> list[Rows]:
        """Groups of neighbouring rows with the pieces of the keys that they see."""
        *_, rows, columns = attention.sizes
        pieces = self._pieces(columns, self.most if attention.masked is None else self.most_masked)
        if attention.keeps is None or attention.keeps.shape[-2] == 1:
            return [((0, rows), pieces)]
        keeps = attention.keeps.reshape(-1, rows, columns)
        groups: list[Rows] = []
        for first in range(0, rows, self.most // 2):
            last = min(rows, first + self.most // 2)
            seen = [s for piece in pieces if (s := self._seen(keeps[:, first:last], piece)) is not None]
            begin = first
            if groups and len(seen) == len(groups[-1][1]) == 1 and seen[0][0] < pieces[0][1]:
                (begin, _), (before,) = groups.pop()
                seen = [(min(before[0], seen[0][0]), max(before[1], seen[0][1]))]
            groups.append(((begin, last), seen))
        return groups

    def _seen(self, keeps: np.ndarray, piece: Range) -> Range | None:
        """The whole tiles of a piece between the first and the last column in which some rows keep anything."""
        columns = np.flatnonzero(keeps[..., slice(*piece)].any(axis=(0, 1)))
        if not len(columns):
            return None
        first, last = (piece[0] + int(columns[place]) // self.tile * self.tile for place in (0, -1))
        return first, min(piece[1], last + self.tile)

    def _pieces(self, columns: int, most: int) -> list[Range]:
        """The columns in as few pieces as there can be, of about one width."""
        tiles, most = -(-columns // self.tile), most // self.tile
        width = -(-tiles // -(-tiles // most)) * self.tile
        return [(first, min(columns, first + width)) for first in range(0, columns, width)]


def divide_keys_for(machine: Machine) -> DivideKeys:
    """The pass for a machine."""
    tile, most = machine.tcore_cols, most_row_tiles(machine)
    return DivideKeys(most * tile, tile, round(MASKED_SHARE * most) * tile)


def _parts(pieces: AttentionPieces, groups: Sequence[Rows]) -> list[str]:
    """Attentions for groups of rows, each to the pieces of the keys that they see."""
    # All products come before what puts their results together: so they follow each other.
    made = [_results(pieces, rows, seen) for rows, seen in groups]
    return [_together(pieces, results) for results in made]


def _results(pieces: AttentionPieces, rows: Range, seen: Sequence[Range]) -> list[Result]:
    """The attention of some rows to each of some pieces of the keys."""
    softmax, made = pieces.attention.softmax, []
    for piece in seen:
        scores = pieces.scores(rows, piece, is_finite=len(seen) > 1)
        shares = pieces.again(softmax, scores)
        made.append((shares, pieces.add("logsumexp", (scores,), softmax.attributes, like=softmax) if seen[1:] else ""))
    return [
        Result(pieces.product(shares, piece), logsumexp, piece[1] - piece[0])
        for (shares, logsumexp), piece in zip(made, seen, strict=True)
    ]


def _together(pieces: AttentionPieces, results: Sequence[Result]) -> str:
    """What the results of pieces come to: their sum, weighted by the softmax of the logarithms of their sums."""
    if len(results) == 1:
        return results[0].output
    *batch, rows, features = pieces.editor.type_of(results[0].output).sizes
    axis, add = len(batch), partial(pieces.add, like=pieces.attention.context)
    # One below the other they are not fused with the products, which need not wait for each other then.
    column = pieces.laid_out(add("concat", tuple(result.output for result in results), {"axis": axis}))
    parts = add("reshape", (column,), {"shape": (*batch, len(results), rows, features)})
    sums = add("concat", tuple(result.logsumexp for result in results), {"axis": axis})
    sums = add("reshape", (sums,), {"shape": (*batch, len(results), rows, 1)})
    unseen = pieces.unseen()
    if unseen is not None:  # Without a score of its own, a row takes all keys alike.
        sizes = pieces.editor.type_of(unseen).sizes
        whole = add("reshape", (unseen,), {"shape": (*sizes[:-2], 1, *sizes[-2:])})
        keys = np.log(np.array([result.keys for result in results], np.float32)).reshape(-1, 1, 1)
        sums = add("maximum", (sums, add("add", (whole, pieces.editor.add_constant(keys, "keys")))))
    weighted = add("mul", (parts, add("softmax", (sums,), {"axis": axis})))
    return pieces.laid_out(add("reduce_sum", (weighted,), {"axes": (axis,), "keepdims": 0}))
