"""Lowerings of windows, transforms, mel filters, grids and crops, with sizes known or arriving at run time."""

from __future__ import annotations

import numpy as np
import onnx
from lowering_case import F32, I64, case, f32, ints


def scalar(value: float, kind: type[np.generic] = I64) -> np.ndarray:
    return np.array(value, kind)


WINDOWS = ("BlackmanWindow", "HammingWindow", "HannWindow")
X = f32(7, 8, 3)


MEL = (scalar(12), scalar(65), scalar(16000), scalar(125.5, F32), scalar(7600, F32))

REAL, COMPLEX = f32(2, 9, 6, 1), f32(2, 9, 6, 2)
SOUND = f32(2, 40, 1)
LOOSE = 1e-4  # results near 0 among large ones

CASES = (
    *(case("DFT", signal, opset=opset, tolerance=LOOSE, **attributes)
      for opset in (17, 20) for signal in (REAL, COMPLEX) for attributes in ({}, {"inverse": 1})),
    case("DFT", REAL, opset=17, axis=2, onesided=1, tolerance=LOOSE),
    case("DFT", REAL, scalar(12), known=(1,), opset=20, onesided=1, tolerance=LOOSE),
    case("DFT", REAL, scalar(4), scalar(-3), known=(1, 2), opset=20, tolerance=LOOSE),
    case("DFT", COMPLEX, None, scalar(1), known=(2,), opset=20, inverse=1, onesided=1, oracle="onnx", tolerance=LOOSE),
    case("DFT", COMPLEX, scalar(7), opset=17, inverse=1, onesided=1, oracle="onnx", tolerance=LOOSE,
         shapes=((2, 7, 6, 1),)),
    *(case("DFT", f32(6, 6, 6, 1), None, scalar(axis), opset=20, shapes=((6, 6, 6, 2),), tolerance=LOOSE)
      for axis in (0, 1, 2, -2, -4)),
    *(case("DFT", REAL, scalar(length), scalar(1), opset=20, onesided=1, shapes=((2, 5, 6, 2),), tolerance=LOOSE)
      for length in (8, 9)),
    case("DFT", COMPLEX.astype(np.float16), opset=20, oracle="onnx", tolerance=1e-2),
    case("DFT", f32(1, 600, 1), opset=20, oracle="onnx", tolerance=1e-3),
    case("DFT", f32(1, 600, 2), opset=20, inverse=1, onesided=1, oracle="onnx", tolerance=1e-3),
    case("DFT", f32(1, 521, 2), opset=20, inverse=1, tolerance=1e-3),
    case("STFT", SOUND, scalar(5), None, scalar(8), known=(1, 3), opset=17, tolerance=LOOSE),
    case("STFT", SOUND, scalar(5), f32(8), known=(1, 2), opset=17, onesided=0, tolerance=LOOSE),
    case("STFT", SOUND, scalar(5), f32(8), scalar(8), opset=17, shapes=((2, 7, 5, 2),), tolerance=LOOSE),
    case("STFT", f32(2, 40, 2), scalar(3), f32(9), known=(1,), opset=17, onesided=0, tolerance=1e-3),
    # Frames of 8 and of 9 elements have 5 frequencies.
    *(case("STFT", SOUND, scalar(8), None, scalar(length), opset=17, shapes=((2, 4, 5, 2),), oracle="onnx",
           tolerance=LOOSE) for length in (9,)),
    *(case("STFT", SOUND, scalar(5), None, scalar(length), opset=17, shapes=((2, 7, 5, 2),), tolerance=LOOSE)
      for length in (8, 9)),
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
