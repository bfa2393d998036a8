"""Pass: attention to more keys than one kernel takes is computed for pieces of the keys, which are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import Graph
from birc.compiler.passes.attention import Attention, AttentionPieces, Range, attention_of
from birc.compiler.passes.base import Pass, PassResult, finish_edit
from birc.compiler.passes.fuse import most_row_tiles
from birc.runtime.machine import Machine


@dataclass(frozen=True, slots=True)
class Result:
    """What an attention to a piece of the keys comes to; among others also the logarithms of its rows' sums."""

    output: str
    logsumexp: str


@dataclass(frozen=True, slots=True)
class DivideKeys(Pass):
    """An attention to more than `most` keys becomes one for each piece of them, and what these come to.

    Each piece gives a result o, and z, the logarithm of the sum of its powers. Two of them come to
    o1 + (o2 - o1) * sigmoid(z2 - z1) (Milakov and Gimelshein, Online normalizer calculation for softmax, 2018; Dao et
    al., FlashAttention, 2022). Under a constant mask, groups of half as many rows take the pieces in which they see
    anything; those in front that need the first piece alone are left as one attention. Pieces are whole tiles of
    `tile` columns.

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
          %y.6 : f32[1,1,8] = slice(%y.5) {starts = [0, 0, 0], ends = [1, 1, 8], steps = [1, 1, 1]}
          %y.7 : f32[1,1,8] = expand(%p.2) {shape = [1, 1, 8]}
          %y.8 : f32[1,1,8] = expand(%p.4) {shape = [1, 1, 8]}
          %y.9 : f32[1,1,8] = sub(%y.8, %y.7)
          %y.10 : f32[1,1,8] = sigmoid(%y.9)
          %y.11 : f32[1,1,8] = slice(%y.5) {starts = [0, 1, 0], ends = [1, 2, 8], steps = [1, 1, 1]}
          %y.12 : f32[1,1,8] = sub(%y.11, %y.6)
          %y.13 : f32[1,1,8] = mul(%y.12, %y.10)
          %y : f32[1,1,8] = add(%y.6, %y.13)
          output %y
        }
    """

    name: ClassVar[str] = "divide_keys"
    most: int = 1
    tile: int = 1

    def run(self, graph: Graph) -> PassResult:
        found = [a for node in graph.nodes if (a := attention_of(graph, node)) is not None]
        # Logarithms of sums need the digits of single precision.
        long = [a for a in found if a.sizes[-1] > self.most and a.softmax.output.type.dtype.name == "f32"]
        if not long:
            return PassResult(graph, False)
        editor = GraphEditor(graph, self.name)
        masks: dict[tuple[str, Range, Range], str] = {}
        for attention in long:
            self._divide(AttentionPieces(editor, attention, masks))
        editor.drop_unused()
        return PassResult(finish_edit(editor, graph), True, {"attentions": len(long)})

    def _divide(self, pieces: AttentionPieces) -> None:
        """Put attentions for groups of rows, and for pieces of the keys that they see, in the place of one."""
        context = pieces.attention.context
        # All products come before what puts their results together: so they follow each other.
        made = [_results(pieces, rows, seen) for rows, seen in self._groups(pieces.attention)]
        parts = [_together(pieces, results) for results in made]
        whole = parts[0]
        if len(parts) > 1:
            axis = context.output.type.rank - 2
            whole = pieces.laid_out(pieces.add("concat", tuple(parts), {"axis": axis}, like=context))
        pieces.editor.replace(context, whole)

    def _groups(self, attention: Attention) -> list[tuple[Range, list[Range]]]:
        """Groups of neighbouring rows with the pieces of the keys that they see."""
        *_, rows, columns = attention.sizes
        pieces = self._pieces(columns)
        if attention.keeps is None or attention.keeps.shape[-2] == 1:
            return [((0, rows), pieces)]
        keeps = attention.keeps.reshape(-1, rows, columns)
        groups: list[tuple[Range, list[Range]]] = []
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

    def _pieces(self, columns: int) -> list[Range]:
        """The columns in as few pieces as there can be, of about one width."""
        tiles, most = -(-columns // self.tile), self.most // self.tile
        width = -(-tiles // -(-tiles // most)) * self.tile
        return [(first, min(columns, first + width)) for first in range(0, columns, width)]


def divide_keys_for(machine: Machine) -> DivideKeys:
    """The pass for a machine."""
    return DivideKeys(most_row_tiles(machine) * machine.tcore_cols, machine.tcore_cols)


def _results(pieces: AttentionPieces, rows: Range, seen: Sequence[Range]) -> list[Result]:
    """The attention of some rows to each of some pieces of the keys."""
    softmax, made = pieces.attention.softmax, []
    for piece in seen:
        scores = pieces.scores(rows, piece, is_finite=len(seen) > 1)
        shares = pieces.again(softmax, scores)
        made.append((shares, pieces.add("logsumexp", (scores,), softmax.attributes, like=softmax) if seen[1:] else ""))
    return [
        Result(pieces.product(shares, piece), logsumexp) for (shares, logsumexp), piece in zip(made, seen, strict=True)
    ]


def _together(pieces: AttentionPieces, results: Sequence[Result]) -> str:
    """What the results of pieces come to: o1 + (o2 - o1) * sigmoid(z2 - z1), by the logarithms z of their sums."""
    if len(results) == 1:
        return results[0].output
    editor, context = pieces.editor, pieces.attention.context
    add = partial(pieces.add, like=context)
    *batch, rows, features = sizes = editor.type_of(results[0].output).sizes
    # One below the other they are not fused with the products, which need not wait for each other then.
    column = pieces.laid_out(add("concat", tuple(result.output for result in results), {"axis": len(batch)}))

    def output(number: int) -> str:
        starts, ends = (*(0 for _ in batch), number * rows, 0), (*batch, (number + 1) * rows, features)
        return add("slice", (column,), {"starts": starts, "ends": ends, "steps": (1,) * len(sizes)})

    known, total, *others = output(0), *(add("expand", (r.logsumexp,), {"shape": sizes}) for r in results)
    for number, more in enumerate(others, start=1):
        share = add("sigmoid", (add("sub", (more, total)),))
        if number < len(others):  # log(exp(z1) + exp(z2)) = max(z1, z2) - log(sigmoid(|z2 - z1|))
            distance = add("abs", (add("sub", (more, total)),))
            total = add("sub", (add("maximum", (more, total)), add("log", (add("sigmoid", (distance,)),))))
        known = add("add", (known, add("mul", (add("sub", (output(number), known)), share))))
    return pieces.laid_out(known)
