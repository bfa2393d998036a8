"""Pass: attention whose mask is known computes the scores that it lets through, block by block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from birc.compiler.ir.attributes import AttributeValue, integer
from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.passes.base import Pass, PassResult, finish_edit
from birc.runtime.machine import Machine

WEIGHTLESS = -1e30
"""A score as low as this has the share 0.0 in FP32 beside any score that a model means."""

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
class _Attention:
    """softmax(where(mask, q @ k * factors, low)) @ v, by its nodes; `keeps` is where the mask lets scores through.

    `scores` are the product q @ k and what scales it, in order.
    """

    scores: tuple[Node, ...]
    choice: Node
    softmax: Node
    context: Node
    keeps: np.ndarray

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the scores."""
        return self.scores[0].output.type.sizes


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
        found = [a for node in graph.nodes if (a := _attention(graph, node)) is not None]
        cut = [(attention, rows) for attention in found if (rows := self._groups(attention))]
        if not cut:
            return PassResult(graph, False)
        editor = GraphEditor(graph, self.name)
        masks: dict[tuple[str, _Rows], str] = {}
        for attention, rows in cut:
            _rewrite(editor, attention, rows, masks)
        editor.drop_unused()
        return PassResult(finish_edit(editor, graph), True, {"attentions": len(cut)})

    def _groups(self, attention: _Attention) -> list[_Rows]:
        """The groups of rows that take least; none when that is all rows with all columns."""
        *batch, rows, columns = attention.sizes
        whole = _Rows(0, rows, 0, columns, 0)
        best = [whole]
        for count in range(1, MOST_GROUPS + 1):
            if rows % (count * self.tile) and count > 1:
                continue
            size = rows // count
            groups = [self._kept(attention.keeps, n * size, (n + 1) * size) for n in range(count)]
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


def _attention(graph: Graph, softmax: Node) -> _Attention | None:
    """The attention around a softmax; None when it is not of this form, or something else reads of it."""
    if softmax.op != "softmax" or integer(softmax.attributes, "axis") != softmax.output.type.rank - 1:
        return None
    context = graph.only_user(softmax)
    choice = graph.producer(softmax.inputs[0])
    if context is None or context.op != "matmul" or context.inputs[0] != softmax.name or choice is None:
        return None
    if choice.op != "where" or graph.only_user(choice) is not softmax:
        return None
    condition, *options = choice.inputs
    place = next((n for n, name in enumerate(options) if _is_weightless(graph, name)), None)
    mask = graph.constants.get(condition)
    if place is None or mask is None:
        return None
    scores = _scores(graph, options[1 - place], choice)
    sizes = choice.output.type.sizes
    if not scores or any(graph.type_of(n).rank != len(sizes) for n in (*scores[0].inputs, context.inputs[1])):
        return None
    keeps = np.asarray(mask.data) if place == 1 else ~np.asarray(mask.data)
    if keeps.ndim < 2 or keeps.shape[-1] != sizes[-1] or not keeps.any(axis=-1).all():
        return None
    return _Attention(scores, choice, softmax, context, keeps)


def _scores(graph: Graph, name: str, reader: Node) -> tuple[Node, ...]:
    """The product of which `name` is a multiple, and its factors; empty when it is none that only this reads."""
    nodes: list[Node] = []
    while True:
        node = graph.producer(name)
        if node is None or graph.only_user(node) is not reader:
            return ()
        nodes.append(node)
        if node.op == "matmul":
            return tuple(reversed(nodes))
        if node.op != "mul" or not _is_scalar(graph, node.inputs[1]):
            return ()
        name, reader = node.inputs[0], node


def _is_scalar(graph: Graph, name: str) -> bool:
    constant = graph.constants.get(name)
    return constant is not None and constant.data.size == 1 and constant.type.rank == 0


def _is_weightless(graph: Graph, name: str) -> bool:
    """Whether a value is one number, so low that it gets no share."""
    return _is_scalar(graph, name) and float(graph.constants[name].data) <= WEIGHTLESS


def _rewrite(
    editor: GraphEditor, attention: _Attention, groups: Sequence[_Rows], masks: dict[tuple[str, _Rows], str]
) -> None:
    """Put an attention for each group of rows, and their results one below the other, in the place of the whole."""
    context, type = attention.context, attention.context.output.type
    parts: list[str] = []
    for first in range(0, len(groups), TOGETHER):
        together = groups[first : first + TOGETHER]
        shares = [_shares(editor, attention, group, masks) for group in together]
        parts += [_product(editor, attention, *pair) for pair in zip(shares, together, strict=True)]
    whole = parts[0]
    if len(parts) > 1:
        attributes: dict[str, AttributeValue] = {"axis": type.rank - 2}
        whole = editor.add("concat", parts, attributes, stem=context.name, sources=context.sources, before=context)
        _lay_out(editor, whole, type.layout)
    editor.replace(context, whole)


def _shares(editor: GraphEditor, attention: _Attention, group: _Rows, masks: dict[tuple[str, _Rows], str]) -> str:
    """The shares of one group of rows."""
    product, *factors = attention.scores
    rows, columns = (group.first, group.last), (group.left, group.right)
    q = _cut(editor, attention, product, 0, rows, None)
    k = _cut(editor, attention, product, 1, None, columns)
    value = _again(editor, attention, product, q, k)
    for factor in factors:
        value = _again(editor, attention, factor, value, factor.inputs[1])
    condition, *options = attention.choice.inputs
    kept = attention.keeps[..., slice(*rows) if attention.keeps.shape[-2] > 1 else slice(None), slice(*columns)]
    if not kept.all():
        key = condition, group
        if key not in masks:
            is_kept = np.array_equal(attention.keeps, editor.constants[condition].data)
            masks[key] = editor.add_constant(np.ascontiguousarray(kept if is_kept else ~kept), condition)
        chosen = (value if name == attention.scores[-1].name else name for name in options)
        value = _again(editor, attention, attention.choice, masks[key], *chosen)
    return _again(editor, attention, attention.softmax, value)


def _product(editor: GraphEditor, attention: _Attention, shares: str, group: _Rows) -> str:
    """The shares of one group of rows by the values that they are of."""
    context = attention.context
    values = _cut(editor, attention, context, 1, (group.left, group.right), None)
    result = _again(editor, attention, context, shares, values)
    _lay_out(editor, result, context.output.type.layout)
    return result


def _again(editor: GraphEditor, attention: _Attention, node: Node, *inputs: str) -> str:
    """A node of the attention with other operands."""
    before = attention.context
    return editor.add(node.op, inputs, node.attributes, stem=node.name, sources=node.sources, before=before)


def _cut(
    editor: GraphEditor,
    attention: _Attention,
    node: Node,
    place: int,
    rows: tuple[int, int] | None,
    columns: tuple[int, int] | None,
) -> str:
    """Some rows and columns (None: all) of an operand of a product."""
    name, before = node.inputs[place], attention.context
    sizes = editor.type_of(name).sizes
    bounds = [*((0, size) for size in sizes[:-2]), rows or (0, sizes[-2]), columns or (0, sizes[-1])]
    if bounds == [(0, size) for size in sizes]:
        return name
    attributes: dict[str, AttributeValue] = {
        "starts": tuple(start for start, _ in bounds),
        "ends": tuple(end for _, end in bounds),
        "steps": (1,) * len(sizes),
    }
    return editor.add("slice", (name,), attributes, stem=node.name, sources=node.sources, before=before)


def _lay_out(editor: GraphEditor, name: str, layout: tuple[int, ...] | None) -> None:
    """Let a value lie as the one that it is made for."""
    node = editor.producer(name)
    if node is not None and layout is not None:
        output = replace(node.output, type=replace(node.output.type, layout=layout))
        editor.update(node, outputs=(output,))
