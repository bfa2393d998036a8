"""Lowering of the element-wise ONNX ops that are core rows or chains of them."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.lowering import Lower, OpType, Results, direct
from birc.compiler.importer.onnx_node import OnnxNode
from birc.runtime.dtypes import dtype


def _chain(op: str) -> Lower:
    """An ONNX op of any number of inputs as a chain of a binary row."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        result = node.input(0)
        for other in node.inputs[1:]:
            result = build.emit(op, (result, other))
        return result

    return lower


def _mean(node: OnnxNode, build: GraphBuilder) -> Results:
    total = node.input(0)
    for other in node.inputs[1:]:
        total = build.emit("add", (total, other))
    return build.emit("div", (total, build.scalar(len(node.inputs), total)))


def _pow(node: OnnxNode, build: GraphBuilder) -> Results:
    """The result has the type of the base; a float exponent of an integer base computes in float."""
    base, exponent = node.input(0), node.input(1)
    base_type, exponent_type = build.type_of(base).dtype, build.type_of(exponent).dtype
    if base_type == exponent_type:
        return build.emit("pow", (base, exponent))
    if base_type.is_float or not exponent_type.is_float:
        return build.emit("pow", (base, cast(build, exponent, base_type)))
    power = build.emit("pow", (cast(build, base, exponent_type), exponent))
    return cast(build, power, base_type)


def _mod(node: OnnxNode, build: GraphBuilder) -> Results:
    """With `fmod` the sign follows the dividend, else the divisor. The row: the divisor for integers, else
    the dividend.
    """
    dividend, divisor = node.input(0), node.input(1)
    remainder = build.emit("mod", (dividend, divisor))
    follows_dividend = build.type_of(dividend).dtype.is_float
    if bool(node.int_attribute("fmod", 0)) == follows_dividend:
        return remainder
    wanted = divisor if follows_dividend else dividend
    zero = build.scalar(0, remainder)
    signs = (build.emit("less", (remainder, zero)), build.emit("less", (wanted, zero)))
    is_rest = build.emit("not", (build.emit("equal", (remainder, zero)),))
    is_wrong = build.emit("and", (is_rest, build.emit("xor", signs)))
    shift = build.emit("add" if follows_dividend else "sub", (remainder, divisor))
    return build.emit("where", (is_wrong, shift, remainder))


def _clip_attributes(node: OnnxNode, build: GraphBuilder) -> Results:
    """Clip until operator set 10: the limits are attributes."""
    lowest = node.float_attribute("min", -math.inf) if node.has("min") else None
    highest = node.float_attribute("max", math.inf) if node.has("max") else None
    return _clipped(build, node.input(0), lowest, highest)


def _clip_inputs(node: OnnxNode, build: GraphBuilder) -> Results:
    """Clip since operator set 11: the limits are inputs, known or not."""
    x = node.input(0)
    minimum, maximum = node.optional(1), node.optional(2)
    lowest = build.constant_of(minimum) if minimum else None
    highest = build.constant_of(maximum) if maximum else None
    if lowest is not None and highest is not None and build.type_of(x).dtype.is_float:
        return _clipped(build, x, float(lowest.reshape(())), float(highest.reshape(())))
    if minimum:
        x = build.emit("maximum", (x, minimum))
    return build.emit("minimum", (x, maximum)) if maximum else x


def _clipped(build: GraphBuilder, x: str, lowest: float | None, highest: float | None) -> str:
    """The row needs both limits to be finite, so one alone is a maximum or a minimum."""
    lowest = None if lowest == -math.inf else lowest
    highest = None if highest == math.inf else highest
    if lowest is not None and highest is not None:
        return build.emit("clip", (x,), {"minimum": lowest, "maximum": highest})
    if lowest is not None:
        return build.emit("maximum", (x, build.scalar(lowest, x)))
    return build.emit("minimum", (x, build.scalar(highest, x))) if highest is not None else x


def _with_floats(op: str, **defaults: float) -> Lower:
    """An ONNX op that is a core row with float attributes of the same names."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        values = {name: node.float_attribute(name, default) for name, default in defaults.items()}
        return build.emit(op, (node.input(0),), values)

    return lower


def _gelu(node: OnnxNode, build: GraphBuilder) -> Results:
    return build.emit("gelu", (node.input(0),), {"approximate": node.string_attribute("approximate", "none")})


def _hard_swish(node: OnnxNode, build: GraphBuilder) -> Results:
    gate = build.emit("hard_sigmoid", (node.input(0),), {"alpha": 1.0 / 6.0, "beta": 0.5})
    return build.emit("mul", (node.input(0), gate))


def _swish(node: OnnxNode, build: GraphBuilder) -> Results:
    x, alpha = node.input(0), node.float_attribute("alpha", 1.0)
    if alpha == 1.0:
        return build.emit("silu", (x,))
    gate = build.emit("sigmoid", (build.emit("mul", (x, build.scalar(alpha, x))),))
    return build.emit("mul", (x, gate))


# The constants of self-normalising networks as the ONNX operator reference gives them (Selu, defaults).
_SELU_ALPHA: Final = 1.67326319217681884765625
_SELU_GAMMA: Final = 1.05070102214813232421875


def _selu(node: OnnxNode, build: GraphBuilder) -> Results:
    curve = build.emit("elu", (node.input(0),), {"alpha": node.float_attribute("alpha", _SELU_ALPHA)})
    return build.emit("mul", (curve, build.scalar(node.float_attribute("gamma", _SELU_GAMMA), curve)))


def _celu(node: OnnxNode, build: GraphBuilder) -> Results:
    """relu(x) + min(0, alpha (exp(x / alpha) - 1))"""
    x = node.input(0)
    alpha = build.scalar(node.float_attribute("alpha", 1.0), x)
    grown = build.emit("exp", (build.emit("div", (x, alpha)),))
    bent = build.emit("mul", (alpha, build.emit("sub", (grown, build.scalar(1, x)))))
    return build.emit("add", (build.emit("relu", (x,)), build.emit("minimum", (bent, build.scalar(0, x)))))


def _prelu(node: OnnxNode, build: GraphBuilder) -> Results:
    x, slope = node.input(0), node.input(1)
    negative = build.emit("less", (x, build.scalar(0, x)))
    return build.emit("where", (negative, build.emit("mul", (x, slope)), x))


def _thresholded_relu(node: OnnxNode, build: GraphBuilder) -> Results:
    x = node.input(0)
    above = build.emit("greater", (x, build.scalar(node.float_attribute("alpha", 1.0), x)))
    return build.emit("where", (above, x, build.scalar(0, x)))


def _mish(node: OnnxNode, build: GraphBuilder) -> Results:
    x = node.input(0)
    return build.emit("mul", (x, build.emit("tanh", (build.emit("softplus", (x,)),))))


def _softsign(node: OnnxNode, build: GraphBuilder) -> Results:
    x = node.input(0)
    return build.emit("div", (x, build.emit("add", (build.emit("abs", (x,)), build.scalar(1, x)))))


def _shrink(node: OnnxNode, build: GraphBuilder) -> Results:
    x = node.input(0)
    bias, limit = build.scalar(node.float_attribute("bias", 0.0), x), node.float_attribute("lambd", 0.5)
    below = build.emit("less", (x, build.scalar(-limit, x)))
    above = build.emit("greater", (x, build.scalar(limit, x)))
    upper = build.emit("where", (above, build.emit("sub", (x, bias)), build.scalar(0, x)))
    return build.emit("where", (below, build.emit("add", (x, bias)), upper))


def _tan(node: OnnxNode, build: GraphBuilder) -> Results:
    x = node.input(0)
    return build.emit("div", (build.emit("sin", (x,)), build.emit("cos", (x,))))


def _hyperbolic(op: str) -> Lower:
    """sinh and cosh: (exp(x) -+ exp(-x)) / 2."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        x = node.input(0)
        falling = build.emit("exp", (build.emit("neg", (x,)),))
        both = build.emit(op, (build.emit("exp", (x,)), falling))
        return build.emit("mul", (both, build.scalar(0.5, x)))

    return lower


def _asinh(node: OnnxNode, build: GraphBuilder) -> Results:
    """sign(x) log(|x| + sqrt(x^2 + 1)): on the magnitude, where the logarithm does not cancel."""
    x, magnitude = node.input(0), build.emit("abs", (node.input(0),))
    root = build.emit("sqrt", (build.emit("add", (build.emit("mul", (x, x)), build.scalar(1, x))),))
    logarithm = build.emit("log", (build.emit("add", (magnitude, root)),))
    return build.emit("mul", (build.emit("sign", (x,)), logarithm))


def _acosh(node: OnnxNode, build: GraphBuilder) -> Results:
    """log(x + sqrt(x^2 - 1))"""
    x = node.input(0)
    root = build.emit("sqrt", (build.emit("sub", (build.emit("mul", (x, x)), build.scalar(1, x))),))
    return build.emit("log", (build.emit("add", (x, root)),))


def _atanh(node: OnnxNode, build: GraphBuilder) -> Results:
    """log((1 + x) / (1 - x)) / 2"""
    x, one = node.input(0), build.scalar(1, node.input(0))
    ratio = build.emit("div", (build.emit("add", (one, x)), build.emit("sub", (one, x))))
    return build.emit("mul", (build.emit("log", (ratio,)), build.scalar(0.5, x)))


def _is_nan(node: OnnxNode, build: GraphBuilder) -> Results:
    """Only a NaN differs from itself."""
    return build.emit("not", (build.emit("equal", (node.input(0), node.input(0))),))


def _is_inf(node: OnnxNode, build: GraphBuilder) -> Results:
    x = node.input(0)
    positive, negative = node.int_attribute("detect_positive", 1), node.int_attribute("detect_negative", 1)
    if positive and negative:
        return build.emit("equal", (build.emit("abs", (x,)), build.scalar(np.inf, x)))
    if positive or negative:
        return build.emit("equal", (x, build.scalar(np.inf if positive else -np.inf, x)))
    return build.splat(False, build.type_of(x).with_dtype(dtype("bool")))


_DIRECT: Final = {
    "Abs": "abs",
    "Acos": "acos",
    "Add": "add",
    "And": "and",
    "Asin": "asin",
    "Atan": "atan",
    "Ceil": "ceil",
    "Cos": "cos",
    "Div": "div",
    "Equal": "equal",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Log": "log",
    "Mul": "mul",
    "Neg": "neg",
    "Not": "not",
    "Or": "or",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Softplus": "softplus",
    "Sqrt": "sqrt",
    "Sub": "sub",
    "Tanh": "tanh",
    "Where": "where",
    "Xor": "xor",
}

OP_TYPES: Final[tuple[OpType, ...]] = (
    *(OpType(name, direct(op)) for name, op in _DIRECT.items()),
    OpType("Acosh", _acosh),
    OpType("Asinh", _asinh),
    OpType("Atanh", _atanh),
    OpType("Celu", _celu),
    OpType("Clip", _clip_attributes, until=10),
    OpType("Clip", _clip_inputs, since=11),
    OpType("Cosh", _hyperbolic("add")),
    OpType("Elu", _with_floats("elu", alpha=1.0)),
    OpType("Gelu", _gelu),
    OpType("HardSigmoid", _with_floats("hard_sigmoid", alpha=0.2, beta=0.5)),
    OpType("HardSwish", _hard_swish),
    OpType("IsInf", _is_inf),
    OpType("IsNaN", _is_nan),
    OpType("LeakyRelu", _with_floats("leaky_relu", alpha=0.01)),
    OpType("Max", _chain("maximum")),
    OpType("Mean", _mean),
    OpType("Min", _chain("minimum")),
    OpType("Mish", _mish),
    OpType("Mod", _mod),
    OpType("Pow", _pow),
    OpType("PRelu", _prelu),
    OpType("Selu", _selu),
    OpType("Shrink", _shrink),
    OpType("Sinh", _hyperbolic("sub")),
    OpType("Softsign", _softsign),
    OpType("Sum", _chain("add")),
    OpType("Swish", _swish),
    OpType("Tan", _tan),
    OpType("ThresholdedRelu", _thresholded_relu),
)
