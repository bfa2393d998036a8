"""Integers of 64 bits as pairs of words: sums, products, orders, shifts and conversions on the vector cores.

Both words are INT32 lanes that hold 32 bits each; the upper one has the sign of a signed number.

What an instruction takes is computed in the order of its operands. High words come first: they need the low ones of
the step before, of which otherwise all had to wait in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from birc.compiler.ir.attributes import AttributeValue, number
from birc.compiler.passes.lower.expression import Builder, Expression
from birc.compiler.passes.lower.integers import (
    TOP_BIT,
    TWO_TO_32,
    Value,
    below,
    float_to_word,
    integer,
    register,
    rounded_word,
    select,
    truth,
    turned,
)
from birc.runtime.dtypes import DType, dtype

WORD_BITS = 32
TWO_TO_63 = 2.0**63
SIGN_PLACES = 31.0


@dataclass(frozen=True, slots=True)
class Wide:
    """A 64-bit integer: its low and its high word."""

    low: Value
    high: Value

    @property
    def words(self) -> tuple[Value, Value]:
        """The low and the high word."""
        return self.low, self.high


WideMacro = Callable[[Builder, tuple[Wide, ...], Mapping[str, AttributeValue], DType], "Wide | Expression"]


def lane(word: int) -> int:
    """The lowest 32 bits of a number as INT32 takes them."""
    word &= (1 << WORD_BITS) - 1
    return word - (1 << WORD_BITS) if word >> WORD_BITS - 1 else word


def known(value: int) -> Wide:
    """A 64-bit number as two immediates. FP32 may not hold them: an instruction takes them through `operand`."""
    return Wide(float(lane(value)), float(lane(value >> WORD_BITS)))


def extended(b: Builder, x: Value, is_word: bool = False) -> Wide:
    """A lane as a 64-bit integer: with its sign, or as an unsigned word."""
    if is_word:
        return Wide(x, 0.0)
    if isinstance(x, float):
        return Wide(x, -1.0 if x < 0 else 0.0)
    return Wide(x, integer(b, "vsra", x, SIGN_PLACES))


def operand(b: Builder, x: Value) -> Value:
    """A word as an operand: an immediate where FP32 holds it, else a register."""
    return x if isinstance(x, Expression) or float(np.float32(x)) == x else register(b, x)


def word(b: Builder, mnemonic: str, *arguments: Value) -> Expression:
    """A vector operation on words."""
    return integer(b, mnemonic, *(operand(b, argument) for argument in arguments))


def add(b: Builder, x: Wide, y: Wide) -> Wide:
    """x + y: the low words carry when their sum is less than one of them."""
    low = word(b, "vadd", x.low, y.low)
    carry = below(b, low, x.low)
    return Wide(low, word(b, "vadd", word(b, "vadd", x.high, y.high), carry))


def subtract(b: Builder, x: Wide, y: Wide) -> Wide:
    """x - y"""
    borrow = below(b, x.low, y.low)
    high = word(b, "vsub", word(b, "vsub", x.high, y.high), borrow)
    return Wide(word(b, "vsub", x.low, y.low), high)


def multiply(b: Builder, x: Wide, y: Wide) -> Wide:
    """The low 64 bits of x y: of the upper words only their products with lower ones count."""
    crossed = word(b, "vadd", word(b, "vmul", x.high, y.low), word(b, "vmul", x.low, y.high))
    upper = word(b, "vmulh", x.low, y.low)
    return Wide(word(b, "vmul", x.low, y.low), word(b, "vadd", crossed, upper))


def choose(b: Builder, condition: Value, x: Wide, y: Wide) -> Wide:
    """x where the condition holds, else y."""
    low, high = (select(b, condition, operand(b, p), operand(b, q)) for p, q in zip(x.words, y.words, strict=True))
    return Wide(low, high)


def negate(b: Builder, x: Wide) -> Wide:
    """-x"""
    return subtract(b, known(0), x)


def is_negative(b: Builder, x: Wide) -> Expression:
    """1 where a signed number is less than 0, else 0."""
    return word(b, "vlt", x.high, 0.0)


def magnitude(b: Builder, x: Wide, type: DType) -> Wide:
    """|x|; that of the least number is right as an unsigned one."""
    return x if type.kind == "uint" else choose(b, is_negative(b, x), negate(b, x), x)


def less(b: Builder, x: Wide, y: Wide, type: DType) -> Expression:
    """1 where x < y, else 0: the high words decide, or the low ones where those are equal."""
    upper = below(b, x.high, y.high) if type.kind == "uint" else word(b, "vlt", x.high, y.high)
    return select(b, word(b, "veq", x.high, y.high), below(b, x.low, y.low), upper)


def equal(b: Builder, x: Wide, y: Wide) -> Expression:
    """1 where x = y, else 0."""
    return word(b, "vand", word(b, "veq", x.low, y.low), word(b, "veq", x.high, y.high))


def not_zero(b: Builder, x: Wide) -> Expression:
    """1 where x is not 0, else 0."""
    return truth(b, word(b, "vbor", *x.words))


def summed(b: Builder, x: Wide, count: int, reduce: Callable[[Expression], Expression]) -> Wide | None:
    """The sum of `count` numbers by a reduction that adds lanes; None for more than 2^30.

    It adds pieces of so few bits that no sum of them leaves a lane, and puts the sums together.
    """
    bits = next((bits for bits in (16, 11, 8, 4, 1) if count << bits <= 1 << WORD_BITS - 1), None)
    if bits is None:
        return None
    total = known(0)
    for position, half in enumerate(x.words):
        for place in range(0, WORD_BITS, bits):
            moved = integer(b, "vshr", register(b, half), float(place))
            piece = reduce(integer(b, "vband", moved, float((1 << bits) - 1)))
            total = add(b, total, shift_left(b, Wide(piece, 0.0), known(position * WORD_BITS + place)))
    return total


def extreme(b: Builder, x: Wide, type: DType, mnemonic: str, reduce: Callable[[Expression], Expression]) -> Wide:
    """The largest or smallest number by a reduction of lanes: of the high words, then of the low ones beside those."""
    high = register(b, x.high)
    high = turned(b, high) if type.kind == "uint" else high
    chosen = reduce(high)
    low = turned(b, x.low)
    neutral = TOP_BIT if mnemonic == "vredmax" else integer(b, "vbxor", register(b, TOP_BIT), -1.0)
    beside = select(b, integer(b, "veq", high, chosen), low, neutral)
    return Wide(turned(b, reduce(beside)), turned(b, chosen) if type.kind == "uint" else chosen)


def to_float(b: Builder, x: Wide, type: DType) -> Expression:
    """The nearest FP32, ties to even.

    The magnitude is moved up until its leading bit is among the highest four; what then lies in the low word only
    decides ties, so that one bit stands for it.
    """
    size = magnitude(b, x, type)
    low, high = (register(b, w) for w in size.words)
    scale: Value = TWO_TO_32
    for places in (32, 16, 8, 4):
        is_short = integer(b, "vnot", integer(b, "vshr", high, float(WORD_BITS - places)))
        moved_high = integer(b, "vbor", integer(b, "vshl", high, float(places)),
                             integer(b, "vshr", low, float(WORD_BITS - places)))  # fmt: skip
        high = select(b, is_short, moved_high, high)
        low = select(b, is_short, integer(b, "vshl", low, float(places)), low)
        scale = b.op("vmul", scale, b.op("vsel", is_short, 2.0**-places, 1.0))
    value = b.op("vmul", rounded_word(b, integer(b, "vbor", high, truth(b, low))), scale)
    return value if type.kind == "uint" else b.op("vsel", is_negative(b, x), b.op("vneg", value), value)


def _magnitude_to_float(b: Builder, x: Wide) -> Expression:
    """An unsigned number as FP32, within three roundings."""
    low, high = (_word_to_float(b, register(b, w)) for w in x.words)
    return b.op("vfma", high, TWO_TO_32, low)


def _word_to_float(b: Builder, x: Expression) -> Expression:
    signed = b.op("vtofloat", x)
    return b.op("vsel", integer(b, "vlt", x, 0.0), b.op("vadd", signed, TWO_TO_32), signed)


def _magnitude_of_float(b: Builder, x: Expression) -> Wide:
    """FP32 from 0 to below 2^64, cut to a whole number."""
    whole = b.op("vfloor", x)
    upper = b.op("vfloor", b.op("vmul", whole, 2.0**-WORD_BITS))
    return Wide(float_to_word(b, b.op("vfnma", upper, TWO_TO_32, whole)), float_to_word(b, upper))


def from_float(b: Builder, x: Expression, type: DType) -> Wide:
    """FP32 cut toward zero; beyond the type's range the nearest limit; NaN gives 0."""
    size = _magnitude_of_float(b, b.op("vmin", b.op("vabs", x), 2.0**64 - 2.0**40))
    negative = integer(b, "vlt", x, 0.0)
    is_number = integer(b, "veq", x, x)
    if type.kind == "uint":
        largest = choose(b, integer(b, "vle", 2.0**64, x), known(-1), size)
        return choose(b, integer(b, "vand", is_number, integer(b, "vnot", negative)), largest, known(0))
    signed = choose(b, negative, negate(b, size), size)
    signed = choose(b, integer(b, "vle", TWO_TO_63, x), known((1 << 63) - 1), signed)
    signed = choose(b, integer(b, "vle", x, -TWO_TO_63), known(-(1 << 63)), signed)
    return choose(b, is_number, signed, known(0))


def divided(b: Builder, x: Wide, y: Wide) -> tuple[Wide, Wide]:
    """Quotient and remainder of unsigned numbers; both are 0 where y is 0.

    As for words: each quotient is underestimated by a reciprocal that is at most 25 roundings of FP32 too small, so
    that 19 bits of it are right, and taken off. After four of them what is left is less than 2 y.
    """
    inverse = b.op("vmul", b.op("vrcp", _magnitude_to_float(b, y)), 1.0 - 2.0**-20)
    quotient, rest = known(0), x
    for step in range(4):
        part = _magnitude_of_float(b, b.op("vmul", _magnitude_to_float(b, rest), inverse))
        quotient = part if step == 0 else add(b, quotient, part)
        rest = subtract(b, rest, multiply(b, part, y))
    over = integer(b, "vnot", less(b, rest, y, dtype("u64")))
    quotient = add(b, quotient, Wide(over, 0.0))
    rest = choose(b, over, subtract(b, rest, y), rest)
    defined = not_zero(b, y)
    return choose(b, defined, quotient, known(0)), choose(b, defined, rest, known(0))


def divide(b: Builder, x: Wide, y: Wide, type: DType) -> Wide:
    """x / y toward zero."""
    quotient, _ = divided(b, magnitude(b, x, type), magnitude(b, y, type))
    if type.kind == "uint":
        return quotient
    differ = integer(b, "vxor", is_negative(b, x), is_negative(b, y))
    return choose(b, differ, negate(b, quotient), quotient)


def modulo(b: Builder, x: Wide, y: Wide, type: DType) -> Wide:
    """What is left of x when it is divided by y, with the sign of y."""
    _, rest = divided(b, magnitude(b, x, type), magnitude(b, y, type))
    if type.kind == "uint":
        return rest
    of_x = choose(b, is_negative(b, x), negate(b, rest), rest)
    differ = integer(b, "vxor", is_negative(b, x), is_negative(b, y))
    return choose(b, integer(b, "vand", not_zero(b, rest), differ), add(b, of_x, y), of_x)


def power(b: Builder, x: Wide, y: Wide, type: DType) -> Wide:
    """x to the power y, in its low bits; negative powers of other numbers than 1 and -1 are 0."""
    exponent = magnitude(b, y, type)
    # From the 64th on the powers of even numbers are 0 in 64 bits; those of 1 and -1 depend on the last bit.
    odd = word(b, "vband", exponent.low, 1.0)
    is_small = integer(b, "vnot", word(b, "vbor", word(b, "vshr", exponent.low, 6.0), exponent.high))
    places = select(b, is_small, register(b, exponent.low), integer(b, "vadd", odd, 64.0))
    result, square = known(1), x
    for place in range(7):
        bit = integer(b, "vband", integer(b, "vshr", places, float(place)), 1.0)
        factor = choose(b, bit, square, known(1))
        result = factor if place == 0 else multiply(b, result, factor)
        square = multiply(b, square, square)
    if type.kind == "uint":
        return result
    is_unit = equal(b, magnitude(b, x, type), known(1))
    return choose(b, is_negative(b, y), choose(b, is_unit, result, known(0)), result)


def _places(b: Builder, y: Wide) -> tuple[Expression, Expression]:
    """By how many bits a shift moves, and whether that is less than 64."""
    beyond = word(b, "vbor", word(b, "vshr", y.low, 6.0), y.high)
    return register(b, y.low), integer(b, "vnot", beyond)


def shift_left(b: Builder, x: Wide, y: Wide) -> Wide:
    """The words moved up; instructions move by less than 32 bits, by all else nothing is left."""
    places, inside = _places(b, y)
    from_low = word(b, "vbor", word(b, "vshr", x.low, integer(b, "vsub", float(WORD_BITS), places)),
                    word(b, "vshl", x.low, integer(b, "vsub", places, float(WORD_BITS))))  # fmt: skip
    high = integer(b, "vbor", word(b, "vshl", x.high, places), from_low)
    return choose(b, inside, Wide(word(b, "vshl", x.low, places), high), known(0))


def shift_right(b: Builder, x: Wide, y: Wide, type: DType) -> Wide:
    """The words moved down; the sign of a signed number follows."""
    places, inside = _places(b, y)
    beyond_a_word = integer(b, "vsub", places, float(WORD_BITS))
    low = word(b, "vbor", word(b, "vshr", x.low, places),
               word(b, "vshl", x.high, integer(b, "vsub", float(WORD_BITS), places)))  # fmt: skip
    if type.kind == "uint":
        low = integer(b, "vbor", low, word(b, "vshr", x.high, beyond_a_word))
        return choose(b, inside, Wide(low, word(b, "vshr", x.high, places)), known(0))
    sign = word(b, "vsra", x.high, SIGN_PLACES)
    is_short = integer(b, "vlt", places, float(WORD_BITS))
    low = select(b, is_short, low, word(b, "vsra", x.high, beyond_a_word))
    return choose(b, inside, Wide(low, word(b, "vsra", x.high, places)), Wide(sign, sign))


def _sign(b: Builder, x: Wide, type: DType) -> Wide:
    size = not_zero(b, x)
    if type.kind == "uint":
        return Wide(size, 0.0)
    return extended(b, select(b, is_negative(b, x), -1.0, size))


def _clip(b: Builder, x: Wide, attributes: Mapping[str, AttributeValue], type: DType) -> Wide:
    limits = np.iinfo(type.numpy)
    low, high = number(attributes, "minimum"), number(attributes, "maximum")
    if low > limits.min:
        least = known(int(min(low, float(limits.max))) if low < float(limits.max) else int(limits.max))
        x = choose(b, less(b, x, least, type), least, x)
    if high < float(limits.max):
        most = known(int(high) if high > limits.min else int(limits.min))
        x = choose(b, less(b, most, x, type), most, x)
    return x


def _by_words(mnemonic: str) -> WideMacro:
    return lambda b, v, _, type: Wide(word(b, mnemonic, v[0].low, v[1].low), word(b, mnemonic, v[0].high, v[1].high))


def _one(function: Callable[[Builder, Wide], Wide]) -> WideMacro:
    return lambda b, v, _, type: function(b, v[0])


def _one_of_type(function: Callable[[Builder, Wide, DType], Wide]) -> WideMacro:
    return lambda b, v, _, type: function(b, v[0], type)


def _two(function: Callable[[Builder, Wide, Wide], Wide | Expression]) -> WideMacro:
    return lambda b, v, _, type: function(b, v[0], v[1])


def _two_of_type(function: Callable[[Builder, Wide, Wide, DType], Wide | Expression]) -> WideMacro:
    return lambda b, v, _, type: function(b, v[0], v[1], type)


WIDE_MACROS: dict[str, WideMacro] = {
    "add": _two(add),
    "sub": _two(subtract),
    "mul": _two(multiply),
    "div": _two_of_type(divide),
    "mod": _two_of_type(modulo),
    "pow": _two_of_type(power),
    "maximum": lambda b, v, _, type: choose(b, less(b, v[0], v[1], type), v[1], v[0]),
    "minimum": lambda b, v, _, type: choose(b, less(b, v[0], v[1], type), v[0], v[1]),
    "less": _two_of_type(less),
    "less_equal": lambda b, v, _, type: integer(b, "vnot", less(b, v[1], v[0], type)),
    "greater": lambda b, v, _, type: less(b, v[1], v[0], type),
    "greater_equal": lambda b, v, _, type: integer(b, "vnot", less(b, v[0], v[1], type)),
    "equal": _two(equal),
    "neg": _one(negate),
    "abs": _one_of_type(magnitude),
    "relu": lambda b, v, _, type: v[0] if type.kind == "uint" else choose(b, is_negative(b, v[0]), known(0), v[0]),
    "sign": _one_of_type(_sign),
    "clip": lambda b, v, a, type: _clip(b, v[0], a, type),
    "bitwise_and": _by_words("vband"),
    "bitwise_or": _by_words("vbor"),
    "bitwise_xor": _by_words("vbxor"),
    "bitwise_not": lambda b, v, _, type: Wide(word(b, "vbxor", v[0].low, -1.0), word(b, "vbxor", v[0].high, -1.0)),
    "shift_left": _two(shift_left),
    "shift_right": _two_of_type(shift_right),
}
"""Element-wise ops on 64-bit integers, by the name of the op."""
