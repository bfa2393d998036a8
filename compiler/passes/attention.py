"""Attentions in a graph, by their nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from birc.compiler.ir.attributes import integer
from birc.compiler.ir.graph import Graph, Node

WEIGHTLESS = -1e30
"""A score as low as this has the share 0.0 in FP32 beside any score that a model means."""

Range = tuple[int, int]
"""The first of some rows or columns, and the first behind them."""


@dataclass(frozen=True, slots=True)
class Attention:
    """softmax(where(mask, q @ k * factors + terms, low)) @ v, by its nodes, with a constant mask or without.

    `scores` are the product q @ k and what scales it or is added, in order; `choice` is the one by the mask, and
    `keeps` where that lets scores through, if that is known. `masked` is the term or choice by a mask of run time.
    """

    scores: tuple[Node, ...]
    choice: Node | None
    softmax: Node
    context: Node
    keeps: np.ndarray | None
    masked: Node | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the scores."""
        return self.scores[0].output.type.sizes


def attention_of(graph: Graph, softmax: Node, *, run_time: bool = False) -> Attention | None:
    """The attention around a softmax; None when it is not of this form, or something else reads of it.

    With `run_time` it may be under a mask that is known at run time only, and then under no other.
    """
    if softmax.op != "softmax" or integer(softmax.attributes, "axis") != softmax.output.type.rank - 1:
        return None
    context = graph.only_user(softmax)
    if context is None or context.op != "matmul" or context.inputs[0] != softmax.name:
        return None
    chosen = _chosen(graph, softmax)
    if chosen is None:
        return None
    choice, keeps, name, reader = chosen
    scores = _scores(graph, name, reader, run_time)
    sizes = softmax.output.type.sizes
    if not scores or any(graph.type_of(n).rank != len(sizes) for n in (*scores[0].inputs, context.inputs[1])):
        return None
    if keeps is not None and (
        keeps.ndim < 2 or keeps.shape[-1] != sizes[-1] or not keeps.any(axis=-1).all()
    ):  # fmt: skip
        return None
    masked = [(node, node.inputs[1]) for node in scores[1:] if node.inputs[1] not in graph.constants]
    if choice is not None and (masked or keeps is None):
        masked.append((choice, choice.inputs[0]))
    if not masked:
        return Attention(scores, choice, softmax, context, keeps)
    is_one = len(masked) == 1 and graph.type_of(masked[0][1]).rank > 0
    return Attention(scores, choice, softmax, context, None, masked[0][0]) if run_time and is_one else None


def _chosen(graph: Graph, softmax: Node) -> tuple[Node | None, np.ndarray | None, str, Node] | None:
    """The choice by a mask in front of a softmax, if any, what it keeps if known, and the scores with their reader."""
    choice = graph.producer(softmax.inputs[0])
    if choice is None or choice.op != "where":
        return None, None, softmax.inputs[0], softmax
    condition, *options = choice.inputs
    mask = graph.constants.get(condition)
    most = 0.0 if mask is None else WEIGHTLESS
    place = next((n for n, name in enumerate(options) if _is_number(graph, name, most)), None)
    if place is None or graph.only_user(choice) is not softmax:
        return None
    if mask is None:
        return choice, None, options[1 - place], choice
    keeps = np.asarray(mask.data) if place == 1 else ~np.asarray(mask.data)
    return choice, keeps, options[1 - place], choice


def _scores(graph: Graph, name: str, reader: Node, run_time: bool) -> tuple[Node, ...]:
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
        other = node.inputs[1]
        if not (run_time and node.op == "add" and other not in graph.constants) and not _is_finite(graph, other):
            return ()
        if node.op == "mul" and not _is_scalar(graph, other):
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


def _is_number(graph: Graph, name: str, most: float) -> bool:
    """Whether a value is one known number, at most as high."""
    return _is_scalar(graph, name) and float(graph.constants[name].data) <= most
