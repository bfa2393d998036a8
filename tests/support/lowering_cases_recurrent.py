"""Lowerings of RNN, GRU and LSTM: directions, activations, lengths, layouts, peepholes, initial states."""

from __future__ import annotations

from typing import Any

import numpy as np
from lowering_case import F32, Case, case, f32

STEPS, BATCH, SIZE, HIDDEN = 4, 3, 5, 2
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
LENGTHS = np.array([2, 4, 1], np.int32)
FULL = np.full(3, STEPS, np.int32)


def recurrent(
    op: str,
    *,
    directions: int = 1,
    bias: bool = False,
    lengths: np.ndarray | None = None,
    initial: bool = False,
    peepholes: bool = False,
    known: tuple[int, ...] = (1, 2, 3),
    kind: type[np.generic] = F32,
    **attributes: Any,
) -> Case:
    """One of the operators on the common sizes, all of its outputs."""
    gates, by_batch = GATES[op], attributes.get("layout", 0)
    tolerance = attributes.pop("tolerance", 2e-5)
    first = f32(BATCH, STEPS, SIZE) if by_batch else f32(STEPS, BATCH, SIZE)
    state = f32(BATCH, directions, HIDDEN) if by_batch else f32(directions, BATCH, HIDDEN)
    inputs: list[np.ndarray | None] = [
        first,
        f32(directions, gates * HIDDEN, SIZE, low=-0.9, high=0.9),
        f32(directions, gates * HIDDEN, HIDDEN, low=-0.9, high=0.9),
        f32(directions, 2 * gates * HIDDEN) if bias else None,
        lengths,
        state if initial else None,
    ]
    if op == "LSTM":
        inputs.append(state[::-1, ::-1].copy() if initial else None)
        inputs.append(f32(directions, 3 * HIDDEN) if peepholes else None)
    inputs = [entry.astype(kind) if entry is not None and entry.dtype == F32 else entry for entry in inputs]
    outputs = 3 if op == "LSTM" else 2
    held = tuple(place for place in known if place < len(inputs) and inputs[place] is not None)
    options = {"opset": 14, **attributes, "hidden_size": HIDDEN}
    return case(op, *inputs, known=held, outputs=outputs, tolerance=tolerance, **options)


BOTH: dict[str, Any] = {"directions": 2, "direction": "bidirectional"}
FUNCTIONS = {
    "RNN": ["Relu", "LeakyRelu", "HardSigmoid", "Elu", "Softsign", "Softplus"],
    "GRU": ["HardSigmoid", "LeakyRelu"],
    "LSTM": ["HardSigmoid", "ScaledTanh", "Affine"],
}


def variants(op: str) -> tuple[Case, ...]:
    """What all three have in common."""
    return (
        recurrent(op),
        recurrent(op, opset=7, bias=True),
        recurrent(op, bias=True, initial=True, known=()),
        recurrent(op, bias=True, direction="reverse"),
        recurrent(op, bias=True, initial=True, **BOTH),
        recurrent(op, bias=True, initial=True, lengths=LENGTHS, **BOTH),
        recurrent(op, bias=True, initial=True, lengths=LENGTHS, known=(1, 2, 3, 4), **BOTH),
        recurrent(op, lengths=FULL, known=(1, 2, 4)),
        recurrent(op, lengths=np.array([2, 2, 1], np.int32), known=(1, 2, 4), direction="reverse"),
        recurrent(op, clip=0.3, bias=True),
        recurrent(op, kind=np.float16, initial=True, opset=22, oracle="onnx", tolerance=2e-2),
    )


CASES = (
    *(entry for op in GATES for entry in variants(op)),
    *(recurrent("RNN", activations=[name], bias=True) for name in FUNCTIONS["RNN"]),
    recurrent("RNN", activations=["Affine"], activation_alpha=[0.5], activation_beta=[0.25]),
    recurrent("RNN", activations=["ThresholdedRelu"], activation_alpha=[0.5]),
    recurrent("RNN", activations=["Relu", "ScaledTanh"], activation_alpha=[0.5], activation_beta=[0.7], **BOTH),
    recurrent("GRU", bias=True, initial=True, linear_before_reset=1, **BOTH),
    recurrent("GRU", linear_before_reset=1),
    recurrent("GRU", bias=True, activations=FUNCTIONS["GRU"], activation_alpha=[0.3, 0.1], activation_beta=[0.4]),
    recurrent("LSTM", bias=True, initial=True, peepholes=True, **BOTH),
    recurrent("LSTM", bias=True, peepholes=True, known=()),
    recurrent("LSTM", bias=True, input_forget=1),
    recurrent("LSTM", bias=True, initial=True, lengths=LENGTHS, peepholes=True, direction="reverse"),
    recurrent("LSTM", bias=True, activations=FUNCTIONS["LSTM"], activation_alpha=[0.3, 0.9, 0.8],
              activation_beta=[0.4, 0.7, 0.1]),
    recurrent("RNN", layout=1, bias=True, oracle="onnx"),
    recurrent("GRU", layout=1, bias=True, oracle="onnx"),
    recurrent("LSTM", layout=1, bias=True, peepholes=True, oracle="onnx"),
)  # fmt: skip
