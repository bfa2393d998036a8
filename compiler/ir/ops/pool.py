"""Pools: the largest element under a sliding window, its place, or the mean."""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.ir.attributes import Attribute, Attributes, AttributeValue, integer, integers
from birc.compiler.ir.op import Arrays, Cost, OpRow, Sample, Types
from birc.compiler.ir.ops.contraction import DILATION, PADS, STRIDE, window_shape
from birc.compiler.ir.ops.numeric import is_floating, narrowed, padded, taps, widened
from birc.compiler.ir.ops.type_rules import DTypeTest, is_float, is_number, require, require_rank
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import dtype


def _pool_type(types: Types, attributes: Attributes, test: DTypeTest, wanted: str) -> tuple[TensorType, ...]:
    (x,) = types
    require(test, wanted, x)
    require_rank(x, "x", 4)
    size = window_shape(x, list(integers(attributes, "kernel")), attributes)
    return (x.with_shape((*x.shape[:2], *size)),)


def _max_pool_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    return _pool_type(types, attributes, is_number, "number")


def _max_pool_position_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    (pooled,) = _pool_type(types, attributes, is_number, "number")
    return (TensorType(_I32, pooled.shape),)


def _avg_pool_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    return _pool_type(types, attributes, is_float, "float")


def _window_views(x: np.ndarray, attributes: Attributes, filler: object) -> list[np.ndarray]:
    """What each position of the window sees, for all windows at once."""
    kernel, pads = integers(attributes, "kernel"), integers(attributes, "pads")
    stride, dilation = integers(attributes, "stride"), integers(attributes, "dilation")
    surrounded = padded(x, pads, filler)
    out = [(surrounded.shape[2 + dim] - dilation[dim] * (kernel[dim] - 1) - 1) // stride[dim] + 1 for dim in range(2)]
    return list(taps(surrounded, kernel, stride, dilation, out))


def _lowest(x: np.ndarray) -> object:
    return -np.inf if is_floating(x.dtype) else np.iinfo(x.dtype).min


def _max_pool(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x = widened(arrays[0])
    first, *others = _window_views(x, attributes, _lowest(x))
    result = first.copy()
    for view in others:
        np.maximum(result, view, out=result)
    return (narrowed(result, arrays[0].dtype),)


def _max_pool_position(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    """The least place among those in the picture whose element is not below the maximum."""
    x = widened(arrays[0])
    (peak,) = _max_pool((x,), attributes)
    beyond = x.shape[2] * x.shape[3]
    places = np.arange(beyond, dtype=np.int32).reshape(1, 1, *x.shape[2:])
    result = np.full(peak.shape, beyond, np.int32)
    elements = _window_views(x, attributes, _lowest(x))
    for view, place in zip(elements, _window_views(places, attributes, beyond), strict=True):
        np.minimum(result, np.where(view < peak, beyond, place), out=result)
    return (result,)


def _avg_pool(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x = widened(arrays[0])
    first, *others = _window_views(x, attributes, 0)
    result = first.copy()
    for view in others:
        result += view
    with np.errstate(all="ignore"):
        result /= divisors(x.shape, result.shape, attributes).astype(result.dtype)
    return (narrowed(result, arrays[0].dtype),)


def divisors(x: tuple[int, ...], out: tuple[int, ...], attributes: Attributes) -> np.ndarray:
    """How many positions each window counts (height x width): in the picture or in the pads that count."""
    kernel, stride = integers(attributes, "kernel"), integers(attributes, "stride")
    pads, dilation = integers(attributes, "pads"), integers(attributes, "dilation")
    counted = integers(attributes, "divisor_pads") if integer(attributes, "count_include_pad") else (0,) * 4
    counts = []
    for dim in range(2):
        positions = np.add.outer(
            np.arange(out[2 + dim]) * stride[dim] - pads[dim], np.arange(kernel[dim]) * dilation[dim]
        )
        inside = (positions >= -counted[dim]) & (positions < x[2 + dim] + counted[2 + dim])
        counts.append(np.count_nonzero(inside, axis=1))
    return np.multiply.outer(*counts)


def _pool_cost(inputs: Types, outputs: Types, attributes: Attributes) -> Cost:
    rows, columns = integers(attributes, "kernel")
    return Cost(vector_ops=outputs[0].num_elements * rows * columns)


def _position_cost(inputs: Types, outputs: Types, attributes: Attributes) -> Cost:
    """The window is walked twice: for the maximum, then for its place."""
    return Cost(vector_ops=3 * _pool_cost(inputs, outputs, attributes).vector_ops)


_I32: Final = dtype("i32")
_KERNEL: Final = Attribute("ints", "window: rows, columns", length=2, minimum=1)
_MAX_ATTRIBUTES: Final = {"kernel": _KERNEL, "stride": STRIDE, "pads": PADS, "dilation": DILATION}
_AVG_ATTRIBUTES: Final = {
    "kernel": _KERNEL,
    "stride": STRIDE,
    "pads": PADS,
    "dilation": DILATION,
    "count_include_pad": Attribute("int", "1: pads count in the divisor, 0: they do not", minimum=0),
    "divisor_pads": Attribute("ints", "the pads that count if any do: top, left, bottom, right", length=4, minimum=0),
}


def _sample(
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[int, ...],
    elements: str = "f32",
    **others: AttributeValue,
) -> Sample:
    attributes: dict[str, AttributeValue] = {"kernel": kernel, "stride": stride, "pads": pads, **others}
    return Sample((TensorType(dtype(elements), shape),), attributes)


def _avg_sample(
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[int, ...],
    divisor_pads: tuple[int, ...] | None = None,
    elements: str = "f32",
    dilation: tuple[int, int] = (1, 1),
) -> Sample:
    counted = divisor_pads if divisor_pads is not None else pads
    others: dict[str, AttributeValue] = {
        "dilation": dilation,
        "count_include_pad": int(divisor_pads is not None),
        "divisor_pads": counted,
    }
    return _sample(shape, kernel, stride, pads, elements, **others)


ROWS: Final[tuple[OpRow, ...]] = (
    OpRow(
        name="max_pool2d",
        doc="The largest element of NCHW x under each window; pads count as the least value.",
        inputs="x",
        category="pool",
        loops="n c y x | r:kernel[0] s:kernel[1]",
        access={"x": "n, c, stride[0] * y + dilation[0] * r - pads[0], stride[1] * x + dilation[1] * s - pads[1]"},
        infer=_max_pool_rule,
        evaluate=_max_pool,
        cost=_pool_cost,
        attributes=_MAX_ATTRIBUTES,
        samples=(
            _sample((1, 2, 8, 8), (2, 2), (2, 2), (0, 0, 0, 0), dilation=(1, 1)),
            _sample((2, 3, 9, 7), (3, 3), (2, 2), (1, 1, 1, 1), dilation=(1, 1)),
            _sample((1, 2, 9, 9), (3, 2), (1, 2), (1, 0, 2, 1), dilation=(2, 3)),
            _sample((1, 2, 6, 6), (3, 3), (1, 1), (1, 1, 1, 1), "i8", dilation=(1, 1)),
            _sample((1, 2, 6, 6), (3, 3), (1, 1), (1, 1, 1, 1), "bf16", dilation=(1, 1)),
        ),
    ),
    OpRow(
        name="max_pool2d_position",
        doc="Where in its picture, in row-major order, the first largest element of NCHW x under each window lies.",
        inputs="x",
        category="pool",
        loops="n c y x | r:kernel[0] s:kernel[1]",
        access={"x": "n, c, stride[0] * y + dilation[0] * r - pads[0], stride[1] * x + dilation[1] * s - pads[1]"},
        infer=_max_pool_position_rule,
        evaluate=_max_pool_position,
        cost=_position_cost,
        attributes=_MAX_ATTRIBUTES,
        samples=(
            _sample((1, 2, 8, 8), (2, 2), (2, 2), (0, 0, 0, 0), dilation=(1, 1)),
            _sample((2, 3, 9, 7), (3, 3), (2, 2), (1, 1, 1, 1), dilation=(1, 1)),
            _sample((1, 2, 9, 9), (3, 2), (1, 2), (1, 0, 2, 1), dilation=(2, 3)),
            _sample((1, 2, 6, 6), (3, 3), (1, 1), (1, 1, 1, 1), "i8", dilation=(1, 1)),
        ),
    ),
    OpRow(
        name="avg_pool2d",
        doc="The mean element of NCHW x under each window; `divisor_pads` says which pads count.",
        inputs="x",
        category="pool",
        loops="n c y x | r:kernel[0] s:kernel[1]",
        access={"x": "n, c, stride[0] * y + dilation[0] * r - pads[0], stride[1] * x + dilation[1] * s - pads[1]"},
        infer=_avg_pool_rule,
        evaluate=_avg_pool,
        cost=_pool_cost,
        attributes=_AVG_ATTRIBUTES,
        samples=(
            _avg_sample((1, 2, 8, 8), (2, 2), (2, 2), (0, 0, 0, 0)),
            _avg_sample((2, 3, 9, 7), (3, 3), (2, 2), (1, 1, 1, 1)),
            _avg_sample((2, 3, 9, 7), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1, 1, 1)),
            _avg_sample((1, 2, 8, 8), (3, 3), (2, 2), (1, 1, 2, 2), (1, 1, 1, 1)),
            _avg_sample((1, 2, 9, 9), (3, 2), (1, 2), (2, 3, 2, 3), (2, 3, 2, 3), dilation=(2, 3)),
            _avg_sample((1, 2, 6, 6), (3, 3), (1, 1), (1, 1, 1, 1), elements="bf16"),
        ),
    ),
)
