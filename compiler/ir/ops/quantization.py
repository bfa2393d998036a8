"""Quantisation: floats as small integers with a scale and a zero point, and back.

Scale and zero point broadcast to what they scale: () is one for the whole tensor, [C, 1, 1] one for each channel of an
image; one for each block is a repeated one for each element.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.ir.attributes import Attribute, Attributes, element_type
from birc.compiler.ir.errors import TypeRuleError
from birc.compiler.ir.op import Arrays, OpRow, Sample, Types
from birc.compiler.ir.ops.costs import per_element
from birc.compiler.ir.ops.numeric import narrowed, widened
from birc.compiler.ir.ops.type_rules import broadcast_shapes, is_float, require, same_dtype
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import dtype

_MOST_BITS: Final = 16
_RANDOM: Final = np.random.default_rng(0)


def _quantize_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    x, scale, *zero_point = types
    to = element_type(attributes, "to")
    require(is_float, "float", x, scale)
    same_dtype(x, scale)
    if not to.is_integer or to.bits > _MOST_BITS:
        raise TypeRuleError(f"makes integers of at most {_MOST_BITS} bits, not {to}")
    if zero_point:
        same_dtype(zero_point[0], TensorType(to, ()))
    _require_broadcast(types)
    return (TensorType(to, x.shape),)


def _dequantize_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    x, scale, *zero_point = types
    require(is_float, "float (scale)", scale)
    if not (x.dtype.is_float and x.dtype.bits <= 8) and not (x.dtype.is_integer and x.dtype.bits <= 32):
        raise TypeRuleError(f"takes integers of at most 32 bits and floats of at most 8, not {x}")
    if zero_point:
        same_dtype(x, zero_point[0])
    _require_broadcast(types)
    return (TensorType(scale.dtype, x.shape),)


def _require_broadcast(types: Types) -> None:
    x, *others = types
    for other in others:
        if broadcast_shapes(x.shape, other.shape) != tuple(x.shape):
            raise TypeRuleError(f"a scale or zero point {other} does not broadcast to {x}")


def _quantize(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x, scale, *zero_point = arrays
    to = element_type(attributes, "to")
    with np.errstate(all="ignore"):
        whole = np.rint(widened(x) / widened(scale)).astype(np.float64)
    shifted = whole + (zero_point[0].astype(np.float64) if zero_point else 0.0)
    least = -(1 << (to.bits - 1)) if to.kind == "int" else 0
    held = np.clip(np.nan_to_num(shifted, nan=0.0), least, least + (1 << to.bits) - 1)
    return (held.astype(np.int32).astype(to.numpy),)


def _dequantize(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x, scale, *zero_point = arrays
    wide = x.astype(np.float64)
    if zero_point:
        wide = wide - zero_point[0].astype(np.float64)
    with np.errstate(all="ignore"):
        return (narrowed(wide.astype(np.float32) * widened(scale), scale.dtype),)


def _floats(*shape: int, reach: float = 40.0) -> np.ndarray:
    """Multiples of a quarter: with a scale of a half or one there are ties."""
    return (_RANDOM.integers(-int(4 * reach), int(4 * reach), shape) / 4).astype(np.float32)


def _integers(name: str, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype(name).numpy)
    return _RANDOM.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype(name).numpy)


def _scales(*values: float) -> np.ndarray:
    return np.array(values if len(values) > 1 else values[0], np.float32)


ROWS: Final[tuple[OpRow, ...]] = (
    OpRow(
        name="quantize",
        doc="x / scale, rounded to nearest, ties to even, plus the zero point, saturated to the integers of `to`; NaN "
        "becomes the zero point's 0. Scale and zero point broadcast to x.",
        inputs="x scale zero_point?",
        category="elementwise",
        loops="i*",
        access={"x": "i*", "scale": "i*", "zero_point": "i*"},
        infer=_quantize_rule,
        evaluate=_quantize,
        cost=per_element(8),
        attributes={"to": Attribute("dtype", "element type of the result")},
        samples=(
            Sample((_floats(4, 9), _scales(0.5), np.array(3, np.int8)), {"to": dtype("i8")}),
            Sample((_floats(4, 9), _scales(0.3), np.array(128, np.uint8)), {"to": dtype("u8")}),
            Sample((_floats(5, 3), _scales(1.0, 0.07, 0.5), np.array([-3, 0, 100], np.int8)), {"to": dtype("i8")}),
            Sample((_floats(3, 7, reach=9.0), _scales(0.0001)), {"to": dtype("i16")}),
            Sample((_floats(2, 3, 5, reach=9.0), _scales(0.0003), np.array(32768, np.uint16)), {"to": dtype("u16")}),
        ),
    ),
    OpRow(
        name="dequantize",
        doc="(x - zero point) * scale, in the type of the scale. Scale and zero point broadcast to x.",
        inputs="x scale zero_point?",
        category="elementwise",
        loops="i*",
        access={"x": "i*", "scale": "i*", "zero_point": "i*"},
        infer=_dequantize_rule,
        evaluate=_dequantize,
        cost=per_element(3),
        samples=(
            Sample((_integers("i8", 4, 9), _scales(0.5), np.array(3, np.int8))),
            Sample((_integers("u8", 5, 3), _scales(1.0, 0.07, 0.5), np.array([3, 0, 200], np.uint8))),
            Sample((_integers("u16", 3, 7), _scales(0.01), np.array(65535, np.uint16))),
            Sample((_integers("i32", 3, 7) // 100, _scales(0.0003))),
        ),
    ),
)
