"""Element types and roundings, against ml_dtypes and against arithmetic in 64-bit floats."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birc.runtime.dtypes import (
    DTYPES,
    HOST_DTYPES,
    dtype,
    from_bf16_bits,
    from_numpy,
    round_bf16,
    round_tf32p,
    to_bf16_bits,
)
from birc.runtime.errors import InternalError, UsageError

TF32P_MANTISSA_BITS = 15
SMALLEST_NORMAL_EXPONENT = -126
LARGEST_F32 = np.finfo(np.float32).max


def bits_to_f32(bits) -> np.ndarray:
    return np.asarray(bits, np.uint32).view(np.float32)


def many_floats() -> np.ndarray:
    """Every exponent with mantissas around each rounding boundary, both signs, and random patterns."""
    near_ties = [
        0,
        1,
        0x7F,
        0x80,
        0x81,
        0xFF,
        0x100,
        0x180,
        0x7FFF,
        0x8000,
        0x8001,
        0x18000,
        0x7FFFFF,
        0x7FFF80,
    ]
    exponents = np.arange(256, dtype=np.uint32) << 23
    patterns = (exponents[:, None] | np.array(near_ties, np.uint32)).ravel()
    random = np.random.default_rng(0).integers(0, 1 << 32, 200_000, dtype=np.uint32)
    return bits_to_f32(np.concatenate([patterns, patterns | 0x80000000, random]))


def rounded_in_f64(x: np.ndarray, mantissa_bits: int) -> np.ndarray:
    """Round finite 32-bit floats to `mantissa_bits`, by scaling in 64-bit floats; an independent meaning."""
    wide = x.astype(np.float64)
    _, exponent = np.frexp(wide)  # wide = fraction * 2**exponent with fraction in [0.5, 1)
    unit = np.ldexp(1.0, np.maximum(exponent - 1, SMALLEST_NORMAL_EXPONENT) - mantissa_bits)
    with np.errstate(over="ignore"):
        return (np.rint(wide / unit) * unit).astype(np.float32)


def test_names_and_numpy_types_are_unique():
    every = DTYPES + HOST_DTYPES
    assert len({entry.name for entry in every}) == len({entry.numpy for entry in every}) == len(every)


@pytest.mark.parametrize("entry", DTYPES + HOST_DTYPES, ids=str)
def test_every_type_is_found_by_name_and_by_numpy_type(entry):
    assert dtype(entry.name) is entry
    assert dtype(str(entry)) is entry
    assert from_numpy(entry.numpy) is entry
    assert np.zeros(3, entry.numpy).dtype == entry.numpy


@pytest.mark.parametrize("entry", DTYPES, ids=str)
def test_widths_fit_their_numpy_types(entry):
    packed = entry.bits < 8
    assert entry.numpy.itemsize * 8 == (8 if packed else entry.bits)
    assert entry.bytes_for(3) == -(-3 * entry.bits // 8)


def test_kinds():
    assert [entry.name for entry in DTYPES if entry.is_float] == [
        "f64",
        "f32",
        "f16",
        "bf16",
        "f8e4m3",
        "f8e5m2",
        "f8e4m3fnuz",
        "f8e5m2fnuz",
        "f8e8m0",
        "f6e2m3",
        "f6e3m2",
        "f4e2m1",
    ]
    assert not dtype("bool").is_integer
    assert dtype("i4").is_integer and dtype("u64").is_integer


@pytest.mark.parametrize("entry", [entry for entry in DTYPES if entry.device is not None], ids=str)
def test_the_device_holds_every_value_of_a_type_of_a_byte_or_less(entry):
    stored = dtype(entry.device)
    assert stored.is_addressable
    if entry.numpy.itemsize > 1 or entry.kind == "bool":
        return
    every = np.arange(1 << entry.bits).astype(np.uint8).view(entry.numpy)
    kept = every.astype(stored.numpy).astype(np.float64)
    np.testing.assert_array_equal(kept, every.astype(np.float64))
    np.testing.assert_array_equal(np.signbit(kept), np.signbit(every.astype(np.float64)))


@pytest.mark.parametrize("holder", [object, "U5", "S3", np.dtypes.StringDType()])
def test_text_of_every_kind_is_a_string_and_only_on_the_host(holder):
    assert from_numpy(holder).name == "string"
    assert from_numpy(holder).device is None


def test_byte_order_does_not_matter():
    assert from_numpy(">f4").name == "f32"


@pytest.mark.parametrize(("ask", "named"), [(lambda: dtype("f31"), "f31"), (lambda: from_numpy("M8[s]"), "datetime64")])
def test_unknown_types_are_refused_with_the_list(ask, named):
    with pytest.raises(UsageError, match=rf"{named}.*f32, f16, bf16"):
        ask()


def test_large_arrays_round_as_small_ones_do():
    """Large contiguous arrays are rounded in blocks."""
    x = many_floats()
    for rounding in (round_bf16, round_tf32p):
        pieces = np.concatenate([rounding(piece) for piece in np.array_split(x, 1000)])
        assert np.array_equal(rounding(x), pieces, equal_nan=True)
        assert np.array_equal(rounding(x[::-1]), pieces[::-1], equal_nan=True)


@pytest.mark.filterwarnings("error")
def test_nothing_warns():
    x = many_floats()
    round_bf16(x)
    round_tf32p(x)
    from_bf16_bits(to_bf16_bits(x))


def test_bf16_equals_ml_dtypes_bit_for_bit():
    x = many_floats()
    x = x[~np.isnan(x)]
    expected = x.astype(ml_dtypes.bfloat16)
    assert np.array_equal(to_bf16_bits(x), expected.view(np.uint16))
    assert np.array_equal(round_bf16(x).view(np.uint32), expected.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize(("rounding", "mantissa_bits"), [(round_bf16, 7), (round_tf32p, TF32P_MANTISSA_BITS)])
def test_roundings_equal_the_definition(rounding, mantissa_bits):
    x = many_floats()
    x = x[np.isfinite(x)]
    got, expected = rounding(x), rounded_in_f64(x, mantissa_bits)
    limit = np.float64(2 - 2.0**-mantissa_bits) * 2.0**127  # the largest finite value that the format holds
    overflows = np.abs(expected.astype(np.float64)) > limit
    assert np.array_equal(got[~overflows], expected[~overflows])
    assert np.isinf(got[overflows]).all()
    assert np.array_equal(np.signbit(got), np.signbit(x))


@pytest.mark.parametrize("rounding", [round_bf16, round_tf32p])
def test_infinities_and_nans_stay(rounding):
    x = many_floats()
    got = rounding(x)
    assert np.array_equal(np.isnan(got), np.isnan(x))
    assert np.array_equal(got[np.isinf(x)], x[np.isinf(x)])
    assert np.array_equal(np.signbit(got), np.signbit(x))
    assert np.isinf(rounding(np.array([LARGEST_F32]))).all()


def test_nans_stay_nans_in_bf16_bits():
    nans = bits_to_f32([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000])
    assert np.isnan(from_bf16_bits(to_bf16_bits(nans))).all()


def test_all_bf16_patterns_round_trip():
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = from_bf16_bits(bits)
    assert np.array_equal(values, bits.view(ml_dtypes.bfloat16).astype(np.float32), equal_nan=True)
    number = ~np.isnan(values)
    assert np.array_equal(to_bf16_bits(values)[number], bits[number])


@pytest.mark.parametrize("rounding", [round_bf16, round_tf32p])
def test_out_takes_the_result_also_in_place_and_strided(rounding):
    x = many_floats()
    expected = rounding(x)
    out = np.empty_like(x)
    assert rounding(x, out=out) is out
    assert np.array_equal(out, expected, equal_nan=True)
    strided = np.stack([x, x], axis=1)
    rounding(strided[:, 1], out=strided[:, 1])
    assert np.array_equal(strided[:, 1], expected, equal_nan=True)
    assert np.array_equal(strided[:, 0], x, equal_nan=True)
    assert rounding(x, out=x) is x
    assert np.array_equal(x, expected, equal_nan=True)


def test_bits_decode_into_out():
    bits = np.arange(100, dtype=np.uint16)
    out = np.empty(100, np.float32)
    assert from_bf16_bits(bits, out=out) is out
    assert np.array_equal(out, from_bf16_bits(bits))


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3)])
def test_shapes_are_kept(shape):
    x = np.full(shape, 1.01, np.float32)
    assert round_bf16(x).shape == round_tf32p(x).shape == to_bf16_bits(x).shape == shape
    assert from_bf16_bits(to_bf16_bits(x)).shape == shape


def test_only_32_bit_floats_are_rounded():
    with pytest.raises(InternalError, match="float64"):
        round_bf16(np.zeros(3))
    with pytest.raises(InternalError, match="float64"):
        round_tf32p(np.zeros(3, np.float32), out=np.zeros(3))


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1))
def test_rounding_twice_changes_nothing_and_keeps_the_order(numbers):
    x = np.sort(np.array(numbers, np.float32))
    for rounding in (round_bf16, round_tf32p):
        once = rounding(x)
        assert np.array_equal(rounding(once), once)
        assert (once[:-1] <= once[1:]).all()


@given(st.integers(-(2**16), 2**16))
def test_tf32p_is_exact_for_half_precision_and_small_integers(number):
    small = np.array([number], np.float32)
    assert round_tf32p(small) == small
    half = np.array([number & 0xFFFF], np.uint16).view(np.float16).astype(np.float32)
    assert np.array_equal(round_tf32p(half), half, equal_nan=True)
