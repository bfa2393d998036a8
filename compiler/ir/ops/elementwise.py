"""Elementwise ops: one output element from the elements at the same (broadcast) index."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.ir.attributes import Attribute, Attributes, number, text
from birc.compiler.ir.op import Arrays, OpRow, Sample, Types
from birc.compiler.ir.ops.costs import per_element
from birc.compiler.ir.ops.elementwise_rows import (
    BOOL,
    binary,
    comparison,
    logical,
    pair_samples,
    parametric,
    unary,
    unary_samples,
)
from birc.compiler.ir.ops.numeric import (
    erf,
    is_floating,
    sigmoid,
)
from birc.compiler.ir.ops.type_rules import (
    broadcast_shapes,
    is_bool,
    is_number,
    require,
    same_dtype,
)
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import dtype

_F32: Final = dtype("f32")
_I64: Final = dtype("i64")


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Floats divide; integers divide towards zero, as ONNX says."""
    if is_floating(a.dtype):
        return np.divide(a, b)
    return np.floor_divide(a, b) + ((np.remainder(a, b) != 0) & ((a < 0) != (b < 0)))


def _power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integers to a negative power are what the real power truncates to (numpy refuses them)."""
    if is_floating(a.dtype):
        return np.power(a, b)
    exact = np.power(a, np.maximum(b, 0))
    inverse = np.power(a.astype(np.float64), b.astype(np.float64))
    return np.where(b >= 0, exact, np.nan_to_num(np.trunc(inverse), posinf=0.0, neginf=0.0).astype(a.dtype))


def _modulo(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.fmod(a, b) if is_floating(a.dtype) else np.remainder(a, b)


def _rsqrt(x: np.ndarray) -> np.ndarray:
    return np.reciprocal(np.sqrt(x))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, x.dtype.type(0))


def _silu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)


def _leaky_relu(x: np.ndarray, attributes: Attributes) -> np.ndarray:
    return np.where(x >= 0, x, x * x.dtype.type(number(attributes, "alpha")))


def _elu(x: np.ndarray, attributes: Attributes) -> np.ndarray:
    return np.where(x >= 0, x, x.dtype.type(number(attributes, "alpha")) * np.expm1(np.minimum(x, 0)))


def _hard_sigmoid(x: np.ndarray, attributes: Attributes) -> np.ndarray:
    scaled = x * x.dtype.type(number(attributes, "alpha")) + x.dtype.type(number(attributes, "beta"))
    return np.clip(scaled, x.dtype.type(0), x.dtype.type(1))


def _gelu(x: np.ndarray, attributes: Attributes) -> np.ndarray:
    half = x.dtype.type(0.5)
    if text(attributes, "approximate") == "none":
        return half * x * (1 + erf(x * x.dtype.type(math.sqrt(0.5))))
    inner = x.dtype.type(math.sqrt(2 / math.pi)) * (x + x.dtype.type(0.044715) * x * x * x)
    return half * x * (1 + np.tanh(inner))


def _clip(x: np.ndarray, attributes: Attributes) -> np.ndarray:
    low, high = number(attributes, "minimum"), number(attributes, "maximum")
    if is_floating(x.dtype):
        return np.minimum(np.maximum(x, x.dtype.type(low)), x.dtype.type(high))
    least, most = np.iinfo(x.dtype).min, np.iinfo(x.dtype).max
    return np.clip(x, _bounded(low, least, most), _bounded(high, least, most))


def _bounded(value: float, least: int, most: int) -> int:
    return least if value <= least else most if value >= most else int(value)


def _where_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    condition, a, b = types
    require(is_bool, "bool (first input)", condition)
    return (TensorType(same_dtype(a, b), broadcast_shapes(condition.shape, a.shape, b.shape)),)


def _where(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    condition, a, b = arrays
    return (np.where(condition, a, b),)


_POSITIVE: Final = unary_samples("f32", low=0.1, high=4.0)
_COSINES: Final = unary_samples("f32", low=-1.0, high=1.0)
_ALPHA: Final = Attribute("float", "factor of the negative side")

BINARY: Final = (
    binary("add", "a + b.", np.add),
    binary("sub", "a - b.", np.subtract),
    binary("mul", "a * b.", np.multiply),
    binary("div", "a / b; integers divide towards zero.", _divide, ops=2, sfu=1,
            samples=pair_samples("f32", "i32", low=1.0, high=6.0)),
    binary("pow", "a to the power b.", _power, ops=2, sfu=2,
            samples=(*pair_samples("f32", low=0.1, high=2.0), *pair_samples("i32", low=1.0, high=3.0))),
    binary("maximum", "The larger of a and b; NaN if one is.", np.maximum),
    binary("minimum", "The smaller of a and b; NaN if one is.", np.minimum),
    binary("mod", "Remainder of a / b: the sign of b for integers, of a for floats.", _modulo, ops=4, sfu=1,
            samples=pair_samples("f32", "i32", low=1.0, high=6.0)),
)  # fmt: skip

LOGICAL: Final = (
    logical("and", "a and b.", np.logical_and),
    logical("or", "a or b.", np.logical_or),
    logical("xor", "a or b, not both.", np.logical_xor),
    comparison("equal", "a = b.", np.equal),
    comparison("less", "a < b.", np.less),
    comparison("less_equal", "a <= b.", np.less_equal),
    comparison("greater", "a > b.", np.greater),
    comparison("greater_equal", "a >= b.", np.greater_equal),
)

_NUMBERS: Final = unary_samples("f32", "i32")

UNARY: Final = (
    unary("neg", "-x.", np.negative, test=is_number, wanted="number", samples=_NUMBERS),
    unary("abs", "x without its sign.", np.abs, test=is_number, wanted="number", samples=_NUMBERS),
    unary("exp", "e to the power x.", np.exp, ops=1, sfu=1),
    unary("log", "Natural logarithm.", np.log, ops=1, sfu=1, samples=_POSITIVE),
    unary("sqrt", "Square root.", np.sqrt, ops=1, sfu=1, samples=_POSITIVE),
    unary("rsqrt", "1 / sqrt(x).", _rsqrt, ops=0, sfu=1, samples=_POSITIVE),
    unary("reciprocal", "1 / x.", np.reciprocal, ops=0, sfu=1, samples=_POSITIVE),
    unary("tanh", "Hyperbolic tangent.", np.tanh, ops=0, sfu=1),
    unary("sigmoid", "1 / (1 + exp(-x)).", sigmoid, ops=2, sfu=2),
    unary("erf", "The error function.", erf, ops=12, sfu=2),
    unary("relu", "max(x, 0).", _relu, test=is_number, wanted="number", samples=_NUMBERS),
    unary("floor", "The greatest whole number not above x.", np.floor),
    unary("ceil", "The least whole number not below x.", np.ceil),
    unary("round", "The nearest whole number, ties to even.", np.rint),
    unary("sign", "-1, 0 or 1.", np.sign, ops=2, test=is_number, wanted="number", samples=_NUMBERS),
    unary("sin", "Sine of x in radians.", np.sin, ops=1, sfu=1),
    unary("cos", "Cosine of x in radians.", np.cos, ops=1, sfu=1),
    unary("asin", "The angle in radians whose sine is x.", np.arcsin, ops=15, sfu=2, samples=_COSINES),
    unary("acos", "The angle in radians whose cosine is x.", np.arccos, ops=17, sfu=2, samples=_COSINES),
    unary("atan", "The angle in radians whose tangent is x.", np.arctan, ops=18, sfu=1),
    unary("not", "The opposite truth value.", np.logical_not, test=is_bool, wanted="bool",
           samples=unary_samples("bool")),
    unary("softplus", "log(1 + exp(x)).", _softplus, ops=4, sfu=2),
    unary("silu", "x * sigmoid(x).", _silu, ops=3, sfu=2),
)  # fmt: skip

PARAMETRIC: Final = (
    parametric("leaky_relu", "x where it is at least 0, else alpha * x.", {"alpha": _ALPHA}, _leaky_relu,
                ops=2, samples=unary_samples("f32", attributes={"alpha": 0.1})),
    parametric("elu", "x where it is at least 0, else alpha * (exp(x) - 1).", {"alpha": _ALPHA}, _elu,
                ops=4, sfu=1, samples=unary_samples("f32", attributes={"alpha": 0.5})),
    parametric("hard_sigmoid", "alpha * x + beta, held between 0 and 1.",
                {"alpha": Attribute("float", "slope"), "beta": Attribute("float", "value at 0")},
                _hard_sigmoid, ops=3, samples=unary_samples("f32", attributes={"alpha": 0.2, "beta": 0.5})),
    parametric("gelu", "x times the normal distribution function at x, exactly or approximated by tanh.",
                {"approximate": Attribute("string", "exact or by tanh", choices=("none", "tanh"))}, _gelu,
                ops=14, sfu=2, samples=(*unary_samples("f32", attributes={"approximate": "none"}),
                                        *unary_samples("f32", attributes={"approximate": "tanh"}))),
    parametric("clip", "x held between two numbers.",
                {"minimum": Attribute("float", "least result"), "maximum": Attribute("float", "largest")},
                _clip, ops=2, test=is_number, wanted="number",
                samples=(*unary_samples("f32", "i32", attributes={"minimum": -1.0, "maximum": 1.0}),
                         *unary_samples("i32", attributes={"minimum": 0.0, "maximum": math.inf}))),
)  # fmt: skip

WHERE: Final = OpRow(
    name="where",
    doc="a where the condition holds, else b.",
    inputs="condition a b",
    category="elementwise",
    loops="i*",
    access={"condition": "i*", "a": "i*", "b": "i*"},
    infer=_where_rule,
    evaluate=_where,
    cost=per_element(1),
    samples=(
        Sample((TensorType(BOOL, (2, 1)), TensorType(_F32, (2, 3)), TensorType(_F32, ()))),
        Sample((TensorType(BOOL, (3,)), TensorType(_I64, (2, 1)), TensorType(_I64, (2, 3)))),
    ),
)

ROWS: Final[tuple[OpRow, ...]] = (*BINARY, *LOGICAL, *UNARY, *PARAMETRIC, WHERE)
