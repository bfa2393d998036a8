"""Contractions: matrix product and 2-D convolution, what the matrix engine is for."""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.ir.attributes import Attribute, Attributes, AttributeValue, integer, integers
from birc.compiler.ir.errors import TypeRuleError
from birc.compiler.ir.op import Arrays, Cost, OpRow, Sample, Types
from birc.compiler.ir.ops.numeric import is_floating, narrowed, padded, taps, widened, window_size
from birc.compiler.ir.ops.type_rules import (
    broadcast_shapes,
    is_number,
    require,
    require_rank,
    require_sizes,
    same_dtype,
)
from birc.compiler.ir.types import Dim, TensorType
from birc.runtime.dtypes import DType, dtype

_F32: Final = dtype("f32")
_BF16: Final = dtype("bf16")
_I8: Final = dtype("i8")
_U8: Final = dtype("u8")
_I32: Final = dtype("i32")


def _result_dtype(a: TensorType, b: TensorType) -> DType:
    """8-bit integers, of either sign, accumulate into i32; everything else keeps its type."""
    require(is_number, "number", a, b)
    if a.dtype.name in ("i8", "u8") and b.dtype.name in ("i8", "u8"):
        return _I32
    return same_dtype(a, b)


def _accumulable(x: np.ndarray) -> np.ndarray:
    """What to multiply: narrow floats in float32, 8-bit integers in float64 (BLAS, and exact below 2^53)."""
    return x.astype(np.float64) if x.dtype.itemsize == 1 and not is_floating(x.dtype) else widened(x)


def _result_holder(a: np.ndarray) -> np.dtype:
    return np.dtype(np.int32) if a.dtype in (np.int8, np.uint8) else a.dtype


def _matmul_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    a, b = types
    if a.rank < 2 or b.rank < 2:
        raise TypeRuleError(f"takes matrices, not {a} and {b}", hint="reshape a vector to a matrix first")
    if a.shape[-1] != b.shape[-2]:
        raise TypeRuleError(f"columns of {a} and rows of {b} differ: {a.shape[-1]} and {b.shape[-2]}")
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return (TensorType(_result_dtype(a, b), (*batch, a.shape[-2], b.shape[-1])),)


def _matmul(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    a, b = arrays
    with np.errstate(all="ignore"):
        return (narrowed(np.matmul(_accumulable(a), _accumulable(b)), _result_holder(a)),)


def _matmul_cost(inputs: Types, outputs: Types, attributes: Attributes) -> Cost:
    return Cost(macs=outputs[0].num_elements * inputs[0].sizes[-1])


def _conv2d_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    x, w = types[:2]
    require_rank(x, "x", 4)
    require_rank(w, "w", 4)
    group = integer(attributes, "group")
    dtype = _result_dtype(x, w)
    (out_channels, *kernel_shape) = w.sizes
    if x.shape[1] != kernel_shape[0] * group:
        raise TypeRuleError(f"{x} has {x.shape[1]} channels, w {w} takes {kernel_shape[0]} in each of {group} groups")
    if out_channels % group:
        raise TypeRuleError(f"{out_channels} output channels do not divide into {group} groups")
    if len(types) > 2:
        require_sizes(types[2], "bias", (out_channels,))
        same_dtype(types[2], TensorType(dtype, ()))
    return (TensorType(dtype, (x.shape[0], out_channels, *window_shape(x, kernel_shape[1:], attributes))),)


def window_shape(x: TensorType, kernel: list[int], attributes: Attributes) -> tuple[Dim, Dim]:
    """Height and width of the output of a convolution or pool over NCHW `x`.

    Raises `TypeRuleError` when no window fits.
    """
    top, left, bottom, right = integers(attributes, "pads")
    stride = integers(attributes, "stride")
    dilation = integers(attributes, "dilation") if "dilation" in attributes else (1, 1)
    rows, columns = x.with_shape(x.shape[2:]).sizes
    height = window_size(rows, kernel[0], stride[0], top + bottom, dilation[0])
    width = window_size(columns, kernel[1], stride[1], left + right, dilation[1])
    if height < 1 or width < 1:
        raise TypeRuleError(f"a window of {kernel} does not fit into {x} with pads {[top, left, bottom, right]}")
    return height, width


def _conv2d(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    """Convolution as a matrix product over the windows laid out as columns; depthwise tap by tap."""
    x, w = (_accumulable(array) for array in arrays[:2])
    group, stride = integer(attributes, "group"), integers(attributes, "stride")
    pads, dilation = integers(attributes, "pads"), integers(attributes, "dilation")
    kernel = w.shape[2:]
    out = (
        window_size(x.shape[2], kernel[0], stride[0], pads[0] + pads[2], dilation[0]),
        window_size(x.shape[3], kernel[1], stride[1], pads[1] + pads[3], dilation[1]),
    )
    views = taps(padded(x, pads, 0), kernel, stride, dilation, out)
    with np.errstate(all="ignore"):
        if group == x.shape[1] == w.shape[0]:
            result = sum(view * w[None, :, 0, at // kernel[1], at % kernel[1], None, None]
                         for at, view in enumerate(views))  # fmt: skip
            result = np.asarray(result)
        else:
            result = _by_columns(list(views), w, group)
        if len(arrays) > 2:
            result += _accumulable(arrays[2])[:, None, None]
    return (narrowed(result, _result_holder(arrays[0])),)


def _by_columns(views: list[np.ndarray], w: np.ndarray, group: int) -> np.ndarray:
    """The convolution whose kernel positions see `views` (each N x C x height x width of the output)."""
    batch, channels, height, width = views[0].shape
    depth = channels // group * len(views)
    if len(views) == 1:
        columns = np.ascontiguousarray(views[0])
    else:
        columns = np.empty((batch, channels, len(views), height, width), w.dtype)
        for at, view in enumerate(views):
            columns[:, :, at] = view
    products = np.matmul(
        w.reshape(1, group, w.shape[0] // group, depth),
        columns.reshape(batch, group, depth, height * width),
    )
    return products.reshape(batch, w.shape[0], height, width)


def _conv2d_cost(inputs: Types, outputs: Types, attributes: Attributes) -> Cost:
    _, channels, rows, columns = inputs[1].sizes
    elements = outputs[0].num_elements
    return Cost(macs=elements * channels * rows * columns, vector_ops=elements if len(inputs) > 2 else 0)


STRIDE: Final = Attribute("ints", "step between windows: rows, columns", length=2, minimum=1)
PADS: Final = Attribute("ints", "padding: top, left, bottom, right", length=4, minimum=0)
DILATION: Final = Attribute("ints", "step inside a window: rows, columns", length=2, minimum=1)


def _conv_sample(
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: tuple[int, int] = (1, 1),
    pads: tuple[int, ...] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    *,
    group: int = 1,
    bias: bool = False,
    elements: DType = _F32,
) -> Sample:
    shapes = (x, w, (w[0],)) if bias else (x, w)
    attributes: dict[str, AttributeValue] = {
        "stride": stride,
        "pads": pads,
        "dilation": dilation,
        "group": group,
    }
    return Sample(tuple(TensorType(elements, shape) for shape in shapes), attributes)


ROWS: Final[tuple[OpRow, ...]] = (
    OpRow(
        name="matmul",
        doc="Matrix product of the last two dimensions; the others are broadcast. 8-bit integers give i32.",
        inputs="a b",
        category="contraction",
        loops="b* m n | k",
        access={"a": "b*, m, k", "b": "b*, k, n"},
        infer=_matmul_rule,
        evaluate=_matmul,
        cost=_matmul_cost,
        samples=(
            Sample((TensorType(_F32, (3, 4)), TensorType(_F32, (4, 5)))),
            Sample((TensorType(_F32, (2, 3, 4)), TensorType(_F32, (2, 4, 5)))),
            Sample((TensorType(_F32, (2, 1, 3, 4)), TensorType(_F32, (3, 4, 2)))),
            Sample((TensorType(_F32, (2, 3, 4)), TensorType(_F32, (4, 1)))),
            Sample((TensorType(_BF16, (3, 4)), TensorType(_BF16, (4, 5)))),
            Sample((TensorType(_U8, (3, 4)), TensorType(_I8, (4, 5))), low=-100.0, high=100.0),
        ),
    ),
    OpRow(
        name="conv2d",
        doc="2-D convolution of NCHW x with weights OCRS, padded with zeros. 8-bit integers give i32.",
        inputs="x w bias?",
        category="contraction",
        loops="n o y x | c r s",
        access={
            "x": "n, c + size(c) * (o // (size(o) // group)),"
            " stride[0] * y + dilation[0] * r - pads[0], stride[1] * x + dilation[1] * s - pads[1]",
            "w": "o, c, r, s",
            "bias": "o",
        },
        infer=_conv2d_rule,
        evaluate=_conv2d,
        cost=_conv2d_cost,
        attributes={
            "stride": STRIDE,
            "pads": PADS,
            "dilation": DILATION,
            "group": Attribute("int", "independent groups of channels", minimum=1),
        },
        samples=(
            _conv_sample((1, 3, 8, 8), (4, 3, 3, 3)),
            _conv_sample((2, 3, 9, 7), (4, 3, 3, 3), (2, 2), (1, 1, 1, 1), bias=True),
            _conv_sample((1, 4, 6, 6), (5, 4, 1, 1)),
            _conv_sample((1, 4, 6, 6), (5, 4, 1, 1), (2, 2)),
            _conv_sample((1, 4, 7, 9), (6, 2, 3, 3), (1, 2), (1, 0, 2, 1), group=2, bias=True),
            _conv_sample((1, 4, 7, 7), (4, 1, 3, 3), (2, 1), (1, 1, 1, 1), group=4),
            _conv_sample((1, 2, 9, 9), (4, 1, 3, 3), group=2, dilation=(2, 2)),
            _conv_sample((1, 2, 9, 9), (3, 2, 3, 2), (2, 1), (2, 2, 2, 1), (2, 3)),
            _conv_sample((1, 3, 6, 6), (4, 3, 3, 3), pads=(1, 1, 1, 1), elements=_BF16),
            _conv_sample((1, 3, 6, 6), (4, 3, 3, 3), pads=(1, 1, 1, 1), elements=_I8),
        ),
    ),
)
