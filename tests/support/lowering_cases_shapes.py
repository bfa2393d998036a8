"""Lowerings of reshapes, parts, paddings and fills, mostly with parameters that are only known at run time."""

from __future__ import annotations

import numpy as np
from lowering_case import F32, I64, case, f32, flags, ints
from onnx import helper

X = f32(2, 3, 4)
LONG = f32(2, 7)
WHOLE = np.arange(24).reshape(2, 3, 4)
EMPTY = np.zeros((2, 0, 4), F32)


def scalar(value: float, holder: type = I64) -> np.ndarray:
    return np.array(value, holder)


RESHAPES = (
    case("Reshape", X, ints(4, -1), shapes=((4, 6),)),
    case("Reshape", X, ints(0, -1), shapes=((2, 12),)),
    case("Reshape", X, ints(24), shapes=((24,),)),
    case("Reshape", X, ints(0, 0, 2, 2), shapes=((2, 3, 2, 2),)),
    case("Reshape", f32(1, 1), ints(), shapes=((),)),
    case("Reshape", EMPTY, ints(0, 4, 0), shapes=((0, 4, 0),), allowzero=1),
    case("Reshape", EMPTY, ints(4, 0, 0), shapes=((4, 0, 0),), known=(1,), allowzero=1),
    case("Reshape", WHOLE.astype(np.int8), ints(4, 6), shapes=((4, 6),)),
    case("Squeeze", f32(1, 3, 1), ints(-1), shapes=((1, 3),)),
    case("Squeeze", f32(1, 3, 1), ints(0, 2), shapes=((3,),)),
    case("Squeeze", f32(1, 1, 1), ints(1), shapes=((1, 1),)),
    case("Unsqueeze", X, ints(-1, 1), shapes=((2, 1, 3, 4, 1),)),
    case("Unsqueeze", f32(1, 1), ints(0), shapes=((1, 1, 1),)),
    case("Expand", f32(3, 1), ints(2, 1, 4), shapes=((2, 3, 4),)),
    case("Expand", f32(3, 1, 4), ints(1), shapes=((3, 1, 4),)),
    case("Expand", f32(3, 1, 4), ints(5, 4), shapes=((3, 5, 4),)),
    case("Expand", flags(3, 1), ints(3, 4), shapes=((3, 4),)),
    case("Expand", scalar(2.5, F32), ints(0, 3), known=(1,)),
    case("Tile", X, ints(2, 1, 3), shapes=((4, 3, 12),)),
    case("Tile", f32(2, 3, 1, 2), ints(2, 3, 4, 2), known=(1,)),
    case("Tile", X, ints(0, 1, 2), known=(1,)),
    case("Tile", WHOLE.astype(np.int32), ints(1, 2, 1), shapes=((2, 6, 4),)),
    case("ConstantOfShape", ints(2, 3), shapes=((2, 3),), value=helper.make_tensor("v", 6, [1], [7])),
    case("ConstantOfShape", ints(0, 3), shapes=((0, 3),)),
    case("ConstantOfShape", ints(), shapes=((),)),
    case("DepthToSpace", f32(1, 8, 2, 3), opset=7, blocksize=2),
    case("SpaceToDepth", f32(1, 2, 4, 6), opset=7, blocksize=2),
    case("Concat", WHOLE.astype(np.uint8), WHOLE.astype(np.uint8)[:, :0], WHOLE.astype(np.uint8)[:, 1:], axis=1),
    case("Concat", EMPTY, EMPTY, axis=0),
    case("Identity", EMPTY),
    case("Transpose", EMPTY, perm=[1, 0, 2]),
    case("Flatten", EMPTY, axis=2),
)

PARTS = (
    case("Split", LONG, ints(4, 3), outputs=2, axis=1, shapes=((2, 4), (2, 3))),
    case("Split", LONG, ints(0, 7), outputs=2, axis=1, shapes=((2, 0), (2, 7))),
    case("Split", LONG, outputs=3, axis=-1, num_outputs=3),
    case("Slice", LONG, ints(1), ints(6), ints(-1), ints(2), shapes=((2, 3),)),
    case("Slice", LONG, ints(-2, -3), ints(100, 6), shapes=((2, 2),)),
    case("Slice", LONG, ints(-2), ints(-100), ints(1), ints(-3), shapes=((2, 2),)),
    case("Slice", LONG, ints(6, 1), ints(-8, 2), ints(1, 0), ints(-1, 1), shapes=((1, 7),)),
    case("Slice", LONG, ints(20), ints(0), ints(1), ints(-1), shapes=((2, 6),)),
    case("Slice", LONG, ints(3), ints(3), ints(1), shapes=((2, 0),)),
    case("Slice", LONG, ints(3), ints(1 << 62), ints(1), known=(2, 3), shapes=((2, 4),)),
    case("Slice", LONG, ints(0), ints(5), ints(1), ints(9), shapes=((2, 1),)),
    case("Slice", LONG, ints(0), ints(5), ints(1), known=(1, 3), shapes=((2, 5),)),
    case("Slice", WHOLE.astype(np.int64), ints(1).astype(np.int32), ints(3).astype(np.int32), ints(2).astype(np.int32),
         shapes=((2, 3, 2),)),
)  # fmt: skip

PADS = (
    *(case("Pad", LONG, ints(0, 2, 0, 3), mode=mode, opset=19, shapes=((2, 12),))
      for mode in ("constant", "reflect", "edge", "wrap")),
    *(case("Pad", LONG, ints(9, 8), None, ints(-1), mode=mode, opset=19, shapes=((2, 24),), oracle="onnx")
      for mode in ("reflect", "edge", "wrap")),
    *(case("Pad", LONG, ints(-2, 4), None, ints(1), known=known, mode=mode, opset=19, shapes=((2, 9),))
      for mode in ("constant", "edge") for known in ((), (1, 3), (3,))),
    case("Pad", LONG, ints(1, -3, 0, 4), np.array(1.5, F32), shapes=((3, 8),)),
    case("Pad", LONG, ints(-1, 0, 0, -4), np.array(1.5, F32), shapes=((1, 3),)),
    case("Pad", LONG, ints(1, 2, 0, 1), np.array(-np.inf, F32), known=(1,)),
    case("Pad", WHOLE.astype(np.int32), ints(1, 2), np.array(-7, np.int32), ints(-2), shapes=((2, 6, 4),)),
    case("Pad", WHOLE.astype(np.int64), ints(0, 1, 0, 0, 0, 2), np.array((1 << 53) + 1, I64), known=(1, 2)),
    case("Pad", flags(2, 3), ints(0, 1, 0, 0), np.array(True), opset=13, known=(1, 2)),
    case("Pad", EMPTY, ints(0, 1, 0, 0, 1, 0), np.array(2, F32), known=(1,)),
)  # fmt: skip

RANGES = (
    case("Range", scalar(3), scalar(10), scalar(2), shapes=((4,),)),
    case("Range", scalar(3), scalar(-10), scalar(-2), shapes=((7,),)),
    case("Range", scalar(3), scalar(3), scalar(1), shapes=((0,),)),
    case("Range", scalar(0.5, F32), scalar(1.5, F32), scalar(0.1, F32), shapes=((10,),)),
    case("Range", scalar(1, F32), scalar(-1, F32), scalar(-0.3, F32), known=(0, 1, 2)),
    case("Range", scalar(3), scalar(-10), scalar(-2), known=(0, 1, 2)),
    case("Range", scalar(1, np.float16), scalar(3, np.float16), scalar(0.3, np.float16), opset=27, stash_type=1,
         shapes=((7,),), oracle="onnx", tolerance=1e-3),
)  # fmt: skip

SIZES = (
    case("Shape", X, opset=15, start=-2),
    case("Shape", X, opset=15, start=2, end=1),
    case("Shape", EMPTY),
    case("Size", EMPTY),
)

CASES = (*RESHAPES, *PARTS, *PADS, *RANGES, *SIZES)
