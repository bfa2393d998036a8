"""Element-wise ops on integers of up to 32 bits: exact quotients, remainders and powers, orders without a sign.

A register lane holds the low 32 bits of an integer: narrower types widened with their sign, UINT32 as its bit
pattern. Sums, differences and products are right in their low bits whatever the sign; what depends on the sign is
computed on magnitudes, or with the uppermost bits turned over. Stores keep the low bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from birc.compiler.ir.attributes import AttributeValue, number
from birc.compiler.passes.lower.expression import Builder, Expression
from birc.runtime.dtypes import DType

Value = Expression | float
IntegerMacro = Callable[[Builder, tuple[Value, ...], Mapping[str, AttributeValue], DType], Value]

WORD_BITS = 32
TOP_BIT = -float(1 << 31)
TWO_TO_31 = float(1 << 31)
TWO_TO_32 = float(1 << 32)
FLOAT_BITS = 24
"""Bits of an FP32 significand: integers of so many bits convert exactly."""

# x * (1 / y) on FP32 is off by at most six roundings of 2^-24 each: two conversions of unsigned words (one and a
# half each), the reciprocal, its scaling, the product. Scaled by this the quotient is never too large.
UNDERESTIMATE = 1.0 - 2.0**-21


def integer(b: Builder, mnemonic: str, *arguments: Value) -> Expression:
    """A vector operation whose result is INT32; immediates alone would compute in FP32."""
    if all(isinstance(argument, float) for argument in arguments):
        arguments = (register(b, arguments[0]), *arguments[1:])
    return b.op(mnemonic, *arguments, is_float=False)


def is_word(type: DType) -> bool:
    """Whether lanes hold the type as a bit pattern whose uppermost bit is no sign."""
    return type.name == "u32"


def register(b: Builder, value: Value) -> Expression:
    """An integer in a register."""
    if isinstance(value, Expression):
        return value
    if float(np.float32(value)) == value:
        return integer(b, "vtoint", b.op("vmov", value))
    upper = register(b, float(int(value) >> 8))
    return integer(b, "vbor", integer(b, "vshl", upper, 8.0), float(int(value) & 255))


def immediate(b: Builder, value: int) -> Value:
    """A known integer as an operand: an immediate where FP32 holds it."""
    return float(value) if float(np.float32(value)) == value else register(b, float(value))


def truth(b: Builder, value: Value) -> Expression:
    """1 where an integer is not 0, else 0."""
    return integer(b, "vnot", integer(b, "vnot", value))


def select(b: Builder, condition: Value, x: Value, y: Value) -> Expression:
    """x where the condition holds, else y; two immediates would make a floating-point result."""
    if isinstance(x, float) and isinstance(y, float):
        x = register(b, x)
    return integer(b, "vsel", condition, x, y)


def negated_where(b: Builder, condition: Value, x: Expression) -> Expression:
    """-x where the condition holds, else x."""
    return select(b, condition, integer(b, "vneg", x), x)


def turned(b: Builder, x: Value) -> Expression:
    """A word with its uppermost bit turned over: unsigned words in their order become signed ones in theirs."""
    return integer(b, "vbxor", register(b, x), TOP_BIT)


def below(b: Builder, x: Value, y: Value) -> Expression:
    """1 where x < y, both unsigned words, else 0."""
    return integer(b, "vlt", turned(b, x), turned(b, y))


def word_to_float(b: Builder, x: Expression) -> Expression:
    """An unsigned word as FP32, within one and a half roundings."""
    signed = b.op("vtofloat", x)
    return b.op("vsel", integer(b, "vlt", x, 0.0), b.op("vadd", signed, TWO_TO_32), signed)


def float_to_word(b: Builder, x: Expression) -> Expression:
    """FP32 to an unsigned word, toward zero, saturating; NaN gives 0."""
    upper = integer(b, "vbxor", integer(b, "vtoint", b.op("vsub", x, TWO_TO_31)), TOP_BIT)
    low = integer(b, "vmax", integer(b, "vtoint", x), 0.0)
    return select(b, integer(b, "vle", TWO_TO_31, x), upper, low)


def lane_to_float(b: Builder, x: Expression, type: DType) -> Expression:
    """An integer of up to 32 bits as the nearest FP32; the accumulator holds sums of integers as one already."""
    (source,) = x.inputs if x.op == "vtoint" else (None,)
    if source is not None and source.op == "vacc":
        return source
    return rounded_word(b, x) if is_word(type) else b.op("vtofloat", x)


def rounded_word(b: Builder, x: Expression) -> Expression:
    """An unsigned word as the nearest FP32, ties to even.

    A word beyond 31 bits is halved first; the bit that falls off is kept in the last one, where it still decides ties.
    """
    half = integer(b, "vbor", integer(b, "vshr", x, 1.0), integer(b, "vband", x, 1.0))
    doubled = b.op("vmul", b.op("vtofloat", half), 2.0)
    return b.op("vsel", integer(b, "vlt", x, 0.0), doubled, b.op("vtofloat", x))


def _reciprocal(b: Builder, y: Value, to_float: Callable[[Builder, Expression], Expression]) -> Value:
    """Slightly less than 1 / y for a magnitude y."""
    if isinstance(y, float):
        size = y if y >= 0 else y + TWO_TO_32
        return float(np.float32(np.float32(1.0 / size) * np.float32(UNDERESTIMATE))) if y else 0.0
    return b.op("vmul", b.op("vrcp", to_float(b, y)), UNDERESTIMATE)


def _divided(b: Builder, x: Expression, y: Value, bits: int) -> tuple[Expression, Expression]:
    """Quotient and remainder of magnitudes of at most `bits` bits; both are 0 where y is 0.

    The reciprocal gives a quotient that is at most a 2^-20 and one too small. What is left over is divided once more
    where that is not enough; then it is less than 2 y, and one comparison decides.
    """
    if bits < FLOAT_BITS - 4:
        inverse = _reciprocal(b, y, lambda b, v: b.op("vtofloat", v))
        quotient = integer(b, "vtoint", b.op("vmul", b.op("vtofloat", x), inverse))
        rest = integer(b, "vfnma", quotient, y, x)
        over = integer(b, "vle", y, rest)
    else:
        inverse = _reciprocal(b, y, word_to_float)
        quotient = float_to_word(b, b.op("vmul", word_to_float(b, x), inverse))
        rest = integer(b, "vfnma", quotient, y, x)
        more = float_to_word(b, b.op("vmul", word_to_float(b, rest), inverse))
        quotient = integer(b, "vadd", quotient, more)
        rest = integer(b, "vfnma", more, y, rest)
        over = integer(b, "vnot", below(b, rest, y))
    quotient = integer(b, "vadd", quotient, over)
    rest = integer(b, "vfnma", over, y, rest)
    if isinstance(y, float) and y:
        return quotient, rest
    defined = truth(b, y)
    return integer(b, "vmul", quotient, defined), integer(b, "vmul", rest, defined)


def _magnitude(b: Builder, x: Value, type: DType) -> Value:
    """|x|; that of the least INT32 is right as an unsigned word."""
    if type.kind == "uint":
        return x
    return abs(x) if isinstance(x, float) else integer(b, "vabs", x)


def _sign(b: Builder, x: Value) -> Value:
    """1 for negative numbers, else 0."""
    return float(x < 0) if isinstance(x, float) else integer(b, "vlt", x, 0.0)


def divide(b: Builder, values: tuple[Value, ...], _: Mapping[str, AttributeValue], type: DType) -> Value:
    """x / y toward zero; 0 where y is 0."""
    x, y = register(b, values[0]), values[1]
    quotient, _rest = _divided(
        b, register(b, _magnitude(b, x, type)), _magnitude(b, y, type), min(type.bits, WORD_BITS)
    )
    if type.kind == "uint":
        return quotient
    return negated_where(b, integer(b, "vxor", _sign(b, x), _sign(b, y)), quotient)


def modulo(b: Builder, values: tuple[Value, ...], _: Mapping[str, AttributeValue], type: DType) -> Value:
    """What is left of x when it is divided by y, with the sign of y; 0 where y is 0."""
    x, y = register(b, values[0]), values[1]
    _quotient, rest = _divided(
        b, register(b, _magnitude(b, x, type)), _magnitude(b, y, type), min(type.bits, WORD_BITS)
    )
    if type.kind == "uint":
        return rest
    of_x = negated_where(b, _sign(b, x), rest)
    differ = integer(b, "vxor", _sign(b, x), _sign(b, y))
    return select(b, integer(b, "vand", rest, differ), integer(b, "vadd", of_x, y), of_x)


def mean(b: Builder, total: Expression, count: int, type: DType) -> Expression:
    """A sum divided toward zero by how many numbers it has."""
    quotient, _ = _divided(b, register(b, _magnitude(b, total, type)), immediate(b, count), WORD_BITS)
    return quotient if type.kind == "uint" else negated_where(b, _sign(b, total), quotient)


def power(b: Builder, values: tuple[Value, ...], _: Mapping[str, AttributeValue], type: DType) -> Value:
    """x to the power y, in its low bits; negative powers of other numbers than 1 and -1 are 0."""
    x, y = values
    if isinstance(y, float) and y >= 0:
        return whole_power(b, register(b, x), int(y))
    x, y = register(b, x), register(b, y)
    exponent = integer(b, "vabs", y) if type.kind == "int" else y
    # From the 32nd on the powers of even numbers are 0 in the low 32 bits; those of 1 and -1 depend on the last bit.
    odd = integer(b, "vband", exponent, 1.0)
    is_small = integer(b, "vnot", integer(b, "vshr", exponent, 5.0))
    exponent = select(b, is_small, exponent, integer(b, "vadd", odd, float(WORD_BITS)))
    result: Value = 1.0
    square = x
    for place in range(6):
        bit = integer(b, "vband", integer(b, "vshr", exponent, float(place)), 1.0)
        factor = select(b, bit, square, 1.0)
        result = factor if isinstance(result, float) else integer(b, "vmul", result, factor)
        square = integer(b, "vmul", square, square)
    if type.kind == "uint":
        return result
    is_unit = integer(b, "veq", integer(b, "vabs", x), 1.0)
    inverse = select(b, is_unit, result, 0.0)
    return select(b, integer(b, "vlt", y, 0.0), inverse, result)


def whole_power(b: Builder, x: Expression, exponent: int) -> Value:
    """x to a power that is not negative, by repeated squaring."""
    result: Value = 1.0
    square = x
    while exponent:
        if exponent & 1:
            result = square if isinstance(result, float) else integer(b, "vmul", result, square)
        exponent >>= 1
        if exponent:
            square = integer(b, "vmul", square, square)
    return result


def _extreme(mnemonic: str) -> IntegerMacro:
    def build(b: Builder, v: tuple[Value, ...], _: Mapping[str, AttributeValue], type: DType) -> Value:
        if not is_word(type):
            return integer(b, mnemonic, *v)
        return turned(b, integer(b, mnemonic, turned(b, v[0]), turned(b, v[1])))

    return build


def _order(mnemonic: str, swapped: bool) -> IntegerMacro:
    def build(b: Builder, v: tuple[Value, ...], _: Mapping[str, AttributeValue], type: DType) -> Value:
        x, y = (v[1], v[0]) if swapped else v
        if is_word(type):
            x, y = turned(b, x), turned(b, y)
        return integer(b, mnemonic, x, y)

    return build


def _direct(mnemonic: str, *more: float) -> IntegerMacro:
    return lambda b, v, _, type: integer(b, mnemonic, *v, *more)


def _unless_unsigned(mnemonic: str, *more: float) -> IntegerMacro:
    """An instruction that leaves numbers without a sign as they are."""
    return lambda b, v, _, type: v[0] if type.kind == "uint" else integer(b, mnemonic, v[0], *more)


def _sign_of(b: Builder, v: tuple[Value, ...], _: Mapping[str, AttributeValue], type: DType) -> Value:
    return truth(b, v[0]) if type.kind == "uint" else integer(b, "vsign", v[0])


def _shift_right(b: Builder, v: tuple[Value, ...], _: Mapping[str, AttributeValue], type: DType) -> Value:
    return integer(b, "vshr" if type.kind == "uint" else "vsra", register(b, v[0]), v[1])


def _clip(b: Builder, v: tuple[Value, ...], a: Mapping[str, AttributeValue], type: DType) -> Value:
    limits = np.iinfo(type.numpy)
    result = v[0]
    for mnemonic, name in (("vmax", "minimum"), ("vmin", "maximum")):
        limit = number(a, name)
        if limit <= limits.min if mnemonic == "vmax" else limit >= limits.max:
            continue
        whole = int(min(max(limit, limits.min), limits.max))
        lane = whole - (1 << WORD_BITS) if is_word(type) and whole >> 31 else whole
        result = _extreme(mnemonic)(b, (result, immediate(b, lane)), a, type)
    return result


INTEGER_MACROS: dict[str, IntegerMacro] = {
    "add": _direct("vadd"),
    "sub": _direct("vsub"),
    "mul": _direct("vmul"),
    "div": divide,
    "mod": modulo,
    "pow": power,
    "maximum": _extreme("vmax"),
    "minimum": _extreme("vmin"),
    "less": _order("vlt", swapped=False),
    "less_equal": _order("vle", swapped=False),
    "greater": _order("vlt", swapped=True),
    "greater_equal": _order("vle", swapped=True),
    "equal": _direct("veq"),
    "neg": _direct("vneg"),
    "abs": _unless_unsigned("vabs"),
    "relu": _unless_unsigned("vmax", 0.0),
    "sign": _sign_of,
    "clip": _clip,
    "bitwise_and": _direct("vband"),
    "bitwise_or": _direct("vbor"),
    "bitwise_xor": _direct("vbxor"),
    "bitwise_not": _direct("vbxor", -1.0),
    "shift_left": _direct("vshl"),
    "shift_right": _shift_right,
}
"""Element-wise ops on integers, by the name of the op."""
