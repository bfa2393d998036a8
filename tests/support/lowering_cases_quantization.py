"""Uses of QuantizeLinear and DequantizeLinear: for the whole tensor, along an axis, in blocks."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from lowering_case import F32, Case, case
from onnx import TensorProto

_RANDOM = np.random.default_rng(11)
X = (_RANDOM.standard_normal((3, 4, 5)) * 20).astype(F32)
SCALES = _RANDOM.uniform(0.1, 0.5, 4).astype(F32)
SCALE = np.array(0.3, F32)
BYTES = _RANDOM.integers(0, 256, (3, 4, 5), np.uint8)
SIGNED = _RANDOM.integers(-128, 128, (3, 4, 5), np.int16).astype(np.int8)
BLOCKS = _RANDOM.uniform(0.1, 0.5, (3, 2, 5)).astype(F32)


CASES: tuple[Case, ...] = (
    case("QuantizeLinear", X, SCALE),
    case("QuantizeLinear", X, SCALE, np.array(128, np.uint8), opset=10),
    case("QuantizeLinear", X, SCALE.reshape(1), np.array([-3], np.int8), opset=13),
    case("QuantizeLinear", X, SCALES, np.array([0, 1, 2, 200], np.uint8)),
    case("QuantizeLinear", X, SCALES[:3], np.array([0, -1, 2], np.int8), axis=-3),
    case("QuantizeLinear", X, SCALE, np.array(1000, np.uint16), opset=21),
    case("QuantizeLinear", X, SCALE, opset=21, output_dtype=TensorProto.INT16),
    case("QuantizeLinear", X, BLOCKS, opset=21, block_size=2, output_dtype=TensorProto.INT8),
    case("QuantizeLinear", X, BLOCKS, opset=21, block_size=3, output_dtype=TensorProto.INT8, oracle="onnx"),
    case("QuantizeLinear", X, SCALE, np.array(3, ml_dtypes.int4), opset=21, oracle="onnx"),
    case("QuantizeLinear", X, SCALE, np.array(0, ml_dtypes.float8_e4m3fn), opset=21, oracle="onnx"),
    case("QuantizeLinear", np.int32([-7, 3, 900]), SCALE, np.array(3, np.int8), opset=19, oracle="onnx"),
    case("DequantizeLinear", BYTES, SCALE),
    case("DequantizeLinear", BYTES, SCALE, np.array(128, np.uint8), opset=10),
    case("DequantizeLinear", SIGNED, SCALES, np.array([0, 1, -2, 100], np.int8), opset=13),
    case("DequantizeLinear", SIGNED, BLOCKS, opset=21, block_size=2),
    case("DequantizeLinear", np.int32([-7, 3, 90_000]), SCALE),
    case("DequantizeLinear", BYTES.astype(ml_dtypes.float8_e5m2), SCALE, opset=21, oracle="onnx"),
)
