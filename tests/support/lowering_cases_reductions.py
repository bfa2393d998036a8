"""Lowerings of reductions: every element type, axes that are known, left out, or given at run time."""

from __future__ import annotations

import numpy as np
from lowering_case import F32, case, f32, ints

X = f32(2, 3, 4)
CUBE = f32(3, 3, 3, low=0.5)
WHOLE = np.arange(-12, 12).reshape(2, 3, 4) * 7 % 11 - 5
TRUTH = WHOLE > 0
EMPTY = np.zeros((2, 0, 4), F32)
NO_AXES = ints()
ANY = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
PARTLY_INFINITE = np.array([[-np.inf, -np.inf, -np.inf], [np.inf, 1, -np.inf], [-np.inf, 2, 3], [0, 700, 699]], F32)

CASES = (
    *(case(op, CUBE, ints(-2), keepdims=0, shapes=((3, 3),)) for op in ANY),
    *(case(op, CUBE, ints(2, 0), shapes=((1, 3, 1),)) for op in ANY),
    *(case(op, CUBE, NO_AXES, shapes=((1, 1, 1),)) for op in ANY),
    *(case(op, X, NO_AXES, noop_with_empty_axes=1, oracle="onnx") for op in ("ReduceL1", "ReduceSumSquare")),
    *(case(op, EMPTY, ints(1), known=(1,), oracle="onnx") for op in ANY),
    *(case(op, EMPTY, ints(1), keepdims=0, shapes=((2, 4),), oracle="onnx") for op in ANY),
    *(case(op, EMPTY, ints(0), known=(1,), oracle="onnx") for op in ("ReduceSum", "ReduceMin")),
    *(case(op, WHOLE.astype(np.int32), ints(1), known=(1,)) for op in ANY if "Log" not in op),
    *(case(op, WHOLE.astype(np.int64), ints(0, 2), known=(1,)) for op in ("ReduceProd", "ReduceSum", "ReduceMin")),
    *(case(op, WHOLE.astype(np.int8), ints(2), known=(1,)) for op in ("ReduceMax", "ReduceMin")),
    *(case(op, (WHOLE + 250).astype(np.uint8), ints(0), known=(1,)) for op in ("ReduceMax", "ReduceMin")),
    *(case(op, TRUTH, ints(-1), known=(1,), opset=20) for op in ("ReduceMax", "ReduceMin")),
    *(case(op, TRUTH[:, :0], ints(1), known=(1,), opset=20, oracle="onnx") for op in ("ReduceMax", "ReduceMin")),
    *(case(op, CUBE.astype(np.float16), ints(1), known=(1,), tolerance=2e-3) for op in ANY),
    case("ReduceLogSum", np.abs(WHOLE).astype(np.int32), ints(1), known=(1,), opset=18),
    case("ReduceL2", np.arange(1, 40001, dtype=np.int32).reshape(-1, 1), ints(1), known=(1,)),
    case("ReduceLogSumExp", PARTLY_INFINITE[1:], ints(1), known=(1,)),
    case("ReduceLogSumExp", X + 100, axes=[2], opset=13),
    case("ReduceSum", X, ints(-1), opset=13, shapes=((2, 3, 1),)),
    case("ReduceSum", f32(2, 2, 2), NO_AXES, opset=13, noop_with_empty_axes=1),
)
