"""Inverse trigonometric functions as expressions of vector instructions.

Reductions of the argument and polynomials: S. L. Moshier, Cephes Mathematical Library, release 2.2 (1992), single
precision: atanf (error at most 2e-7 of the result) and asinf (at most 3e-7).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from birc.compiler.passes.lower.expression import Builder, Expression

Value = Expression | float

ATAN_COEFFICIENTS = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)
ASIN_COEFFICIENTS = (4.2163199048e-2, 2.4181311049e-2, 4.5470025998e-2, 7.4953002686e-2, 1.6666752422e-1)
TAN_PI_8 = math.sqrt(2.0) - 1.0
TAN_3_PI_8 = math.sqrt(2.0) + 1.0


def _odd_polynomial(b: Builder, x: Value, squared: Value, coefficients: Sequence[float]) -> Expression:
    """x + x^3 p(x^2), p by Horner's rule from the highest coefficient on."""
    result: Value = coefficients[0]
    for coefficient in coefficients[1:]:
        result = b.op("vfma", result, squared, coefficient)
    return b.op("vfma", b.op("vmul", result, squared), x, x)


def atan(b: Builder, x: Value) -> Expression:
    """The angle between -pi/2 and pi/2 whose tangent is x.

    With t = (x - 1) / (x + 1) or -1 / x for larger x, atan x is pi/4 or pi/2 and the angle of t.
    """
    size = b.op("vabs", x)
    is_large = b.op("vlt", TAN_3_PI_8, size, is_float=False)
    is_middle = b.op("vlt", TAN_PI_8, size, is_float=False)
    numerator = b.op("vsel", is_large, -1.0, b.op("vsel", is_middle, b.op("vsub", size, 1.0), size))
    divisor = b.op("vsel", is_large, size, b.op("vsel", is_middle, b.op("vadd", size, 1.0), 1.0))
    reduced = b.op("vmul", numerator, b.op("vrcp", divisor))
    angle = b.op("vsel", is_large, math.pi / 2, b.op("vsel", is_middle, math.pi / 4, 0.0))
    rest = _odd_polynomial(b, reduced, b.op("vmul", reduced, reduced), ATAN_COEFFICIENTS)
    return b.op("vmul", b.op("vsign", x), b.op("vadd", angle, rest))


def _asin_of_magnitude(b: Builder, size: Expression) -> tuple[Expression, Expression]:
    """Whether a magnitude is above 1/2, and asin of it, there of sqrt((1 - it) / 2): half of what is left to pi/2."""
    is_large = b.op("vlt", 0.5, size, is_float=False)
    half = b.op("vfma", size, -0.5, 0.5)
    squared = b.op("vsel", is_large, half, b.op("vmul", size, size))
    root = b.op("vrcp", b.op("vrsqrt", half))
    return is_large, _odd_polynomial(b, b.op("vsel", is_large, root, size), squared, ASIN_COEFFICIENTS)


def asin(b: Builder, x: Value) -> Expression:
    """The angle between -pi/2 and pi/2 whose sine is x; NaN beyond 1."""
    is_large, angle = _asin_of_magnitude(b, b.op("vabs", x))
    result = b.op("vsel", is_large, b.op("vfma", angle, -2.0, math.pi / 2), angle)
    return b.op("vmul", b.op("vsign", x), result)


def acos(b: Builder, x: Value) -> Expression:
    """The angle between 0 and pi whose cosine is x; NaN beyond 1."""
    is_large, angle = _asin_of_magnitude(b, b.op("vabs", x))
    is_negative = b.op("vlt", x, 0.0, is_float=False)
    double = b.op("vmul", angle, 2.0)
    beside_an_end = b.op("vsel", is_negative, b.op("vsub", math.pi, double), double)
    signed = b.op("vsel", is_negative, b.op("vneg", angle), angle)
    return b.op("vsel", is_large, beside_an_end, b.op("vsub", math.pi / 2, signed))
