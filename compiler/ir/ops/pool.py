"""Pools: the largest or the mean element under a sliding window."""

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


def _avg_pool_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    return _pool_type(types, attributes, is_float, "float")


def _window_views(x: np.ndarray, attributes: Attributes, filler: object) -> list[np.ndarray]:
    """What each position of the window sees, for all windows at once."""
    kernel, pads = integers(attributes, "kernel"), integers(attributes, "pads")
    stride = integers(attributes, "stride")
    dilation = integers(attributes, "dilation") if "dilation" in attributes else (1, 1)
    surrounded = padded(x, pads, filler)
    out = [(surrounded.shape[2 + dim] - dilation[dim] * (kernel[dim] - 1) - 1) // stride[dim] + 1 for dim in range(2)]
    return list(taps(surrounded, kernel, stride, dilation, out))


def _max_pool(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x = widened(arrays[0])
    lowest = -np.inf if is_floating(x.dtype) else np.iinfo(x.dtype).min
    first, *others = _window_views(x, attributes, lowest)
    result = first.copy()
    for view in others:
        np.maximum(result, view, out=result)
    return (narrowed(result, arrays[0].dtype),)


def _avg_pool(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x = widened(arrays[0])
    first, *others = _window_views(x, attributes, 0)
    result = first.copy()
    for view in others:
        result += view
    with np.errstate(all="ignore"):
        result /= _divisors(x.shape, result.shape, attributes).astype(result.dtype)
    return (narrowed(result, arrays[0].dtype),)


def _divisors(x: tuple[int, ...], out: tuple[int, ...], attributes: Attributes) -> np.ndarray:
    """How many positions each window counts (height x width): in the picture or in the pads that count."""
    kernel, stride = integers(attributes, "kernel"), integers(attributes, "stride")
    pads = integers(attributes, "pads")
    counted = integers(attributes, "divisor_pads") if integer(attributes, "count_include_pad") else (0,) * 4
    counts = []
    for dim in range(2):
        start = np.arange(out[2 + dim]) * stride[dim] - pads[dim]
        stop = np.minimum(start + kernel[dim], x[2 + dim] + counted[2 + dim])
        counts.append(stop - np.maximum(start, -counted[dim]))
    return np.maximum(np.multiply.outer(*counts), 0)


def _pool_cost(inputs: Types, outputs: Types, attributes: Attributes) -> Cost:
    rows, columns = integers(attributes, "kernel")
    return Cost(vector_ops=outputs[0].num_elements * rows * columns)


_KERNEL: Final = Attribute("ints", "window: rows, columns", length=2, minimum=1)
_MAX_ATTRIBUTES: Final = {"kernel": _KERNEL, "stride": STRIDE, "pads": PADS, "dilation": DILATION}
_AVG_ATTRIBUTES: Final = {
    "kernel": _KERNEL,
    "stride": STRIDE,
    "pads": PADS,
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
) -> Sample:
    counted = divisor_pads if divisor_pads is not None else pads
    include = int(divisor_pads is not None)
    return _sample(shape, kernel, stride, pads, elements, count_include_pad=include, divisor_pads=counted)


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
        name="avg_pool2d",
        doc="The mean element of NCHW x under each window; `divisor_pads` says which pads count.",
        inputs="x",
        category="pool",
        loops="n c y x | r:kernel[0] s:kernel[1]",
        access={"x": "n, c, stride[0] * y + r - pads[0], stride[1] * x + s - pads[1]"},
        infer=_avg_pool_rule,
        evaluate=_avg_pool,
        cost=_pool_cost,
        attributes=_AVG_ATTRIBUTES,
        samples=(
            _avg_sample((1, 2, 8, 8), (2, 2), (2, 2), (0, 0, 0, 0)),
            _avg_sample((2, 3, 9, 7), (3, 3), (2, 2), (1, 1, 1, 1)),
            _avg_sample((2, 3, 9, 7), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1, 1, 1)),
            _avg_sample((1, 2, 8, 8), (3, 3), (2, 2), (1, 1, 2, 2), (1, 1, 1, 1)),
            _avg_sample((1, 2, 6, 6), (3, 3), (1, 1), (1, 1, 1, 1), elements="bf16"),
        ),
    ),
)
