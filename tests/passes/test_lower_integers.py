"""Integer ops as vector instructions, against Python's own integers: every width, the ends of the range, immediates."""

from __future__ import annotations

import numpy as np
import pytest
from integer_reference import BINARY, REFERENCE, TRUTH, UNARY, interesting, power, quotient, wrapped
from macro_values import evaluate

from birc.compiler.passes.lower.expression import Builder, Expression
from birc.compiler.passes.lower.integers import INTEGER_MACROS, mean, rounded_word
from birc.runtime.dtypes import DType, dtype

TYPES = ("i8", "u8", "i16", "u16", "i32", "u32")


def lanes(values: np.ndarray) -> np.ndarray:
    """Integers as a load leaves them in a register."""
    return values.view(np.int32) if values.dtype.itemsize == 4 else values.astype(np.int32)


def computed(op: str, type: DType, *operands: np.ndarray | int, **attributes: float) -> np.ndarray:
    """What is stored after the instructions of an op."""
    loaded = {
        Expression("vld", index_axis=i, is_float=False): lanes(a)
        for i, a in enumerate(operands)
        if isinstance(a, np.ndarray)
    }
    registers = iter(loaded)
    values = tuple(next(registers) if isinstance(a, np.ndarray) else float(a) for a in operands)
    value = INTEGER_MACROS[op](Builder(), values, attributes, type)
    if isinstance(value, float):
        return np.full_like(lanes(operands[0]), value) if isinstance(operands[0], np.ndarray) else np.int32(value)
    result = evaluate(value, loaded)
    assert result.dtype == np.int32
    return result


def check(op: str, type: DType, result: np.ndarray, expected: list[int]) -> None:
    if op in TRUTH:
        np.testing.assert_array_equal(result, expected)
    else:
        np.testing.assert_array_equal(result.astype(type.numpy), wrapped(expected, type))


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("op", BINARY)
def test_two_operands(op: str, name: str) -> None:
    type = dtype(name)
    values = interesting(type)
    a, b = (np.ascontiguousarray(grid).reshape(-1) for grid in np.meshgrid(values, values))
    expected = [int(REFERENCE[op](x, y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    check(op, type, computed(op, type, a, b), expected)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("op", UNARY)
def test_one_operand(op: str, name: str) -> None:
    type = dtype(name)
    values = interesting(type)
    check(op, type, computed(op, type, values), [int(REFERENCE[op](x)) for x in values.tolist()])


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("op", ["div", "mod"])
@pytest.mark.parametrize("number", [1, 2, 3, 7, 10, 100, 127])
def test_division_by_an_immediate(op: str, name: str, number: int) -> None:
    type = dtype(name)
    values = interesting(type)
    check(op, type, computed(op, type, values, number), [REFERENCE[op](x, number) for x in values.tolist()])


@pytest.mark.parametrize("name", ["i8", "i32", "u32"])
def test_powers(name: str) -> None:
    type = dtype(name)
    bases = np.array([v for v in (-5, -2, -1, 0, 1, 2, 3, 10) if type.kind == "int" or v >= 0], type.numpy)
    exponents = [v for v in (-3, -2, -1, 0, 1, 2, 5, 13, 31, 32, 33, 100) if type.kind == "int" or v >= 0]
    for exponent in exponents:
        # Powers of larger odd numbers that leave the type have no defined value.
        kept = np.array([v for v in bases.tolist() if v % 2 == 0 or abs(v) == 1 or exponent < 32], type.numpy)
        expected = [power(x, exponent) for x in kept.tolist()]
        check("pow", type, computed("pow", type, kept, np.full_like(kept, exponent)), expected)
        check("pow", type, computed("pow", type, kept, exponent), expected)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("op", ["shift_left", "shift_right"])
def test_shifts(op: str, name: str) -> None:
    type = dtype(name)
    values = interesting(type)
    for places in (0, 1, 3, type.bits - 1, type.bits, 40, 127, *((-1, -40) if type.kind == "int" else ())):
        inside = 0 <= places < type.bits
        if op == "shift_left":
            expected = [x << places if inside else 0 for x in values.tolist()]
        else:
            expected = [x >> (places if inside else type.bits) for x in values.tolist()]
        check(op, type, computed(op, type, values, np.full_like(values, places)), expected)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize(
    "limits", [(-3.0, 5.0), (0.0, float("inf")), (float("-inf"), 3e9), (7.9, 2.0), (100.0, 2.0**31)]
)
def test_clip(name: str, limits: tuple[float, float]) -> None:
    type = dtype(name)
    values, ends = interesting(type), np.iinfo(type.numpy)
    low, high = (int(min(max(limit, float(ends.min)), float(ends.max))) for limit in limits)
    expected = [min(max(x, low), high) for x in values.tolist()]
    check("clip", type, computed("clip", type, values, minimum=limits[0], maximum=limits[1]), expected)


def test_means_are_cut_toward_zero() -> None:
    totals = interesting(dtype("i32"))
    for count in (1, 3, 1000, 1 << 24, 99999999):
        x = Expression("vld", is_float=False)
        result = evaluate(mean(Builder(), x, count, dtype("i32")), {x: totals})
        np.testing.assert_array_equal(result, [quotient(v, count) for v in totals.tolist()])


def test_words_become_the_nearest_float() -> None:
    words = np.concatenate(
        [interesting(dtype("u32")), np.array([0xFFFFFF7F, 0xFFFFFF80, 0x80000080, 0x80000180], np.uint32)]
    )
    x = Expression("vld", is_float=False)
    result = evaluate(rounded_word(Builder(), x), {x: words.view(np.int32)})
    np.testing.assert_array_equal(result, words.astype(np.float64).astype(np.float32))
