"""Lowerings that read elements at computed positions: GridSample and RoiAlign."""

from __future__ import annotations

import numpy as np
from lowering_case import case, f32, ints

IMAGE, GRID = f32(2, 3, 4, 5), f32(2, 3, 6, 2, low=-1.7, high=1.7)
VOLUME, VOLUME_GRID = f32(1, 2, 3, 4, 2), f32(1, 2, 3, 2, 3, low=-1.7, high=1.7)
REGIONS = np.array([[0, 1, 3.5, 3], [-2, -4, 9, 11], [1.25, 0.5, 1.5, 0.5], [4, 2, 2, 1]], np.float32)
PICTURES = ints(0, 1, 1, 0)
LOOSE = 2e-4
PADDINGS = ("zeros", "border", "reflection")

CASES = (
    *(case("GridSample", IMAGE, GRID, opset=20, mode=mode, padding_mode=padding, align_corners=aligned, tolerance=LOOSE,
           oracle="onnx")
      for mode in ("nearest", "linear", "cubic") for padding in PADDINGS for aligned in (0, 1)),
    *(case("GridSample", IMAGE, GRID, opset=16, mode=mode, padding_mode="reflection", tolerance=LOOSE)
      for mode in ("nearest", "bilinear", "bicubic")),
    case("GridSample", IMAGE[:1], GRID[:1], opset=16, tolerance=LOOSE),
    *(case("GridSample", VOLUME, VOLUME_GRID, opset=22, mode=mode, padding_mode=padding, oracle="onnx", tolerance=LOOSE)
      for mode, padding in (("nearest", "border"), ("linear", "zeros"), ("cubic", "reflection"))),
    case("GridSample", f32(2, 1, 7), f32(2, 9, 1), opset=20, oracle="onnx", tolerance=LOOSE),
    case("GridSample", IMAGE.astype(np.float16), GRID.astype(np.float16), opset=20, oracle="onnx", tolerance=2e-2),
    case("GridSample", ints(*range(24)).reshape(1, 2, 3, 4), GRID[:1], opset=20, mode="nearest", oracle="onnx"),
    *(case("RoiAlign", IMAGE, REGIONS, PICTURES, opset=16, mode=mode, sampling_ratio=samples, output_height=2,
           output_width=3, spatial_scale=0.75, coordinate_transformation_mode=shift)
      for mode in ("avg", "max") for samples in (0, 2) for shift in ("half_pixel", "output_half_pixel")),
    case("RoiAlign", IMAGE, REGIONS, PICTURES, opset=10, output_height=3, output_width=3, sampling_ratio=3),
    case("RoiAlign", IMAGE[:1], REGIONS, ints(0, 0, 0, 0), opset=22, output_height=4, output_width=2, oracle="onnx"),
    # One element an axis has nothing to be mirrored at.
    case("GridSample", f32(1, 2, 1, 4), GRID[:1], opset=20, padding_mode="border", align_corners=1, tolerance=LOOSE),
)  # fmt: skip
