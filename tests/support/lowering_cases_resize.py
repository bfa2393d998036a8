"""Lowerings of Resize and Upsample, with what sizes them known at import and arriving at run time."""

from __future__ import annotations

from typing import Any

import numpy as np
from lowering_case import F32, Case, case, f32, ints

IMAGE = f32(1, 2, 5, 7)
BYTES = np.arange(70, dtype=np.uint8).reshape(1, 2, 5, 7)
UP = np.array([1, 1, 2.5, 3], F32)
DOWN = np.array([1, 1, 0.6, 0.5], F32)
SIZES = ints(1, 2, 8, 6)
REGION = np.array([0, 0, 0.1, -0.2, 1, 1, 0.8, 1.1], F32)
COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric")


def both(*inputs: np.ndarray | None, shape: tuple[int, ...], opset: int = 19, **attributes: Any) -> tuple[Case, ...]:
    """The case with all but the data known, and with all of it given at run time."""
    given = tuple(place for place, entry in enumerate(inputs) if place and entry is not None)
    return (
        case("Resize", *inputs, known=given, opset=opset, **attributes),
        case("Resize", *inputs, opset=opset, shapes=(shape,), **attributes),
    )


CASES = (
    *(
        entry
        for coordinates in COORDINATES
        for mode in ("nearest", "linear", "cubic")
        for scales, shape in ((UP, (1, 2, 12, 21)), (DOWN, (1, 2, 3, 3)))
        for entry in both(IMAGE, None, scales, shape=shape, mode=mode, coordinate_transformation_mode=coordinates)
    ),
    *(
        entry
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        for coordinates in ("half_pixel", "asymmetric", "align_corners")
        for entry in both(IMAGE, None, None, SIZES, shape=(1, 2, 8, 6), nearest_mode=rounding,
                          coordinate_transformation_mode=coordinates)
    ),
    *both(IMAGE, None, DOWN, shape=(1, 2, 3, 3), mode="linear", coordinate_transformation_mode="align_corners",
          oracle="onnx"),
    *both(IMAGE, None, None, ints(1, 2, 1, 4), shape=(1, 2, 1, 4), mode="linear",
          coordinate_transformation_mode="align_corners"),
    *both(IMAGE, None, UP, shape=(1, 2, 12, 21), mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1),
    *(
        entry
        for mode in ("nearest", "linear", "cubic")
        for entry in both(IMAGE, REGION, None, SIZES, shape=(1, 2, 8, 6), mode=mode, extrapolation_value=2.5,
                          coordinate_transformation_mode="tf_crop_and_resize")
    ),
    *both(IMAGE, REGION, None, ints(1, 2, 1, 9), shape=(1, 2, 1, 9), mode="linear",
          coordinate_transformation_mode="tf_crop_and_resize"),
    *(
        entry
        for mode in ("linear", "cubic")
        for outside in (0, 1)
        for entry in both(IMAGE, None, DOWN, shape=(1, 2, 3, 3), mode=mode, antialias=1, exclude_outside=outside,
                          oracle="onnx")
    ),
    *both(IMAGE, None, UP, shape=(1, 2, 12, 21), mode="cubic", antialias=1, oracle="onnx"),
    *both(IMAGE, None, np.array([3, 0.5], F32), shape=(1, 2, 2, 21), axes=[3, -2]),
    *both(f32(2, 5), None, np.array([1.4], F32), shape=(2, 7), axes=[1], mode="linear"),
    *both(IMAGE, None, None, ints(7, 8), shape=(1, 2, 6, 8), axes=[2, 3], keep_aspect_ratio_policy="not_larger"),
    *both(IMAGE, None, None, ints(7, 8), shape=(1, 2, 7, 10), axes=[2, 3], keep_aspect_ratio_policy="not_smaller",
          mode="linear"),
    # Either axis may be the one that sets the ratio.
    *both(f32(1, 1, 20, 21), None, None, ints(4, 4), shape=(1, 1, 4, 4), axes=[2, 3],
          keep_aspect_ratio_policy="not_larger", mode="linear"),
    case("Resize", BYTES, None, UP, known=(2,), opset=19),
    case("Resize", BYTES, None, UP, known=(2,), opset=19, mode="linear", oracle="onnx"),
    case("Resize", IMAGE.astype(np.float16), None, UP, known=(2,), opset=19, mode="linear", tolerance=2e-3),
    case("Resize", IMAGE.astype(np.int64), None, DOWN, known=(2,), opset=19, oracle="onnx"),
    case("Resize", f32(2, 3, 4, 5, 6), None, np.array([1, 1, 2, 0.5, 1.5], F32), known=(2,), opset=13, mode="linear"),
    case("Resize", IMAGE, np.array([], F32), np.array([1, 1, 3, 2], F32), known=(1, 2), opset=11),
    case("Resize", IMAGE, np.array([], F32), np.array([], F32), SIZES, known=(1, 2, 3), opset=11,
         coordinate_transformation_mode="tf_half_pixel_for_nn"),
    *(case("Resize", IMAGE, scales, known=(1,), opset=10, mode=mode)
      for mode in ("nearest", "linear") for scales in (UP, DOWN)),
    case("Resize", IMAGE, DOWN, opset=10, shapes=((1, 2, 3, 3),)),
    case("Upsample", IMAGE, opset=7, scales=[1.0, 1.0, 2.0, 3.0]),
    case("Upsample", IMAGE, opset=8, scales=[1.0, 1.0, 2.0, 2.5], mode="linear"),
    case("Upsample", IMAGE, UP, known=(1,), opset=9),
    case("Upsample", IMAGE, UP, opset=9, mode="linear", shapes=((1, 2, 12, 21),)),
)  # fmt: skip
