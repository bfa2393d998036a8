"""Every arithmetic instruction against Python's own arithmetic, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from birc.runtime.alu import ELEMENTWISE, ON_BITS, REDUCTIONS, elementwise, reduction
from birc.runtime.faults import MachineFault
from birc.runtime.isa import VECTOR

FLOATS = [-2.5, -1.5, -1.0, -0.25, 0.0, 0.5, 1.0, 1.5, 2.5, 7.0]
INTS = [-7, -2, -1, 0, 1, 2, 5]
NAN = float("nan")

WORD = 1 << 32


def signed(word: int) -> int:
    """A word of 32 bits as the number that INT32 takes it for."""
    word %= WORD
    return word - WORD if word >> 31 else word


def moved_down(a: float, b: float) -> int:
    return signed((int(a) % WORD) >> int(b)) if 0 <= b < 32 else 0


def nearest(fraction_bits: int, least_exponent: int, largest: float, beyond: float) -> Callable[[float], float]:
    """Rounding to a float type, as its specification says."""

    def rounded(a: float) -> float:
        if math.isnan(a) or math.isinf(a):
            return math.copysign(beyond, a) if math.isinf(a) else NAN
        exponent = max(math.frexp(a)[1] - 1, least_exponent)
        unit = math.ldexp(1.0, exponent - fraction_bits)
        value = round(a / unit) * unit
        return math.copysign(value if abs(value) <= largest else beyond, a)

    return rounded


# Fraction bits, least exponent, largest value, what follows: IEEE 754-2008; BF16 as FP32 cut; OFP8 1.0, table 1.
ROUNDINGS = {
    "vtobf16": nearest(7, -126, 3.3895313892515355e38, math.inf),
    "vtof16": nearest(10, -14, 65504.0, math.inf),
    "vtof8e4m3": nearest(3, -6, 448.0, NAN),
    "vtof8e5m2": nearest(2, -14, 57344.0, math.inf),
}

REFERENCE: dict[str, Callable[..., float]] = {
    "vmov": lambda a: a,
    "vneg": lambda a: -a,
    "vabs": abs,
    "vfloor": math.floor,
    "vceil": math.ceil,
    "vround": round,
    "vsign": lambda a: (a > 0) - (a < 0),
    "vnot": lambda a: a == 0,
    "vtofloat": float,
    "vtoint": int,
    **ROUNDINGS,
    "vadd": lambda a, b: a + b,
    "vsub": lambda a, b: a - b,
    "vmul": lambda a, b: a * b,
    "vmax": max,
    "vmin": min,
    "veq": lambda a, b: a == b,
    "vlt": lambda a, b: a < b,
    "vle": lambda a, b: a <= b,
    "vand": lambda a, b: bool(a) and bool(b),
    "vor": lambda a, b: bool(a) or bool(b),
    "vxor": lambda a, b: bool(a) != bool(b),
    "vband": lambda a, b: int(a) & int(b),
    "vbor": lambda a, b: int(a) | int(b),
    "vbxor": lambda a, b: int(a) ^ int(b),
    "vshl": lambda a, b: signed(int(a) << int(b)) if 0 <= b < 32 else 0,
    "vshr": moved_down,
    "vsra": lambda a, b: int(a) >> (int(b) if 0 <= b < 32 else 31),
    "vmulh": lambda a, b: signed((int(a) % WORD) * (int(b) % WORD) >> 32),
    "vfma": lambda a, b, c: a * b + c,
    "vfnma": lambda a, b, c: c - a * b,
    "vsel": lambda condition, a, b: a if condition else b,
    "vexp2": lambda a: 2.0**a,
    "vlog2": lambda a: math.log2(a) if a > 0 else (-math.inf if a == 0 else NAN),
    "vrcp": lambda a: 1 / a if a else math.inf,
    "vrsqrt": lambda a: 1 / math.sqrt(a) if a > 0 else (math.inf if a == 0 else NAN),
    "vtanh": math.tanh,
    "vsin": math.sin,
    "vcos": math.cos,
    "vfoldsum": lambda a, b: a + b,
    "vfoldmax": max,
    "vfoldmin": min,
    "vfoldprod": lambda a, b: a * b,
}
SPECIAL = {"vexp2", "vlog2", "vrcp", "vrsqrt", "vtanh", "vsin", "vcos"}
TRUTH = {"vnot", "veq", "vlt", "vle", "vand", "vor", "vxor"}


def arity(mnemonic: str) -> int:
    return REFERENCE[mnemonic].__code__.co_argcount if hasattr(REFERENCE[mnemonic], "__code__") else (
        2 if mnemonic in {"vmax", "vmin", "vfoldmax", "vfoldmin"} else 1
    )  # fmt: skip


def grids(values: list[float], count: int, dtype: type) -> list[np.ndarray]:
    return [np.array(grid, dtype) for grid in np.meshgrid(*[values] * count, indexing="ij")]


def test_every_arithmetic_instruction_has_a_meaning_and_a_reference() -> None:
    computing = {row.mnemonic for row in VECTOR if row.pipe in ("alu", "sfu")} - {"vmovi"}
    assert set(ELEMENTWISE) == computing == set(REFERENCE)
    assert set(REDUCTIONS) == {row.mnemonic for row in VECTOR if row.pipe == "cross"}


@pytest.mark.parametrize(
    ("mnemonic", "dtype"),
    [
        (name, kind)
        for name in sorted(REFERENCE)
        for kind in (np.float32, np.int32)
        if name not in ON_BITS or kind is np.int32
    ],
)
def test_agrees_with_python(mnemonic: str, dtype: type) -> None:
    values = FLOATS if dtype is np.float32 else INTS
    operands = grids(values, arity(mnemonic), dtype)
    result = elementwise(mnemonic, operands)
    expected = np.vectorize(REFERENCE[mnemonic], otypes=[float])(*(grid.astype(float) for grid in operands))
    tolerance = 4e-7 if mnemonic in SPECIAL else 0
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)
    integer = mnemonic in TRUTH or mnemonic == "vtoint" or (
        dtype is np.int32 and mnemonic not in SPECIAL | ROUNDINGS.keys() | {"vtofloat"}
    )  # fmt: skip
    assert result.dtype == (np.int32 if integer else np.float32)
    out = np.empty_like(result)
    assert elementwise(mnemonic, operands, out=out) is out
    np.testing.assert_array_equal(out, result)


def test_immediates_take_the_type_of_the_registers() -> None:
    ints = np.array([1, 2], np.int32)
    assert elementwise("vadd", (ints, 3.0)).dtype == np.int32
    assert elementwise("vadd", (ints, 0.5)).dtype == np.float32
    assert elementwise("vadd", (ints, 2.0**31)).dtype == np.float32
    assert elementwise("vadd", (ints.astype(np.float32), 3.0)).dtype == np.float32
    np.testing.assert_array_equal(elementwise("vadd", (ints, np.float32([0.5, 0.25]))), [1.5, 2.25])


@pytest.mark.parametrize("mnemonic", sorted(ON_BITS))
def test_words_of_every_kind(mnemonic: str) -> None:
    words = np.array([0, 1, -1, 2**31 - 1, -(2**31), 0x12345678, 31, 32, 33, -31, 65536], np.int32)
    a, b = np.meshgrid(words, words, indexing="ij")
    expected = [[REFERENCE[mnemonic](int(x), int(y)) for y in words] for x in words]
    np.testing.assert_array_equal(elementwise(mnemonic, (a, b)), expected)
    np.testing.assert_array_equal(elementwise(mnemonic, (words, 5.0)), [REFERENCE[mnemonic](int(x), 5) for x in words])
    with pytest.raises(MachineFault, match="INT32"):
        elementwise(mnemonic, (words.astype(np.float32), words))


def test_what_a_multiple_leaves_over_is_exact() -> None:
    rng = np.random.default_rng(7)
    divisor = rng.uniform(1, 2, 1000).astype(np.float32)
    times = rng.integers(1, 1 << 20, 1000).astype(np.float32)
    x = (divisor.astype(np.float64) * times).astype(np.float32)
    rest = elementwise("vfnma", (times, divisor, x))
    np.testing.assert_array_equal(rest, x.astype(np.float64) - divisor.astype(np.float64) * times)


def test_a_condition_does_not_change_the_type_of_what_it_selects() -> None:
    condition = np.float32([0.0, NAN, 1.0])
    ints = np.array([1, 2, 3], np.int32)
    chosen = elementwise("vsel", (condition, ints, -1.0))
    assert chosen.dtype == np.int32
    np.testing.assert_array_equal(chosen, [-1, 2, 3])
    assert elementwise("vsel", (ints, 1.0, 0.0)).dtype == np.float32


def test_integers_wrap_and_conversion_saturates() -> None:
    top = np.array([2**31 - 1], np.int32)
    assert elementwise("vadd", (top, 1.0))[0] == -(2**31)
    assert elementwise("vfma", (top, 2.0, 3.0))[0] == 1
    floats = np.float32([1e20, -1e20, NAN, 2.0**31, -2.9, 2.9, np.inf])
    expected = [2**31 - 1, -(2**31), 0, 2**31 - 1, -2, 2, 2**31 - 1]
    np.testing.assert_array_equal(elementwise("vtoint", (floats,)), expected)


@pytest.mark.parametrize("mnemonic", ["vmax", "vmin", "vfoldmax", "vfoldmin"])
def test_nan_is_kept(mnemonic: str) -> None:
    assert np.isnan(elementwise(mnemonic, (np.float32([NAN, 1]), np.float32([1, NAN])))).all()


def test_a_multiply_add_keeps_the_product_exact() -> None:
    a = np.float32(1 + 2**-12)
    residue = elementwise("vfma", (np.array([a]), np.array([a]), np.array([-np.float32(a * a)])))
    assert residue[0] == float(a) * float(a) - float(np.float32(a * a)) != 0


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_reductions_keep_the_axes(dtype: type) -> None:
    lanes = np.arange(-5, 19, dtype=dtype).reshape(2, 3, 4)
    reference = {"vredsum": np.sum, "vredmax": np.max, "vredmin": np.min, "vredprod": np.prod}
    for mnemonic, function in reference.items():
        result = reduction(mnemonic, lanes, 0b101)
        wide = function(lanes.astype(np.float64), axis=(0, 2))
        assert result.shape == (1, 3, 1)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result[0, :, 0], wide)


@pytest.mark.parametrize("mnemonic", ROUNDINGS)
def test_roundings_are_to_nearest_with_ties_to_even(mnemonic: str) -> None:
    random = np.random.default_rng(0)
    patterns = random.integers(0, 1 << 32, 20_000, dtype=np.uint32)
    ties = patterns & np.uint32(0xFFF00000) | np.uint32(0x00080000)  # half a unit of E4M3, and of others a value
    finer = patterns & np.uint32(0xFFFFF000) | np.uint32(0x00001000)  # of FP16
    floats = np.concatenate([patterns, ties, finer]).view(np.float32)
    near = np.float32([448, 464, 464.1, 480, 61439, 61440, 65519, 65520, 3.39e38, 3.4e38, math.inf, -math.inf, -0.0])
    plain = np.ldexp(random.uniform(-2, 2, 20_000), random.integers(-26, 20, 20_000)).astype(np.float32)
    floats = np.concatenate([floats, near, plain])
    expected = np.array([ROUNDINGS[mnemonic](float(value)) for value in floats])
    with np.errstate(invalid="ignore"):  # numpy warns of signalling NaNs
        actual = elementwise(mnemonic, (floats,)).astype(np.float64)
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(np.signbit(actual)[expected == 0], np.signbit(expected)[expected == 0])
