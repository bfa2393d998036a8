"""Rules on masks that are added to the scores of an attention."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.ir.attributes import integer
from birc.compiler.ir.graph import Node
from birc.compiler.passes.rules import Rewriter, Rule

WEIGHTLESS_TERM: Final = -1e9
"""What takes its share from a score when it is added: numbers of this size are 64 apart in FP32, so that a score that
made up for it would itself be known to no more digits."""


def choice_by_mask(rewriter: Rewriter, node: Node) -> str | None:
    """softmax(x + mask) = softmax(where(mask = 0, x, -inf)), where a constant mask is 0 or so low that no share is left

    Every row keeps a score. (A masked score that is infinite or no number no longer spoils its row.)
    """
    total = rewriter.producer(node.inputs[0], "add")
    if total is None or integer(node.attributes, "axis") != node.output.type.rank - 1:
        return None
    if not rewriter.has_one_use(total.name):
        return None
    for x, mask in (total.inputs, total.inputs[::-1]):
        constant = rewriter.constant(mask)
        if constant is None or rewriter.sizes(x) != total.output.type.sizes:
            continue
        sizes = constant.type.sizes
        if constant.data.size < 2 or constant.is_splat or sizes[-1] != total.output.type.sizes[-1]:
            continue
        values = np.asarray(constant.data)
        keeps = values == 0
        is_mask = not keeps.all() and np.all(keeps | (values <= WEIGHTLESS_TERM))
        if is_mask and keeps.any(axis=-1).all():
            condition = rewriter.add_constant(keeps, f"{mask}.keeps")
            low = rewriter.add_constant(np.array(-math.inf, values.dtype), f"{mask}.low")
            chosen = rewriter.emit("where", (condition, x, low), replaces=(total,))
            return rewriter.emit("softmax", (chosen,), node.attributes, replaces=(node,))
    return None


RULES: Final[tuple[Rule, ...]] = (Rule("choice-by-mask", "softmax", choice_by_mask),)
