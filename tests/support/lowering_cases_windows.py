"""Lowerings of everything that slides a window: convolutions and pools over one to four dimensions."""

from __future__ import annotations

import numpy as np
from lowering_case import F32, I64, Case, case, f32, ints

IMAGE = f32(2, 4, 7, 9)
SIGNAL = f32(2, 4, 9)
VOLUME = f32(2, 4, 5, 6, 7)
STEPPED = np.random.default_rng(1).integers(-3, 4, (2, 3, 7, 8)).astype(F32)
"""Few different values: windows have several largest elements."""
STEPPED_VOLUME = np.random.default_rng(2).integers(-2, 3, (2, 2, 5, 6, 7)).astype(F32)


def _bytes(kind: type[np.integer], *shape: int) -> np.ndarray:
    limits = np.iinfo(kind)
    return np.random.default_rng(list(shape)).integers(limits.min, limits.max + 1, shape).astype(kind)


CONVOLUTIONS = (
    case("Conv", VOLUME, f32(6, 4, 3, 2, 3), f32(6), pads=[1, 0, 2, 1, 1, 0], strides=[2, 1, 2]),
    case("Conv", VOLUME, f32(6, 2, 2, 2, 2), group=2, dilations=[2, 1, 3]),
    case("Conv", VOLUME, f32(4, 1, 3, 3, 3), f32(4), group=4, auto_pad="SAME_UPPER", strides=[2, 2, 1]),
    case("Conv", VOLUME.astype(np.float16), f32(4, 1, 3, 3, 3).astype(np.float16), group=4, oracle="onnx",
         tolerance=1e-2),
    case("Conv", f32(1, 1, 5, 6, 7), f32(1, 1, 3, 2, 2), f32(1), dilations=[2, 1, 1], strides=[1, 2, 1]),
    case("Conv", VOLUME, f32(3, 4, 1, 1, 1)),
    case("Conv", VOLUME, f32(3, 4, 2, 3, 2), auto_pad="SAME_LOWER", kernel_shape=[2, 3, 2]),
    case("Conv", f32(1, 2, 3, 4, 3, 5), f32(3, 2, 2, 2, 2, 3), f32(3), pads=[1, 0, 1, 1, 0, 1, 0, 0],
         strides=[1, 2, 1, 1], oracle="onnx"),
    case("Conv", SIGNAL, f32(4, 1, 3), group=4, dilations=[2], pads=[2, 2]),
    case("Conv", f32(1, 2, 9000), f32(3, 2, 5), strides=[4]),
)  # fmt: skip

TRANSPOSED = (
    case("ConvTranspose", IMAGE, f32(4, 3, 3, 3), f32(3), strides=[2, 3], pads=[1, 0, 1, 2], output_padding=[1, 2]),
    case("ConvTranspose", IMAGE, f32(4, 3, 2, 4), known=(1,), strides=[2, 2]),
    case("ConvTranspose", IMAGE, f32(4, 3, 3, 2), f32(3), dilations=[2, 3]),
    case("ConvTranspose", IMAGE, f32(4, 3, 3, 2), f32(6), dilations=[2, 3], strides=[3, 2], group=2, pads=[3, 1, 4, 0]),
    case("ConvTranspose", IMAGE, f32(4, 1, 3, 3), f32(4), strides=[2, 2], group=4, pads=[1, 1, 1, 1]),
    case("ConvTranspose", IMAGE, f32(4, 2, 1, 1), strides=[2, 3]),
    case("ConvTranspose", IMAGE, f32(4, 2, 3, 3), f32(2), strides=[2, 2], auto_pad="SAME_UPPER"),
    case("ConvTranspose", IMAGE, f32(4, 2, 4, 4), f32(2), strides=[3, 1], auto_pad="SAME_LOWER", kernel_shape=[4, 4]),
    case("ConvTranspose", IMAGE, f32(4, 2, 3, 3), f32(2), strides=[2, 2], auto_pad="VALID"),
    case("ConvTranspose", IMAGE, f32(4, 2, 3, 3), f32(2), strides=[2, 2], output_shape=[12, 20]),
    case("ConvTranspose", IMAGE, f32(4, 2, 3, 3), f32(2), strides=[2, 2], output_shape=[14, 18], auto_pad="SAME_UPPER",
         opset=7),
    case("ConvTranspose", IMAGE, f32(4, 2, 3, 3), f32(2), strides=[2, 2], output_shape=[16, 20], oracle="onnx"),
    case("ConvTranspose", IMAGE, f32(4, 2, 4, 3), strides=[2, 1], pads=[7, 5, 8, 3]),
    case("ConvTranspose", SIGNAL, f32(4, 3, 5), f32(3), strides=[3], pads=[2, 1]),
    case("ConvTranspose", VOLUME, f32(4, 3, 2, 3, 4), f32(3), strides=[2, 1, 3], pads=[1, 0, 2, 0, 1, 1]),
    case("ConvTranspose", f32(2, 4, 3, 2, 4), f32(4, 1, 3, 3, 2), group=2, strides=[2, 3, 2], dilations=[1, 2, 1]),
)  # fmt: skip

MAXIMA = (
    case("MaxPool", VOLUME, kernel_shape=[2, 3, 2], strides=[2, 1, 3], pads=[0, 1, 1, 1, 0, 0]),
    case("MaxPool", VOLUME, kernel_shape=[2, 2, 2], dilations=[2, 1, 3], ceil_mode=1, strides=[2, 2, 2]),
    case("MaxPool", VOLUME, kernel_shape=[3, 2, 2], auto_pad="SAME_LOWER", strides=[1, 2, 2]),
    case("MaxPool", _bytes(np.int8, 2, 3, 8, 9), kernel_shape=[3, 2], pads=[1, 1, 1, 0], strides=[2, 2]),
    case("MaxPool", _bytes(np.uint8, 2, 3, 4, 5, 6), kernel_shape=[2, 2, 2], pads=[1, 0, 1, 0, 1, 0]),
    case("MaxPool", STEPPED, outputs=2, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 1, 0, 0]),
    case("MaxPool", STEPPED, outputs=2, kernel_shape=[2, 3], storage_order=1, dilations=[2, 1]),
    case("MaxPool", STEPPED, outputs=2, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    case("MaxPool", f32(2, 3, 11), outputs=2, kernel_shape=[3], strides=[2], storage_order=1, pads=[1, 1]),
    case("MaxPool", STEPPED_VOLUME, outputs=2, kernel_shape=[2, 3, 2], strides=[2, 2, 1], pads=[1, 1, 1, 0, 0, 0]),
    case("MaxPool", STEPPED_VOLUME, outputs=2, kernel_shape=[3, 2, 2], dilations=[2, 1, 2], storage_order=1),
    case("MaxPool", _bytes(np.int8, 1, 2, 6, 6), outputs=2, kernel_shape=[2, 2]),
    case("MaxPool", f32(1, 2, 20000), kernel_shape=[3], strides=[3]),
    case("GlobalMaxPool", SIGNAL),
    case("GlobalMaxPool", VOLUME),
)  # fmt: skip

MEANS = (
    case("AveragePool", VOLUME, kernel_shape=[2, 3, 2], strides=[2, 1, 3], pads=[0, 1, 1, 1, 0, 0]),
    case("AveragePool", VOLUME, kernel_shape=[3, 3, 3], pads=[1, 1, 1, 1, 1, 1], count_include_pad=1,
         strides=[2, 2, 2]),
    case("AveragePool", IMAGE, kernel_shape=[2, 3], dilations=[3, 2], pads=[1, 2, 1, 1], opset=19),
    case("AveragePool", IMAGE, kernel_shape=[2, 3], dilations=[3, 2], pads=[1, 2, 1, 1], count_include_pad=1, opset=19),
    case("AveragePool", VOLUME, kernel_shape=[2, 2, 2], dilations=[2, 1, 3], ceil_mode=1, strides=[2, 2, 2], opset=19),
    case("AveragePool", VOLUME, kernel_shape=[3, 2, 3], ceil_mode=1, strides=[2, 3, 2], pads=[1, 1, 1, 0, 1, 1],
         count_include_pad=1, opset=19),
    case("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER", opset=10),
    case("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1, opset=7),
    case("GlobalAveragePool", SIGNAL),
    case("GlobalAveragePool", VOLUME),
)  # fmt: skip

NORMS = (
    case("LpPool", IMAGE, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]),
    case("LpPool", IMAGE, kernel_shape=[3, 3], p=1, opset=11),
    case("LpPool", SIGNAL, kernel_shape=[3], p=3, strides=[2], auto_pad="SAME_UPPER"),
    case("LpPool", VOLUME, kernel_shape=[2, 2, 3], p=2, strides=[2, 1, 2]),
    case("LpPool", IMAGE, kernel_shape=[2, 2], dilations=[2, 3], opset=18),
    case("LpPool", IMAGE, kernel_shape=[3, 3], p=1, strides=[3, 2], ceil_mode=1, opset=18),
    case("GlobalLpPool", IMAGE),
    case("GlobalLpPool", VOLUME, p=3),
    case("GlobalLpPool", SIGNAL, p=1),
)

DEFORMED = (
    case("DeformConv", f32(2, 4, 6, 7), f32(6, 4, 3, 2), f32(2, 12, 3, 8), f32(6), f32(2, 6, 3, 8, low=0.0),
         strides=[2, 1], pads=[1, 1, 0, 1], opset=19),
    case("DeformConv", f32(2, 4, 6, 7), f32(6, 2, 2, 2), f32(2, 16, 5, 4, low=-9.0, high=9.0), group=2,
         offset_group=2, dilations=[1, 3], opset=22),
    case("DeformConv", f32(1, 2, 5, 5), f32(3, 2, 1, 1), f32(1, 2, 5, 5), opset=19, oracle="onnx"),
)  # fmt: skip


def _columns(block: tuple[int, ...], channels: int, length: int) -> np.ndarray:
    return f32(2, channels * int(np.prod(block)), length)


COLUMNS = (
    case("Col2Im", _columns((2, 3), 3, 16), ints(5, 6), ints(2, 3), known=(1, 2)),
    case("Col2Im", _columns((2, 3), 3, 16), ints(5, 6), ints(2, 3), known=(1,), shapes=((2, 3, 5, 6),)),
    case("Col2Im", _columns((3, 3), 1, 9), ints(5, 5), ints(3, 3), shapes=((2, 1, 5, 5),)),
    case("Col2Im", _columns((1, 4), 2, 4), ints(4, 4), ints(1, 4), shapes=((2, 2, 4, 4),)),
    case("Col2Im", _columns((2, 2), 2, 12), ints(5, 6), ints(2, 2), known=(1, 2), strides=[2, 2], dilations=[1, 2],
         pads=[1, 1, 1, 2]),
    case("Col2Im", _columns((2, 1, 2), 2, 24), ints(3, 4, 4), ints(2, 1, 2), known=(1, 2), oracle="onnx"),
    case("Col2Im", _columns((3,), 2, 5), ints(9), ints(3), known=(1, 2), strides=[2], pads=[1, 2], oracle="onnx"),
)  # fmt: skip


def _pooled(kernel: int, stride: int, shape: tuple[int, ...], spread: int) -> tuple[np.ndarray, np.ndarray]:
    """Maxima and where they lie: `spread` shifts them within their windows."""
    rank = len(shape) - 2
    sizes = tuple((size - 1) * stride + kernel for size in shape[2:])
    places = np.indices(shape)
    inside = [places[2 + axis] * stride + (places.sum(0) * spread + axis) % kernel for axis in range(rank)]
    flat = np.ravel_multi_index((places[0], places[1], *inside), (*shape[:2], *sizes))
    return f32(*shape), flat.astype(I64)


UNPOOLED = (
    case("MaxUnpool", *_pooled(2, 2, (2, 3, 3, 4), 1), kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxUnpool", *_pooled(3, 3, (2, 3, 16, 17), 2), kernel_shape=[3, 3], strides=[3, 3]),
    case("MaxUnpool", *_pooled(2, 2, (1, 2, 2, 3), 1), ints(1, 2, 6, 8), kernel_shape=[2, 2], strides=[2, 2],
         known=(2,), oracle="onnx"),
    case("MaxUnpool", *_pooled(2, 2, (1, 2, 2, 3), 1), ints(1, 2, 6, 8), kernel_shape=[2, 2], strides=[2, 2],
         oracle="onnx", shapes=((1, 2, 6, 8),)),
    case("MaxUnpool", *_pooled(3, 2, (2, 2, 20, 21), 0), kernel_shape=[3, 3], strides=[2, 2]),
    case("MaxUnpool", *_pooled(2, 2, (2, 4, 50), 1), kernel_shape=[2], strides=[2]),
    case("MaxUnpool", *_pooled(2, 2, (2, 2, 5, 6, 7), 1), kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    case("MaxUnpool", f32(1, 1, 3), ints(5, 0, 5).reshape(1, 1, 3), kernel_shape=[2], strides=[2], oracle="onnx"),
)  # fmt: skip

REGIONS = np.array(
    [[0, 0, 0, 8, 6], [1, 2, 1, 5, 5], [1, 3, 2, 3, 2], [0, -2, -3, 20, 30], [0, 7, 5, 2, 1], [1, 0.5, 1.5, 6.5, 2.5]],
    F32,
)
REGION_POOLS = (
    case("MaxRoiPool", IMAGE, REGIONS, pooled_shape=[3, 2]),
    case("MaxRoiPool", IMAGE, REGIONS * np.array([1, 2, 2, 2, 2], F32), pooled_shape=[2, 5], spatial_scale=0.5),
)

CASES: tuple[Case, ...] = (
    *CONVOLUTIONS,
    *TRANSPOSED,
    *MAXIMA,
    *MEANS,
    *NORMS,
    *DEFORMED,
    *COLUMNS,
    *UNPOOLED,
    *REGION_POOLS,
)
