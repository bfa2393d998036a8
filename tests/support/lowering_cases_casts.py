"""Lowerings of casts to every kind of element type."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
from lowering_case import F32, case, f32

Proto = onnx.TensorProto
X = np.concatenate([f32(40, low=-20, high=20), f32(20, low=-600, high=600), F32([0, -0.0, 448, 464, 500, -1e9])])
SMALL = f32(50, low=-9, high=9)
POSITIVE = np.exp2(f32(40, low=-20, high=20))
INTS = np.arange(-300, 300, 7, np.int32)
HALVES = SMALL.astype(np.float16)
MODES = ("up", "down", "nearest")
EIGHT_BITS = (Proto.FLOAT8E4M3FN, Proto.FLOAT8E4M3FNUZ, Proto.FLOAT8E5M2, Proto.FLOAT8E5M2FNUZ)

CASES = (
    *(case("Cast", X, opset=opset, oracle="onnx", to=to) for opset in (19, 24, 28) for to in EIGHT_BITS),
    *(case("Cast", X, opset=19, oracle="onnx", to=to, saturate=0) for to in EIGHT_BITS),
    *(case("Cast", HALVES, opset=23, oracle="onnx", to=to) for to in (Proto.FLOAT4E2M1, Proto.BFLOAT16)),
    *(case("Cast", POSITIVE, opset=24, oracle="onnx", to=Proto.FLOAT8E8M0, round_mode=mode) for mode in MODES),
    *(case("Cast", INTS, opset=25, oracle="onnx", to=to) for to in (Proto.INT4, Proto.UINT4, Proto.INT2, Proto.UINT2)),
    *(case("Cast", SMALL, opset=25, oracle="onnx", to=to) for to in (Proto.INT4, Proto.INT2)),
    *(case("Cast", SMALL * 60, opset=13, to=to) for to in (Proto.INT8, Proto.UINT8, Proto.INT16, Proto.UINT32)),
    *(case("Cast", X, opset=opset, to=Proto.FLOAT16) for opset in (7, 9, 13)),
    case("Cast", X.astype(ml_dtypes.float8_e4m3fn), opset=19, oracle="onnx", to=Proto.FLOAT),
    case("Cast", INTS.astype(ml_dtypes.int4), opset=21, oracle="onnx", to=Proto.FLOAT16),
    case("Cast", SMALL.astype(ml_dtypes.float4_e2m1fn), opset=23, oracle="onnx", to=Proto.FLOAT),
    case("CastLike", X, np.zeros(1, ml_dtypes.float8_e5m2), opset=19, oracle="onnx", saturate=0),
    case("CastLike", X, np.zeros(1, ml_dtypes.bfloat16), opset=15, oracle="onnx"),
)  # fmt: skip
