"""Attentions in a graph: their nodes, and the same nodes again for some of their rows and columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from birc.compiler.ir.attributes import AttributeValue, integer
from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import Graph, Node

WEIGHTLESS = -1e30
"""A score as low as this has the share 0.0 in FP32 beside any score that a model means."""

Range = tuple[int, int]
"""The first of some rows or columns, and the first behind them."""


@dataclass(frozen=True, slots=True)
class Attention:
    """softmax(where(mask, q @ k * factors + terms, low)) @ v, by its nodes, with a constant mask or without.

    `scores` are the product q @ k and what scales it or is added, in order; `choice` is the one by the mask, and
    `keeps` where that lets scores through (None: there is no mask).
    """

    scores: tuple[Node, ...]
    choice: Node | None
    softmax: Node
    context: Node
    keeps: np.ndarray | None

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the scores."""
        return self.scores[0].output.type.sizes


def attention_of(graph: Graph, softmax: Node) -> Attention | None:
    """The attention around a softmax; None when it is not of this form, or something else reads of it."""
    if softmax.op != "softmax" or integer(softmax.attributes, "axis") != softmax.output.type.rank - 1:
        return None
    context = graph.only_user(softmax)
    if context is None or context.op != "matmul" or context.inputs[0] != softmax.name:
        return None
    chosen = _chosen(graph, softmax)
    if chosen is None:
        return None
    choice, keeps, name, reader = chosen
    scores = _scores(graph, name, reader)
    sizes = softmax.output.type.sizes
    if not scores or any(graph.type_of(n).rank != len(sizes) for n in (*scores[0].inputs, context.inputs[1])):
        return None
    if keeps is not None and (
        keeps.ndim < 2 or keeps.shape[-1] != sizes[-1] or not keeps.any(axis=-1).all()
    ):  # fmt: skip
        return None
    return Attention(scores, choice, softmax, context, keeps)


def _chosen(graph: Graph, softmax: Node) -> tuple[Node | None, np.ndarray | None, str, Node] | None:
    """The choice by a constant mask in front of a softmax, if any, what it keeps, and the scores with their reader."""
    choice = graph.producer(softmax.inputs[0])
    if choice is None or choice.op != "where":
        return None, None, softmax.inputs[0], softmax
    condition, *options = choice.inputs
    place = next((n for n, name in enumerate(options) if _is_weightless(graph, name)), None)
    mask = graph.constants.get(condition)
    if place is None or mask is None or graph.only_user(choice) is not softmax:
        return None
    keeps = np.asarray(mask.data) if place == 1 else ~np.asarray(mask.data)
    return choice, keeps, options[1 - place], choice


def _scores(graph: Graph, name: str, reader: Node) -> tuple[Node, ...]:
    """The product that a value is computed from, its factors and terms; empty when it is none that only this reads."""
    nodes: list[Node] = []
    while True:
        node = graph.producer(name)
        if node is None or graph.only_user(node) is not reader:
            return ()
        nodes.append(node)
        if node.op == "matmul":
            return tuple(reversed(nodes))
        if node.op not in ("mul", "add") or graph.type_of(node.inputs[0]).sizes != node.output.type.sizes:
            return ()
        if not _is_finite(graph, node.inputs[1]) or (node.op == "mul" and not _is_scalar(graph, node.inputs[1])):
            return ()
        name, reader = node.inputs[0], node


def _is_finite(graph: Graph, name: str) -> bool:
    """Whether a value is known, and has no infinities."""
    constant = graph.constants.get(name)
    return constant is not None and bool(np.isfinite(np.asarray(constant.data, np.float64)).all())


def _is_scalar(graph: Graph, name: str) -> bool:
    """Whether a value is one known number."""
    constant = graph.constants.get(name)
    return constant is not None and constant.data.size == 1 and constant.type.rank == 0


def _is_weightless(graph: Graph, name: str) -> bool:
    """Whether a value is one number, so low that it gets no share."""
    return _is_scalar(graph, name) and float(graph.constants[name].data) <= WEIGHTLESS


@dataclass(frozen=True, slots=True)
class AttentionPieces:
    """Adds the nodes of an attention again, for some rows and columns of the scores; `masks` have been cut already."""

    editor: GraphEditor
    attention: Attention
    masks: dict[tuple[str, Range, Range], str] = field(default_factory=dict)

    def scores(self, rows: Range, columns: Range, *, is_finite: bool = False) -> str:
        """Some scores, under the mask where it covers any of them.

        With `is_finite` the mask leaves a finite number, not minus infinity: it may cover a whole row of these.
        """
        attention = self.attention
        product, *others = attention.scores
        value = self.again(product, self._cut(product, 0, rows, None), self._cut(product, 1, None, columns))
        for node in others:
            value = self.again(node, value, self._cut(node, 1, rows, columns))
        choice, keeps = attention.choice, attention.keeps
        if choice is None or keeps is None:
            return value
        kept = keeps[..., slice(*rows) if keeps.shape[-2] > 1 else slice(None), slice(*columns)]
        if kept.all():
            return value
        condition, *options = choice.inputs
        key = condition, rows, columns
        if key not in self.masks:
            is_kept = np.array_equal(keeps, self.editor.constants[condition].data)
            self.masks[key] = self.editor.add_constant(np.ascontiguousarray(kept if is_kept else ~kept), condition)
        chosen = (value if name == attention.scores[-1].name else self._low(name, is_finite) for name in options)
        return self.again(choice, self.masks[key], *chosen)

    def _low(self, name: str, is_finite: bool) -> str:
        """What the mask puts in the place of scores."""
        low = self.editor.constants[name]
        if not is_finite or np.isfinite(np.asarray(low.data, np.float64)):
            return name
        return self.editor.add_constant(np.asarray(WEIGHTLESS, low.data.dtype), name)

    def product(self, shares: str, columns: Range) -> str:
        """Shares by the values that they are of, lying as the whole does."""
        context = self.attention.context
        return self.laid_out(self.again(context, shares, self._cut(context, 1, columns, None)))

    def again(self, node: Node, *inputs: str) -> str:
        """A node of the attention with other operands."""
        return self.add(node.op, inputs, node.attributes, like=node)

    def add(
        self, op: str, inputs: tuple[str, ...], attributes: Mapping[str, AttributeValue] | None = None, *, like: Node
    ) -> str:
        """A node that stands for one of the attention, and its result."""
        return self.editor.add(
            op, inputs, attributes, stem=like.name, sources=like.sources, before=self.attention.context
        )

    def laid_out(self, name: str) -> str:
        """A value that lies as the result of the attention does."""
        return self.editor.lay_out(name, self.attention.context.output.type.layout)

    def _cut(self, node: Node, place: int, rows: Range | None, columns: Range | None) -> str:
        """Some rows and columns (None: all) of an operand, where it has more than one."""
        name = node.inputs[place]
        sizes = self.editor.type_of(name).sizes
        wanted = (*(None for _ in sizes), rows, columns)[-len(sizes) :] if sizes else ()
        bounds = [(0, n) if one is None or n == 1 else one for n, one in zip(sizes, wanted, strict=True)]
        if bounds == [(0, size) for size in sizes]:
            return name
        attributes: dict[str, AttributeValue] = {
            "starts": tuple(start for start, _ in bounds),
            "ends": tuple(end for _, end in bounds),
            "steps": (1,) * len(sizes),
        }
        return self.add("slice", (name,), attributes, like=node)
