"""Lowerings of one step of Adagrad, Adam and Momentum on one tensor and on several, first and later."""

from __future__ import annotations

from typing import Any

import numpy as np
from lowering_case import F32, I64, Case, case, f32

RATE = np.array(0.1, F32)


def step(op: str, count: int, tensors: int, states: int, **attributes: Any) -> Case:
    """An update after `count` others; states are not negative, as sums of squares are."""
    shapes = [(2, 3), (4,)][:tensors]
    kinds = [
        *(f32(*shape) for shape in shapes),
        *(f32(*shape[::-1]).reshape(shape) for shape in shapes),
        *(f32(*shape, low=0.1) + 0.1 * state for state in range(states) for shape in shapes),
    ]
    scalars = (RATE, np.array(count, I64))
    return case(
        op, *scalars, *kinds, outputs=tensors * (states + 1), domain="ai.onnx.preview.training", oracle="onnx",
        **attributes,
    )  # fmt: skip


MOMENTUM = {"alpha": 0.9, "beta": 0.5, "norm_coefficient": 0.01}

CASES = tuple(
    step(op, count, tensors, states, **attributes)
    for op, states, attributes in (
        ("Adagrad", 1, {}),
        ("Adagrad", 1, {"decay_factor": 0.1, "epsilon": 0.01, "norm_coefficient": 0.02}),
        ("Momentum", 1, {"mode": "standard", **MOMENTUM}),
        ("Momentum", 1, {"mode": "nesterov", **MOMENTUM}),
        ("Adam", 2, {}),
        ("Adam", 2, {"alpha": 0.5, "beta": 0.0, "epsilon": 0.01, "norm_coefficient": 0.1}),
        ("Adam", 2, {"norm_coefficient_post": 0.2}),
    )
    for count in (0, 1, 7)
    for tensors in (1, 2)
    if (op, tensors) != ("Adam", 1) or count == 0  # else the oracle's result is of double precision
)
