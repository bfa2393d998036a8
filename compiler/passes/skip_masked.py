"""Pass: attention whose mask is known computes the scores that it lets through, block by block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from birc.compiler.ir.graph import Graph
from birc.compiler.passes.attention import Range, attention_of
from birc.compiler.passes.attention_pieces import AttentionPieces, in_pieces
from birc.compiler.passes.base import Pass, PassResult
from birc.runtime.machine import Machine

MOST_GROUPS = 8
TOGETHER = 2
"""Groups whose shares come before the products with the values: SPCs wait for each other once for all of them."""

GROUP_TILES = 28
"""What a group of rows costs beside its tiles, in tiles: two kernels that begin, and wait for each other."""

FINISHED_TILES = 0.8
"""What each tile of a row costs once more, in tiles: a kernel's last row is finished while nothing is multiplied."""

EASY_TILES = 14
"""Tiles of a row that leave vector registers for two programs."""

REGISTER_TILES = 27
"""Tiles of a row, and of its mask, that leave registers for a program that finishes a row while it takes the next."""

LONG_ROWS, LONGEST_ROWS = 1.15, 2.2
"""How much longer a tile takes in rows that one program takes, with the next one at the same time or after it."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows [first, last) of the scores, and the columns [left, right) outside of which the mask covers them.

    In those from `begin` on it covers some, or none if that is the end.
    """

    first: int
    last: int
    left: int
    right: int
    begin: int

    @property
    def rows(self) -> Range:
        """The rows."""
        return self.first, self.last

    @property
    def columns(self) -> Range:
        """The columns."""
        return self.left, self.right


@dataclass(frozen=True, slots=True)
class SkipMasked(Pass):
    """An attention whose mask is a constant is cut into groups of rows, each with the columns that its mask needs.

    A causal mask leaves little more than half of the scores, of the powers, and of the products with the values.
    What is left out has the share 0: the number in its place is -inf, or too low for FP32 to know its power from 0,
    while every row keeps a score. (A value of a masked token that is infinite or no number no longer spoils the rows
    that do not see it.) `tile` is the width of tiles, `spcs` are those that share out the rows of tiles; `group_tiles`
    is what a group of rows costs, in tiles.

    before:
        graph "g" {
          input %q : f32[1,2,8]
          input %k : f32[1,8,2]
          input %v : f32[1,2,8]
          const %m : bool[1,2,2] = [true, false, true, true]
          const %low : f32[] = -inf
          %s : f32[1,2,2] = matmul(%q, %k)
          %w : f32[1,2,2] = where(%m, %s, %low)
          %p : f32[1,2,2] = softmax(%w) {axis = 2}
          %y : f32[1,2,8] = matmul(%p, %v)
          output %y
        }
    after:
        graph "g" {
          input %q : f32[1,2,8]
          input %k : f32[1,8,2]
          input %v : f32[1,2,8]
          %s.1 : f32[1,1,8] = slice(%q) {starts = [0, 0, 0], ends = [1, 1, 8], steps = [1, 1, 1]}
          %s.2 : f32[1,8,1] = slice(%k) {starts = [0, 0, 0], ends = [1, 8, 1], steps = [1, 1, 1]}
          %s.3 : f32[1,1,1] = matmul(%s.1, %s.2)
          %p.1 : f32[1,1,1] = softmax(%s.3) {axis = 2}
          %s.4 : f32[1,1,8] = slice(%q) {starts = [0, 1, 0], ends = [1, 2, 8], steps = [1, 1, 1]}
          %s.5 : f32[1,1,2] = matmul(%s.4, %k)
          %p.2 : f32[1,1,2] = softmax(%s.5) {axis = 2}
          %y.1 : f32[1,1,8] = slice(%v) {starts = [0, 0, 0], ends = [1, 1, 8], steps = [1, 1, 1]}
          %y.2 : f32[1,1,8] = matmul(%p.1, %y.1)
          %y.3 : f32[1,1,8] = matmul(%p.2, %v)
          %y : f32[1,2,8] = concat(%y.2, %y.3) {axis = 1}
          output %y
        }
    """

    name: ClassVar[str] = "skip_masked"
    tile: int = 1
    spcs: int = 1
    group_tiles: int = 0

    def run(self, graph: Graph) -> PassResult:
        found = [a for node in graph.nodes if (a := attention_of(graph, node)) is not None]
        cut = [(a, rows) for a in found if a.keeps is not None and (rows := self._groups(a.sizes, a.keeps))]
        return in_pieces(graph, self.name, cut, _parts)

    def _groups(self, sizes: Sequence[int], keeps: np.ndarray) -> list[_Rows]:
        """The groups of rows that take least; none when that is all rows with all columns."""
        *batch, rows, columns = sizes
        whole = _Rows(0, rows, 0, columns, 0)
        best = [whole]
        for count in range(1, MOST_GROUPS + 1):
            if rows % (count * self.tile) and count > 1:
                continue
            size = rows // count
            groups = [self._kept(keeps, n * size, (n + 1) * size) for n in range(count)]
            if self._cost(groups, math.prod(batch)) < self._cost(best, math.prod(batch)):
                best = groups
        return [] if [(group.left, group.right) for group in best] == [(0, columns)] else best

    def _kept(self, keeps: np.ndarray, first: int, last: int) -> _Rows:
        """A group with its columns, whole tiles of them."""
        columns = keeps.shape[-1]
        rows = keeps[..., first:last, :] if keeps.shape[-2] > 1 else keeps
        rows = rows.reshape(-1, columns)
        used = np.flatnonzero(rows.any(axis=0))
        left = int(used[0]) // self.tile * self.tile
        right = min(-(-(int(used[-1]) + 1) // self.tile) * self.tile, columns)
        covered = np.flatnonzero(~rows[:, left:right].all(axis=0))
        return _Rows(first, last, left, right, left + int(covered[0]) if len(covered) else right)

    def _cost(self, groups: Sequence[_Rows], batch: int) -> float:
        """Tiles of the SPC with most of them, those of longer rows weighted, and what the groups cost."""
        total = 0.0
        for group in groups:
            blocks = batch * -(-(group.last - group.first) // self.tile)
            tiles = -(-(group.right - group.left) // self.tile)
            masked = -(-(group.right - group.begin) // self.tile)
            weight = 1.0
            if tiles > EASY_TILES:
                weight = LONG_ROWS if tiles + masked <= REGISTER_TILES else LONGEST_ROWS
            total += -(-blocks // self.spcs) * tiles * weight
            total += self.group_tiles + (FINISHED_TILES * tiles if self.group_tiles else 0.0)
        return total


def skip_masked_for(machine: Machine) -> SkipMasked:
    """The pass for a machine."""
    return SkipMasked(machine.tcore_cols, machine.dies * machine.spcs_per_die, GROUP_TILES)


def _parts(pieces: AttentionPieces, groups: Sequence[_Rows]) -> list[str]:
    """An attention for each group of rows."""
    softmax, parts = pieces.attention.softmax, []
    for first in range(0, len(groups), TOGETHER):
        together = groups[first : first + TOGETHER]
        shares = [pieces.again(softmax, pieces.scores(group.rows, group.columns)) for group in together]
        parts += [pieces.product(made, group.columns) for made, group in zip(shares, together, strict=True)]
    return parts
