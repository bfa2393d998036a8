"""Element-wise ops as expressions of vector instructions (the machine has no exp, erf, division or sigmoid)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from birc.compiler.ir.attributes import AttributeValue
from birc.compiler.passes.lower.expression import Builder, Expression
from birc.compiler.passes.lower.quantization import dequantize, quantize
from birc.compiler.passes.lower.trigonometry import acos, asin, atan

Value = Expression | float
Macro = Callable[[Builder, tuple[Value, ...], Mapping[str, AttributeValue]], Value]

LOG2_E = 1.0 / math.log(2.0)
LN_2 = math.log(2.0)
LARGEST_MULTIPLIED_POWER = 64
QUOTIENT_BITS = 260
"""FP32 quotients of normal numbers are below 2^254."""
LARGEST_SCALE = 120
REMAINDER_BITS = 20
"""Bits of the quotient found at once: FP32 products of so few bits and a reciprocal are off by less than 1/8."""

# Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: |error| <= 1.5e-7.
ERF_P = 0.3275911
ERF_COEFFICIENTS = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
LARGEST_GELU = 100.0
"""Beyond it the tail of the normal distribution is 0 in FP32, and infinity times it would be no number."""


def exp(b: Builder, x: Value) -> Expression:
    """e to the power x."""
    return b.op("vexp2", b.op("vmul", x, LOG2_E))


def log(b: Builder, x: Value) -> Expression:
    """Natural logarithm."""
    return b.op("vmul", b.op("vlog2", x), LN_2)


def sqrt(b: Builder, x: Value) -> Expression:
    """Square root: 1 / rsqrt(x) is right at 0 and infinity too."""
    return b.op("vrcp", b.op("vrsqrt", x))


def divide(b: Builder, x: Value, y: Value) -> Value:
    """x / y, rounded to nearest: x times 1 / y, and once more what that leaves over.

    The correction is Markstein's (P. Markstein, Computation of elementary functions on the IBM RISC System/6000
    processor, IBM Journal of Research and Development 34, 1990). Where it is no number, the product is the quotient:
    an infinity, a zero or a NaN. By a power of two the product is exact.
    """
    inverse: Value
    if isinstance(y, float) and y != 0.0:
        inverse = float(np.float32(1.0 / y))
        if abs(math.frexp(y)[0]) == 0.5 or not math.isfinite(inverse):
            return b.op("vmul", x, inverse)
    else:
        inverse = b.op("vrcp", y)
    quotient = b.op("vmul", x, inverse)
    correction = b.op("vmul", b.op("vfnma", quotient, y, x), inverse)
    is_number = b.op("vlt", b.op("vabs", correction), math.inf, is_float=False)
    return b.op("vsel", is_number, b.op("vadd", quotient, correction), quotient)


def sigmoid(b: Builder, x: Value) -> Expression:
    """1 / (1 + exp(-x))"""
    return b.op("vrcp", b.op("vadd", b.op("vexp2", b.op("vmul", x, -LOG2_E)), 1.0))


def erf(b: Builder, x: Value) -> Expression:
    """The error function, by a polynomial in 1 / (1 + p |x|) times exp(-x^2)."""
    magnitude = b.op("vabs", x)
    t = b.op("vrcp", b.op("vfma", magnitude, ERF_P, 1.0))
    polynomial: Value = ERF_COEFFICIENTS[0]
    for coefficient in ERF_COEFFICIENTS[1:]:
        polynomial = b.op("vfma", polynomial, t, coefficient)
    decay = b.op("vexp2", b.op("vmul", b.op("vmul", x, x), -LOG2_E))
    tail = b.op("vmul", b.op("vmul", polynomial, t), decay)
    return b.op("vmul", b.op("vsign", x), b.op("vsub", 1.0, tail))


def gelu(b: Builder, x: Value, approximate: str) -> Expression:
    """x times the normal distribution function, exactly (erf) or by tanh.

    The exact one is max(x, 0) - |x| q, with q the tail of the distribution beyond |x|: the polynomial of `erf`.
    """
    if approximate == "tanh":
        slope = math.sqrt(2.0 / math.pi)
        inner = b.op("vmul", x, b.op("vfma", b.op("vmul", x, x), 0.044715 * slope, slope))
        half = b.op("vmul", x, 0.5)
        return b.op("vfma", half, b.op("vtanh", inner), half)
    size = b.op("vmin", b.op("vabs", x), LARGEST_GELU)
    t = b.op("vrcp", b.op("vfma", size, ERF_P * math.sqrt(0.5), 1.0))
    polynomial: Value = -0.5 * ERF_COEFFICIENTS[0]
    for coefficient in ERF_COEFFICIENTS[1:]:
        polynomial = b.op("vfma", polynomial, t, -0.5 * coefficient)
    decay = b.op("vexp2", b.op("vmul", b.op("vmul", size, -0.5 * LOG2_E), size))
    tail = b.op("vmul", b.op("vmul", polynomial, t), decay)
    return b.op("vfma", size, tail, b.op("vmax", x, 0.0))


def power(b: Builder, x: Value, y: Value) -> Value:
    """x to the power y: whole numbers by multiplication, else by logarithms."""
    if isinstance(y, float) and y.is_integer() and 1 <= abs(y) <= LARGEST_MULTIPLIED_POWER:
        result = _whole_power(b, x, int(abs(y)))
        return result if y > 0 else b.op("vrcp", result)
    if isinstance(y, float) and not y.is_integer():
        return b.op("vexp2", b.op("vmul", b.op("vlog2", x), y))
    return _signed_power(b, x, y)


def _whole_power(b: Builder, x: Value, exponent: int) -> Value:
    """x to a positive whole power, by repeated squaring."""
    result: Value | None = None
    square = x
    while True:
        if exponent & 1:
            result = square if result is None else b.op("vmul", result, square)
        exponent >>= 1
        if not exponent:
            return square if result is None else result
        square = b.op("vmul", square, square)


def _signed_power(b: Builder, x: Value, y: Value) -> Expression:
    """|x| to the power y with the sign of an odd power of x; NaN for other than whole powers of x < 0."""
    size = b.op("vexp2", b.op("vmul", b.op("vlog2", b.op("vabs", x)), y))
    half = b.op("vmul", y, 0.5)
    is_even = b.op("veq", half, b.op("vfloor", half), is_float=False)
    is_whole = b.op("veq", y, b.op("vfloor", y), is_float=False)
    of_negative = b.op("vsel", is_whole, b.op("vsel", is_even, size, b.op("vneg", size)), math.nan)
    signed = b.op("vsel", b.op("vlt", x, 0.0, is_float=False), of_negative, size)
    return b.op("vsel", b.op("veq", y, 0.0, is_float=False), 1.0, signed)


def modulo(b: Builder, x: Value, y: Value) -> Expression:
    """x less the multiple of y that is next to it on the side of zero: the remainder, exact, with the sign of x.

    Multiples of y times falling powers of two are taken off, each the nearest one: so few bits of the quotient at a
    time that the rest is less than a whole step, which FP32 then holds exactly. NaN for y = 0 and for infinite x.
    """
    size, step = b.op("vabs", x), b.op("vabs", y)
    inverse = b.op("vrcp", step)
    rest = size
    for power in range(QUOTIENT_BITS - REMAINDER_BITS, -1, -REMAINDER_BITS):
        multiple = _scaled(b, step, power)
        times = b.op("vround", b.op("vmul", _scaled(b, rest, -power), inverse))
        # Beyond the largest number no multiple is left to take off.
        is_beyond = b.op("veq", multiple, math.inf, is_float=False)
        rest = b.op("vsel", is_beyond, rest, b.op("vfnma", times, multiple, rest))
    rest = b.op("vsel", b.op("vlt", rest, 0.0, is_float=False), b.op("vadd", rest, step), rest)
    rest = b.op("vfma", x, 0.0, rest)
    return b.op("vsel", b.op("vlt", x, 0.0, is_float=False), b.op("vneg", rest), rest)


def _scaled(b: Builder, x: Value, power: int) -> Value:
    """x times a power of two, in steps that FP32 holds."""
    while power:
        step = max(-LARGEST_SCALE, min(power, LARGEST_SCALE))
        x = b.op("vmul", x, 2.0**step)
        power -= step
    return x


def softplus(b: Builder, x: Value) -> Expression:
    """log(1 + exp(x)), as max(x, 0) + log(1 + exp(-|x|)) which cannot overflow."""
    tail = log(b, b.op("vadd", exp(b, b.op("vneg", b.op("vabs", x))), 1.0))
    return b.op("vadd", b.op("vmax", x, 0.0), tail)


def _direct(mnemonic: str, is_float: bool = True) -> Macro:
    """An op that is one instruction on the same operands; the result is an integer if an operand is one."""

    def build(b: Builder, values: tuple[Value, ...], _: Mapping[str, AttributeValue]) -> Value:
        return b.op(mnemonic, *values, is_float=is_float and _are_floats(values))

    return build


def _are_floats(values: tuple[Value, ...]) -> bool:
    return all(isinstance(v, float) or v.is_float for v in values)


def _swapped(mnemonic: str) -> Macro:
    return lambda b, v, _: b.op(mnemonic, v[1], v[0], is_float=False)


def _unary(function: Callable[[Builder, Value], Value]) -> Macro:
    return lambda b, v, _: function(b, v[0])


def _number(value: AttributeValue) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"expected a number, not {value!r}")
    return float(value)


def _clip(b: Builder, v: tuple[Value, ...], a: Mapping[str, AttributeValue]) -> Value:
    result = v[0]
    low, high = _number(a["minimum"]), _number(a["maximum"])
    is_float = _are_floats(v)
    if low > -math.inf:
        result = b.op("vmax", result, low if is_float else float(math.trunc(low)), is_float=is_float)
    if high < math.inf:
        result = b.op("vmin", result, high if is_float else float(math.trunc(high)), is_float=is_float)
    return result


def _elu(b: Builder, v: tuple[Value, ...], a: Mapping[str, AttributeValue]) -> Value:
    grown = b.op("vmul", b.op("vsub", exp(b, b.op("vmin", v[0], 0.0)), 1.0), _number(a["alpha"]))
    return b.op("vsel", b.op("vlt", 0.0, v[0], is_float=False), v[0], grown)


def _leaky_relu(b: Builder, v: tuple[Value, ...], a: Mapping[str, AttributeValue]) -> Value:
    return b.op("vfma", b.op("vmin", v[0], 0.0), _number(a["alpha"]), b.op("vmax", v[0], 0.0))


def _hard_sigmoid(b: Builder, v: tuple[Value, ...], a: Mapping[str, AttributeValue]) -> Value:
    line = b.op("vfma", v[0], _number(a["alpha"]), _number(a["beta"]))
    return b.op("vmin", b.op("vmax", line, 0.0), 1.0)


def _where(b: Builder, v: tuple[Value, ...], _: Mapping[str, AttributeValue]) -> Value:
    return b.op("vsel", *v)


def _not(b: Builder, v: tuple[Value, ...], _: Mapping[str, AttributeValue]) -> Value:
    return b.op("vnot", v[0], is_float=False)


MACROS: dict[str, Macro] = {
    "add": _direct("vadd"),
    "sub": _direct("vsub"),
    "mul": _direct("vmul"),
    "div": lambda b, v, _: divide(b, *v),
    "pow": lambda b, v, _: power(b, *v),
    "mod": lambda b, v, _: modulo(b, *v),
    "maximum": _direct("vmax"),
    "minimum": _direct("vmin"),
    "and": _direct("vand", is_float=False),
    "or": _direct("vor", is_float=False),
    "xor": _direct("vxor", is_float=False),
    "equal": _direct("veq", is_float=False),
    "less": _direct("vlt", is_float=False),
    "less_equal": _direct("vle", is_float=False),
    "greater": _swapped("vlt"),
    "greater_equal": _swapped("vle"),
    "neg": _direct("vneg"),
    "abs": _direct("vabs"),
    "floor": _direct("vfloor"),
    "ceil": _direct("vceil"),
    "round": _direct("vround"),
    "sign": _direct("vsign"),
    "not": _not,
    "relu": lambda b, v, _: b.op("vmax", v[0], 0.0, is_float=_are_floats(v)),
    "exp": _unary(exp),
    "log": _unary(log),
    "sqrt": _unary(sqrt),
    "rsqrt": _direct("vrsqrt"),
    "reciprocal": _direct("vrcp"),
    "tanh": _direct("vtanh"),
    "sin": _direct("vsin"),
    "cos": _direct("vcos"),
    "asin": _unary(asin),
    "acos": _unary(acos),
    "atan": _unary(atan),
    "sigmoid": _unary(sigmoid),
    "silu": lambda b, v, _: b.op("vmul", v[0], sigmoid(b, v[0])),
    "erf": _unary(erf),
    "gelu": lambda b, v, a: gelu(b, v[0], str(a["approximate"])),
    "softplus": _unary(softplus),
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "hard_sigmoid": _hard_sigmoid,
    "clip": _clip,
    "where": _where,
    "quantize": quantize,
    "dequantize": dequantize,
}

FLOAT_ONLY = frozenset(
    {"exp", "log", "sqrt", "rsqrt", "reciprocal", "tanh", "sin", "cos", "asin", "acos", "atan", "sigmoid", "silu"}
    | {"erf", "gelu", "softplus", "leaky_relu", "elu", "hard_sigmoid", "floor", "ceil", "round"}
)
"""Element-wise ops that the vector cores compute on floating-point values alone."""
