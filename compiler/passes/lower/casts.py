"""Casts on the vector cores: the same values in another element type, and rounding to the type that a value has."""

from __future__ import annotations

import math

import numpy as np

from birc.compiler.ir.attributes import integer, text
from birc.compiler.ir.graph import Node
from birc.compiler.passes.lower.expression import Builder, Expression
from birc.compiler.passes.lower.integers import lane_to_float, register
from birc.compiler.passes.lower.wide import Wide, from_float, not_zero, to_float
from birc.runtime.dtypes import DType, dtype

LARGEST_FINITE = {"f8e4m3": 448.0, "f8e5m2": 57344.0}
"""OCP 8-bit floating point specification, table 1."""

SMALL_FLOATS = {
    "f8e4m3fnuz": (3, -7, 240.0),
    "f8e5m2fnuz": (2, -15, 57344.0),
    "f6e2m3": (3, 0, 7.5),
    "f6e3m2": (2, -2, 28.0),
    "f4e2m1": (1, 0, 6.0),
}
"""Fraction bits, least exponent of a normal number, largest number. Sources: OCP microscaling formats specification,
table 1; ONNX operator reference, float stored in 8 bits."""

WITHOUT_NAN = frozenset({"f6e2m3", "f6e3m2", "f4e2m1"})
WITHOUT_NEGATIVE_ZERO = frozenset({"f8e4m3fnuz", "f8e5m2fnuz"})
LEAST_POWER, LARGEST_POWER = 2.0**-127, 2.0**127
"""The range of E8M0: OCP microscaling formats specification, table 1."""

EXACT = frozenset(
    {
        "abs",
        "ceil",
        "floor",
        "gather",
        "gather_nd",
        "max_pool2d",
        "maximum",
        "minimum",
        "neg",
        "reduce_max",
        "reduce_min",
    }
    | {"relu", "round", "sign", "where"}
)
"""Ops whose results have no more digits than their operands."""

ROUNDINGS = {"bf16": "vtobf16", "f16": "vtof16", "f8e4m3": "vtof8e4m3", "f8e5m2": "vtof8e5m2"}
REGISTER_BITS = 32


def cast(b: Builder, value: Expression, source: DType, node: Node) -> Expression:
    """The expression of a `cast` or `convert` node of a value of type `source`.

    Integers of 8 and 16 bits are cut, and floats rounded to the types of `ROUNDINGS`, where they are stored or read.
    """
    target = node.output.type.dtype
    is_choice = node.op == "convert"
    saturate = not is_choice or bool(integer(node.attributes, "saturate"))
    if target.kind == "bool":
        return value if source.kind == "bool" else b.op("vnot", b.op("veq", value, 0.0, is_float=False), is_float=False)
    if target.is_float:
        wide = value if source.is_float else lane_to_float(b, value, source)
        if target.name == "f8e8m0":
            return _power_of_two(b, wide, saturate, text(node.attributes, "round_mode") if is_choice else "up")
        if target.name in SMALL_FLOATS:
            return _small_float(b, wide, target.name, saturate)
        limit = LARGEST_FINITE.get(target.name) if saturate else None
        return wide if limit is None else _held(b, wide, -limit, limit)
    if source.is_float:
        return _whole(b, value, target, saturate)
    return value if _holds(target, source) else _low_bits(b, value, target)


def wide_cast(b: Builder, value: Wide | Expression, source: DType, node: Node) -> Wide | Expression:
    """As `cast`, from or to integers of 64 bits that may not fit a lane."""
    target = node.output.type.dtype
    if isinstance(value, Expression):
        return from_float(b, value, target)
    if target.kind == "bool":
        return not_zero(b, value)
    if target.is_float:
        return cast(b, to_float(b, value, source), dtype("f32"), node)
    return value if target.bits > REGISTER_BITS else cast(b, register(b, value.low), source, node)


def rounded(b: Builder, value: Expression, element: DType) -> Expression:
    """A computed value of type `element` as memory would give it back.

    The types that are not in `ROUNDINGS` are made by casts alone, which round to them at once.
    """
    mnemonic = ROUNDINGS.get(element.name)
    return value if mnemonic is None else b.op(mnemonic, value)


def _held(b: Builder, value: Expression, low: float, high: float, is_float: bool = True) -> Expression:
    return b.op("vmin", b.op("vmax", value, low, is_float=is_float), high, is_float=is_float)


def _holds(target: DType, source: DType) -> bool:
    """Whether memory of type `target` needs no help to keep the low bits of an integer of type `source`."""
    if target.bits >= 8 or source.kind == "bool":
        return True
    return source.bits <= target.bits if source.kind == target.kind else False


def _whole(b: Builder, value: Expression, target: DType, saturate: bool) -> Expression:
    """A float as an integer, cut towards zero."""
    limits = np.iinfo(target.numpy) if target.bits >= 8 else None
    if target.name == "u32":
        # A lane holds the upper half of the range as negative numbers.
        held = b.op("vmax", value, 0.0) if saturate else value
        upper = b.op("vtoint", b.op("vadd", held, -(2.0**32)), is_float=False)
        lower = b.op("vtoint", held, is_float=False)
        beyond = b.op("vsel", b.op("vle", 2.0**32, held, is_float=False), -1.0, upper, is_float=False)
        return b.op("vsel", b.op("vle", 2.0**31, held, is_float=False), beyond, lower, is_float=False)
    whole = b.op("vtoint", value, is_float=False)
    if saturate and target.bits < REGISTER_BITS:
        least = float(limits.min) if limits else -float(1 << target.bits - 1) if target.kind == "int" else 0.0
        most = float(limits.max) if limits else float((1 << target.bits - (target.kind == "int")) - 1)
        return _held(b, whole, least, most, is_float=False)
    if saturate and target.kind == "uint":
        return b.op("vmax", whole, 0.0, is_float=False)
    return whole if target.bits >= 8 else _low_bits(b, whole, target)


def _low_bits(b: Builder, value: Expression, target: DType) -> Expression:
    """The lowest bits of an integer: moved to the top, where the others fall off, and back as a float, exactly."""
    top = float(1 << REGISTER_BITS - target.bits)
    moved = b.op("vtofloat", b.op("vmul", value, top, is_float=False))
    signed = b.op("vtoint", b.op("vmul", moved, 1.0 / top), is_float=False)
    if target.kind == "int":
        return signed
    lowest = b.op("vmul", b.op("vlt", signed, 0.0, is_float=False), float(1 << target.bits), is_float=False)
    return b.op("vadd", signed, lowest, is_float=False)


def _small_float(b: Builder, value: Expression, name: str, saturate: bool) -> Expression:
    """A float rounded to one of the types that memory does not round to, to nearest, ties to even.

    The step between its neighbours is a power of two that follows from the exponent; in units of it the value is
    rounded to a whole number. Both scalings are exact.
    """
    fraction_bits, least_exponent, largest = SMALL_FLOATS[name]
    is_held = saturate or name in WITHOUT_NAN
    x = _held(b, value, -largest, largest) if is_held else value
    first = b.op("vmax", _leading_power(b, b.op("vabs", x)), 2.0**least_exponent)
    step = b.op("vmul", first, 2.0**-fraction_bits)
    near = b.op("vmul", b.op("vround", b.op("vmul", x, b.op("vrcp", step))), step)
    if not is_held:
        near = b.op("vsel", b.op("vle", b.op("vabs", near), largest, is_float=False), near, math.nan)
    if name in WITHOUT_NAN:
        near = b.op("vsel", b.op("veq", value, value, is_float=False), near, -0.0)
    return b.op("vadd", near, 0.0) if name in WITHOUT_NEGATIVE_ZERO else near


def _power_of_two(b: Builder, value: Expression, saturate: bool, round_mode: str) -> Expression:
    """The power of two at, above, below or next to the magnitude of a float."""
    size = b.op("vabs", value)
    if saturate:
        size = _held(b, size, LEAST_POWER, LARGEST_POWER)
    # At half its size the power above the largest float is still one.
    half = b.op("vmul", _leading_power(b, size), 0.5)
    result = b.op("vadd", half, half)
    if round_mode != "down":
        limit = result if round_mode == "up" else b.op("vmul", result, 1.5)
        order = (limit, size) if round_mode == "nearest" else (result, size)
        goes_up = b.op("vle" if round_mode == "nearest" else "vlt", *order, is_float=False)
        result = b.op("vsel", goes_up, b.op("vadd", result, result), result)
    if saturate:
        return b.op("vmin", result, LARGEST_POWER)
    inside = b.op("vand", b.op("vle", LEAST_POWER, result, is_float=False),
                  b.op("vle", result, LARGEST_POWER, is_float=False), is_float=False)  # fmt: skip
    return b.op("vsel", inside, result, math.nan)


def _leading_power(b: Builder, size: Expression) -> Expression:
    """The power of two that is the leading bit of a positive float; NaN for what is not finite.

    With q = (2^23 + 1) x, the rounded q - (1 - 2^-24) q is that power, unless q overflows: so x is scaled down first
    where it is large. Source: Rump, Ogita and Oishi, Accurate floating-point summation part I, algorithm 3.5.
    """
    is_large = b.op("vlt", 2.0**96, size, is_float=False)
    scaled = b.op("vsel", is_large, b.op("vmul", size, 2.0**-32), size)
    multiple = b.op("vmul", scaled, 2.0**23 + 1.0)
    power = b.op("vsub", multiple, b.op("vmul", multiple, 1.0 - 2.0**-24))
    return b.op("vsel", is_large, b.op("vmul", power, 2.0**32), power)
