"""Quantisation as vector instructions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from birc.compiler.ir.attributes import AttributeValue, element_type
from birc.compiler.passes.lower.expression import Builder, Expression

Value = Expression | float

_FAR: Final = 2.0**17
"""Quotients beyond this saturate in every type of at most 16 bits, whatever the zero point."""


def quantize(b: Builder, values: tuple[Value, ...], attributes: Mapping[str, AttributeValue]) -> Value:
    """x / scale, correctly rounded and then rounded to a whole number, plus the zero point, saturated.

    A scale of 1 needs no division, and a zero point of 0 no addition.
    """
    x, scale, *zero_point = values
    to = element_type(attributes, "to")
    whole: Value = b.op("vround", x if scale == 1.0 else quotient(b, x, scale))
    if zero_point and zero_point[0] != 0.0:
        whole = b.op("vadd", whole, zero_point[0])
    least = -(1 << (to.bits - 1)) if to.kind == "int" else 0
    if not (_is_positive(x) and isinstance(scale, float) and scale > 0.0):
        whole = b.op("vmax", whole, float(least))
    held = b.op("vmin", whole, float(least + (1 << to.bits) - 1))
    return b.op("vtoint", held, is_float=False)


def _is_positive(x: Value) -> bool:
    """Whether a value is known not to be below 0: quantised, it is not below the zero point."""
    return isinstance(x, Expression) and x.op == "vmax" and 0.0 in x.arguments


def quotient(b: Builder, x: Value, scale: Value) -> Value:
    """x / scale as FP32 rounds it, for quotients up to 2^17; larger ones only stay as large.

    The product with the reciprocal is corrected by what it leaves over. Source: P. Markstein, Computation of elementary
    functions on the IBM RISC System/6000 processor, IBM Journal of Research and Development 34, 1990.
    """
    if isinstance(scale, float):
        inverse: Value = 1.0 / scale if scale else math.inf
        far: Value = abs(_FAR * scale)
    else:
        inverse, far = b.op("vrcp", scale), b.op("vabs", b.op("vmul", scale, _FAR))
    near = b.op("vmax", b.op("vmin", x, far), b.op("vneg", far) if isinstance(far, Expression) else -far)
    rough = b.op("vmul", near, inverse)
    return b.op("vfma", b.op("vfnma", rough, scale, near), inverse, rough)


def dequantize(b: Builder, values: tuple[Value, ...], _: Mapping[str, AttributeValue]) -> Value:
    """(x - zero point) * scale."""
    x, scale, *zero_point = values
    centred = x
    if zero_point and zero_point[0] != 0.0:
        is_float = all(isinstance(value, float) or value.is_float for value in (x, zero_point[0]))
        centred = b.op("vsub", x, zero_point[0], is_float=is_float)
    if isinstance(centred, Expression) and not centred.is_float:
        centred = b.op("vtofloat", centred)
    return centred if scale == 1.0 else b.op("vmul", centred, scale)
