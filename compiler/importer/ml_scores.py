"""What the models of ai.onnx.ml do with their scores: transforms, and the labels of classes."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.importer.argmax import position_of
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import reduced
from birc.compiler.importer.floats import divisor
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError

TRANSFORMS: Final = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
"""In the order of the numbers that TreeEnsemble gives them."""

_NEAR_ZERO: Final = 1e-7
"""Scores that SOFTMAX_ZERO leaves 0 (onnxruntime, ml_common.h)."""

_WINITZKI: Final = 0.147
"""The constant of the inverse error function's approximation (Winitzki 2008), as in onnxruntime."""


def transformed(node: OnnxNode, build: GraphBuilder, scores: str, transform: str) -> str:
    """Scores (samples, targets) after `transform`. Raises `BadModelError` for an unknown one."""
    if transform == "NONE":
        return scores
    if transform == "LOGISTIC":
        return build.emit("sigmoid", (scores,))
    if transform == "SOFTMAX":
        return build.emit("softmax", (scores,), {"axis": 1})
    if transform == "SOFTMAX_ZERO":
        return _softmax_zero(build, scores)
    if transform == "PROBIT":
        return _probit(build, scores)
    raise BadModelError(f"post_transform {transform!r}", where=node.where)


def _softmax_zero(build: GraphBuilder, scores: str) -> str:
    """Softmax of the scores that are not 0, which stay what they are times exp(-max)."""
    peak = reduced(build, "reduce_max", scores, 1, keep=True)
    powers = build.emit("exp", (build.emit("sub", (scores, peak)),))
    small = build.emit("mul", (scores, build.emit("exp", (build.emit("neg", (peak,)),))))
    limit = build.scalar(_NEAR_ZERO, scores)
    is_zero = build.emit("less_equal", (build.emit("abs", (scores,)), limit))
    terms = build.emit("where", (is_zero, small, powers))
    total = reduced(build, "reduce_sum", terms, 1, keep=True)
    is_empty = build.emit("equal", (total, build.scalar(0, total)))
    shares = build.emit("div", (terms, divisor(build, total)))
    return build.emit("where", (is_empty, build.scalar(0.5, scores), shares))


def _probit(build: GraphBuilder, scores: str) -> str:
    """sqrt(2) times the inverse error function of 2 x - 1."""
    x = build.emit("sub", (build.emit("mul", (scores, build.scalar(2, scores))), build.scalar(1, scores)))
    one = build.scalar(1, x)
    rest = build.emit("mul", (build.emit("sub", (one, x)), build.emit("add", (one, x))))
    logarithm = build.emit("log", (rest,))
    half = build.emit("mul", (logarithm, build.scalar(0.5, x)))
    v = build.emit("add", (half, build.scalar(2.0 / (math.pi * _WINITZKI), x)))
    ratio = build.emit("mul", (logarithm, build.scalar(1.0 / _WINITZKI, x)))
    root = build.emit("sqrt", (build.emit("sub", (build.emit("mul", (v, v)), ratio)),))
    size = build.emit("sqrt", (build.emit("sub", (root, v)),))
    bent = build.emit("mul", (build.emit("sign", (x,)), size))
    return build.emit("mul", (bent, build.scalar(math.sqrt(2.0), x)))


def labels_of_best(build: GraphBuilder, scores: str, labels: np.ndarray) -> str:
    """For each sample the label of its first largest score."""
    best = reshape(build, position_of(build, scores, "reduce_max", 1), build.shape(scores)[:1])
    return build.emit("gather", (build.constant(labels), best), {"axis": 0})


def of_two_classes(
    build: GraphBuilder, score: str, labels: np.ndarray, transform: str, *, limit: float, is_share: bool
) -> tuple[str, str]:
    """The label and both scores from the score of the second class alone: that label where it is above `limit`.

    The first score is 1 - s of a share and -s of any other; LOGISTIC is of s and -s. That is onnxruntime's reading,
    ONNX has none; of other transforms there are several.
    """
    if transform not in ("NONE", "LOGISTIC"):
        raise CannotLower(f"post_transform {transform} of the one score of two classes, which ONNX does not define")
    positive = build.emit("greater", (score, build.scalar(limit, score)))
    place = cast(build, reshape(build, positive, build.shape(score)[:1]), dtype("i32"))
    chosen = build.emit("gather", (build.constant(labels), place), {"axis": 0})
    if is_share and transform == "NONE":
        other = build.emit("sub", (build.scalar(1, score), score))
    else:
        other = build.emit("neg", (score,))
    both = build.emit("concat", (other, score), {"axis": 1})
    return chosen, build.emit("sigmoid", (both,)) if transform == "LOGISTIC" else both
