"""Lowerings of element-wise ops on every width of integers, of ops on bits, and of angles."""

from __future__ import annotations

import numpy as np
from lowering_case import Case, case, f32

SIGNED = (np.int8, np.int16, np.int32, np.int64)
UNSIGNED = (np.uint8, np.uint16, np.uint32, np.uint64)
EVERY = (*SIGNED, *UNSIGNED)


def whole(kind: type, *shape: int, low: int = -100, high: int = 100) -> np.ndarray:
    """Random integers of a type, of those at least `low` that it holds."""
    least = max(low, int(np.iinfo(kind).min))
    return np.random.default_rng([*shape, high]).integers(least, high, shape, dtype=kind)


def _bits(kind: type) -> tuple[Case, ...]:
    x, y = whole(kind, 3, 4), whole(kind, 4, high=120)
    binary = (case(op, x, y, opset=18, oracle="onnx") for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"))
    return (*binary, case("BitwiseNot", x, opset=18, oracle="onnx"))


def _shifts(kind: type) -> tuple[Case, ...]:
    x, places = whole(kind, 3, 4), whole(kind, 4, low=-5, high=80)
    return tuple(case("BitShift", x, places, opset=28, oracle="onnx", direction=way) for way in ("LEFT", "RIGHT"))


def _quotients(kind: type) -> tuple[Case, ...]:
    x, y = whole(kind, 3, 4, high=120), whole(kind, 4, low=-7, high=9)
    y = np.where(y == 0, kind(3), y).astype(kind)
    return (case("Div", x, y, opset=14, oracle="onnx"), case("Mod", x, y, opset=13),
            case("Mod", x, y, opset=13, fmod=1))  # fmt: skip


FLOATS = np.array([1.0, -2.5, 3.75, np.inf], np.float32)

CASES = (
    *(entry for kind in EVERY for entry in (*_bits(kind), *_shifts(kind), *_quotients(kind))),
    case("BitShift", whole(np.uint32, 5), whole(np.uint32, 5, high=30), opset=11, direction="RIGHT"),
    *(case(op, f32(3, 5, low=-1.0, high=1.0)) for op in ("Acos", "Asin", "Atan")),
    case("BitCast", FLOATS, opset=26, oracle="onnx", to=6),
    case("BitCast", FLOATS.view(np.int32).reshape(2, 2), opset=26, oracle="onnx", to=1),
    case("BitCast", whole(np.int8, 5), opset=26, oracle="onnx", to=2),
    case("BitCast", whole(np.int64, 5), opset=26, oracle="onnx", to=11),
    *(
        case("Pow", whole(kind, 3, 4, low=-3, high=4), whole(kind, 4, low=0, high=5), opset=15)
        for kind in (np.int32, np.int64)
    ),
)
