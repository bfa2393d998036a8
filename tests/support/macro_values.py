"""Expressions of vector instructions, evaluated by the machine's own arithmetic."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from birc.compiler.passes.lower.expression import Expression
from birc.runtime.alu import elementwise


def evaluate(value: Expression | float, loaded: Mapping[Expression, np.ndarray]) -> np.ndarray:
    """The lanes of an expression whose loads are given; what is used twice is computed once."""
    if isinstance(value, float):
        return np.asarray(value, np.float32)
    found = dict(loaded)
    pending = [value]
    while pending:
        top = pending[-1]
        waiting = [e for e in top.inputs if e not in found]
        if top in found or waiting:
            pending.extend(waiting)
            if top in found:
                pending.pop()
            continue
        pending.pop()
        arguments = [a if isinstance(a, float) else found[a] for a in top.arguments]
        if top.op == "vmovi":
            found[top] = np.full((1,), arguments[0], np.float32)
        else:
            found[top] = elementwise(top.op, arguments)
    return found[value]
