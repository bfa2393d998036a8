"""The powers of a softmax: a factor of all its scores is multiplied with log2(e), once the maximum is subtracted.

exp(s*c - max(s*c)) = exp2((s - max(s)) * (c*log2(e))) for c > 0: one multiplication less for each score, and one
rounding less. What a mask puts in the place of a score is divided by c.
"""

from __future__ import annotations

import math

import numpy as np

from birc.compiler.passes.lower.expression import Builder, Expression
from birc.compiler.passes.lower.macros import LOG2_E

SMALLEST_FACTOR, LARGEST_FACTOR = 2.0**-60, 2.0**60
"""Between these, scores whose difference is beyond FP32 have the power 0 in both forms."""


def unscaled(b: Builder, scores: Expression) -> tuple[Expression, float]:
    """Values of which the scores are a multiple, in order, and the factor."""
    if scores.op == "vmul" and len(scores.inputs) == 1:
        factor = next(a for a in scores.arguments if isinstance(a, float))
        inner, rest = unscaled(b, scores.inputs[0])
        if SMALLEST_FACTOR <= factor * rest <= LARGEST_FACTOR:
            return inner, factor * rest
    if scores.op == "vsel" and len(scores.inputs) == 2 and isinstance(scores.arguments[0], Expression):
        condition, *choices = scores.arguments
        chosen, factor = unscaled(b, scores.inputs[1])
        if factor != 1.0 and not isinstance(condition, float):
            first, second = (chosen if isinstance(c, Expression) else _quotient(c, factor) for c in choices)
            return b.op("vsel", condition, first, second), factor
    return scores, 1.0


def powers(b: Builder, shifted: Expression, factor: float) -> Expression:
    """e to the power of differences times a factor."""
    return b.op("vexp2", b.op("vmul", shifted, factor * LOG2_E))


def _quotient(number: float, factor: float) -> float:
    """What becomes the number when multiplied, but no infinity of what is finite."""
    if not math.isfinite(number):
        return number
    largest = float(np.finfo(np.float32).max)
    return float(np.float32(min(max(number / factor, -largest), largest)))
