"""Lowerings of norms in half precision, with statistics, and with scales that broadcast."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from lowering_case import case, f32

X = f32(2, 3, 4)
HALF = X.astype(np.float16)
SCALE, BIAS = f32(4).astype(np.float16), f32(4)[::-1].astype(np.float16)
BFLOAT = X.astype(ml_dtypes.bfloat16)
BSCALE = SCALE.astype(ml_dtypes.bfloat16)
IMAGE = f32(2, 4, 3, 5).astype(np.float16)
ROUGH = {"oracle": "onnx", "tolerance": 1e-2}

CASES = (
    case("LayerNormalization", HALF, SCALE, BIAS, outputs=3, tolerance=1e-2),
    case("LayerNormalization", HALF, SCALE, BIAS, **ROUGH),
    case("LayerNormalization", BFLOAT, BSCALE, outputs=1, oracle="onnx", tolerance=4e-2),
    case("LayerNormalization", X, f32(4), f32(3, 1), axis=1),
    case("LayerNormalization", X, f32(3, 4), f32(4), axis=1),
    case("LayerNormalization", X, f32(1, 4), f32(3, 1), axis=-2, outputs=3),
    case("GroupNormalization", IMAGE, SCALE, BIAS, num_groups=2, opset=21, **ROUGH),
    case("GroupNormalization", f32(2, 6, 3), f32(3), f32(3)[::-1].copy(), num_groups=3, opset=18),
    case("InstanceNormalization", IMAGE, SCALE, BIAS, **ROUGH),
)
