"""The powers of a softmax: a factor of all its scores is multiplied with log2(e).

exp(s*c - max(s*c)) = exp2((s - max(s)) * (c*log2(e))) for c > 0: one multiplication less for each score, and one
rounding less. What a mask puts in the place of a score is divided by c.

exp(x - max(x)) with x = s*c + m is exp2(y - max(y)) with y = s*(c*log2(e)) + m*log2(e): as many roundings, but one
multiplication less for each score where the mask m has only a row.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from birc.compiler.passes.lower.expression import Builder, Expression, moving
from birc.compiler.passes.lower.macros import LOG2_E

SMALLEST_FACTOR, LARGEST_FACTOR = 2.0**-60, 2.0**60
"""Between these, scores whose difference is beyond FP32 have the power 0 in both forms."""

LARGEST_SCALED = 2e38
"""Times log2(e) it is an FP32 number."""


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


def in_octaves(b: Builder, scores: Expression, rows: Collection[str]) -> Expression | None:
    """Sums of scaled scores and a mask that does not move along `rows`, times log2(e); None where they are no such.

    What would overflow of the mask stays as it is: it outweighs all scores either way.
    """
    if scores.op != "vadd" or len(scores.inputs) != 2:
        return None
    for product, mask in (scores.inputs, scores.inputs[::-1]):
        factors = [a for a in product.arguments if isinstance(a, float)]
        if product.op == "vmul" and len(factors) == 1 and not moving(mask) & set(rows):
            scaled = b.op("vmul", product.inputs[0], factors[0] * LOG2_E)
            fits = b.op("vlt", b.op("vabs", mask), LARGEST_SCALED)
            return b.op("vadd", scaled, b.op("vsel", fits, b.op("vmul", mask, LOG2_E), mask))
    return None


def _quotient(number: float, factor: float) -> float:
    """What becomes the number when multiplied, but no infinity of what is finite."""
    if not math.isfinite(number):
        return number
    largest = float(np.finfo(np.float32).max)
    return float(np.float32(min(max(number / factor, -largest), largest)))
