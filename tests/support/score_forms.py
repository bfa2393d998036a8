"""The scores of an attention as exporters write them: scaled, masked, with keys transposed between reshapes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from graph_maker import GraphMaker

Body = Callable[[GraphMaker], str]


def masked(low: float, *, first: bool = False, rows: int = 4) -> Body:
    """A softmax over scores to which a causal mask is added."""

    def body(make: GraphMaker) -> str:
        mask = make.constant(np.triu(np.full((rows, 4), low), 1 if rows > 1 else 3)[None])
        scores = make.input(2, 4, 4)
        return make("softmax", make("add", *((mask, scores) if first else (scores, mask))), axis=2)

    return body


def masked_otherwise(mask: object, axis: int = 2) -> Body:
    return lambda make: make("softmax", make("add", make.input(2, 4, 4), make.constant(mask)), axis=axis)


def scaled_scores(scaled: int, *, masked: bool = False, first: bool = False, factor: object = 0.25) -> Body:
    """A softmax over a product of which one operand is scaled."""

    def body(make: GraphMaker) -> str:
        operands = [make.input(2, 5, 4), make.input(2, 4, 6)]
        pair = (make.constant(factor), operands[scaled]) if first else (operands[scaled], make.constant(factor))
        operands[scaled] = make("mul", *pair)
        scores = make("matmul", *operands)
        return make("softmax", make("add", scores, make.random(5, 6)) if masked else scores, axis=2)

    return body


def turned_keys(merged: tuple[int, ...], perm: tuple[int, ...], shape: tuple[int, ...]) -> Body:
    """Axes of [2, 3, 5, 4] merged, transposed and split again."""

    def body(make: GraphMaker) -> str:
        inner = make("reshape", make.input(2, 3, 5, 4), shape=merged)
        return make("reshape", make("transpose", inner, perm=perm), shape=shape)

    return body
