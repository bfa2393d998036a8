"""Lowerings of windows, mel filters, grids and crops, with sizes known at import and arriving at run time."""

from __future__ import annotations

import numpy as np
import onnx
from lowering_case import F32, I64, case, f32, ints

WINDOWS = ("BlackmanWindow", "HammingWindow", "HannWindow")
X = f32(7, 8, 3)


def scalar(value: float, kind: type[np.generic] = I64) -> np.ndarray:
    return np.array(value, kind)


MEL = (scalar(12), scalar(65), scalar(16000), scalar(125.5, F32), scalar(7600, F32))

CASES = (
    *(case(op, scalar(size), known=(0,), opset=17, periodic=periodic)
      for op in WINDOWS for size, periodic in ((10, 1), (7, 0))),
    *(case(op, scalar(9, np.int32), opset=17, shapes=((9,),)) for op in WINDOWS),
    case("HannWindow", scalar(9), known=(0,), opset=17, output_datatype=onnx.TensorProto.FLOAT16, tolerance=1e-3),
    case("MelWeightMatrix", *MEL, known=(0, 1, 2, 3, 4), opset=17),
    case("MelWeightMatrix", *MEL, opset=17, shapes=((33, 12),)),
    case("MelWeightMatrix", *MEL, known=(0, 1), opset=17),
    case("MelWeightMatrix", *MEL, known=(2, 3, 4), opset=17, shapes=((33, 12),),
         output_datatype=onnx.TensorProto.FLOAT16, oracle="onnx", tolerance=1e-3),
    *(case("AffineGrid", f32(2, 2, 3), ints(2, 3, 4, 5), known=(1,), opset=20, align_corners=aligned)
      for aligned in (0, 1)),
    *(case("AffineGrid", f32(2, 3, 4), ints(2, 3, 4, 5, 6), opset=20, align_corners=aligned, shapes=((2, 4, 5, 6, 3),))
      for aligned in (0, 1)),
    case("AffineGrid", f32(2, 2, 3), ints(2, 3, 4, 5), opset=20, shapes=((2, 4, 5, 2),)),
    case("AffineGrid", f32(2, 2, 3), ints(2, 3, 1, 5), known=(1,), opset=20, align_corners=1, oracle="onnx"),
    case("CenterCropPad", X, ints(4, 11, 3), known=(1,)),
    case("CenterCropPad", X, ints(10, 5, 3), shapes=((10, 5, 3),)),
    case("CenterCropPad", X, ints(6, 4), axes=[-1, 0], shapes=((4, 8, 6),)),
    case("CenterCropPad", ints(1, 2, 3, 4, 5), np.array([2], np.int32), known=(1,), oracle="onnx"),
)  # fmt: skip
