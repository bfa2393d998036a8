"""Casts: the same values in another element type, as ONNX's operator Cast describes them."""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.ir.attributes import Attribute, Attributes, AttributeValue, element_type, integer, text
from birc.compiler.ir.op import Arrays, OpRow, Sample, Types
from birc.compiler.ir.ops.costs import per_element
from birc.compiler.ir.ops.numeric import is_floating, narrowed
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import DType, dtype

_SATURATING: Final = {
    "f8e4m3": 448.0,
    "f8e5m2": 57344.0,
    "f8e4m3fnuz": 240.0,
    "f8e5m2fnuz": 57344.0,
    "f6e2m3": 7.5,
    "f6e3m2": 28.0,
    "f4e2m1": 6.0,
}
"""The largest finite values. Sources: OCP 8-bit floating point specification, table 1; OCP microscaling formats
specification, table 1; ONNX operator reference, float stored in 8 bits."""

_ALWAYS_SATURATING: Final = ("f6e2m3", "f6e3m2", "f4e2m1")
"""They have neither infinities nor NaNs; NaN becomes -0, as ml_dtypes has it."""

_LEAST_POWER: Final = float(np.ldexp(1.0, -127))
_LARGEST_POWER: Final = float(np.ldexp(1.0, 127))
"""The range of E8M0: OCP microscaling formats specification, table 1."""


def converted(x: np.ndarray, to: DType, saturate: bool, round_mode: str) -> np.ndarray:
    """`x` in another element type.

    Floats round to nearest, ties to even, once; to integers they truncate. Integers keep their low bits. What floats
    have beyond the range of the target becomes its nearest limit with `saturate`; without, integers of less than 32
    bits keep the low bits of 32, unsigned ones those of a negative number, and 8-bit floats become infinite, or NaN
    where there are no infinities. NaN becomes 0 in integers. `round_mode` says which power of two E8M0 takes, for the
    magnitude in float32.
    """
    source = _widened(x)
    with np.errstate(all="ignore"):
        if to.kind == "bool":
            return source != 0
        if not to.is_float:
            return _integers(source, to, saturate) if is_floating(source.dtype) else source.astype(to.numpy)
        if to.name == "f8e8m0":
            return _powers_of_two(source.astype(np.float32).astype(np.float64), saturate, round_mode).astype(to.numpy)
        return _floats(source, to, saturate)


def _widened(x: np.ndarray) -> np.ndarray:
    """`x` in a type of numpy's own that holds its values exactly."""
    if is_floating(x.dtype) and x.dtype != np.float64:
        return x.astype(np.float32)
    return x.astype(np.int32) if x.dtype.kind == "V" else x


def _integers(x: np.ndarray, to: DType, saturate: bool) -> np.ndarray:
    whole = np.trunc(x.astype(np.float64))
    held = _saturated(whole, to.bits, to.kind == "int")
    if saturate or (to.kind == "int" and to.bits >= 32):
        return held.astype(to.numpy)
    word = _saturated(whole, max(to.bits, 32), signed=True).astype(held.dtype)
    return np.where((whole < 0) | (to.bits < 32), word, held).astype(to.numpy)


def _saturated(x: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """`x` (whole numbers in float64) as 64-bit integers within a type's range; NaN becomes 0."""
    least = -(1 << (bits - 1)) if signed else 0
    most = (1 << (bits - 1 if signed else bits)) - 1
    holder = np.int64 if signed or bits < 64 else np.uint64
    inside = np.where((x > least) & (x < most), x, 0).astype(holder)
    return np.where(x <= least, holder(least), np.where(x >= most, holder(most), inside))


def _floats(x: np.ndarray, to: DType, saturate: bool) -> np.ndarray:
    wide = _rounded_to_odd(x) if x.dtype == np.float64 and to.bits < 32 else narrowed(x, _wide_type(to))
    limit = _SATURATING.get(to.name)
    if limit is not None and (saturate or to.name in _ALWAYS_SATURATING):
        wide = np.clip(wide, -limit, limit)
        if to.name in _ALWAYS_SATURATING:
            wide = np.where(np.isnan(wide), np.float32(-0.0), wide)
    return narrowed(wide, to.numpy)


def _wide_type(to: DType) -> np.dtype:
    return np.dtype(np.float64) if to.bits == 64 else np.dtype(np.float32)


def _rounded_to_odd(x: np.ndarray) -> np.ndarray:
    """float64 as float32, cut and made odd where it is inexact: rounding that again rounds `x` but once.

    Source: Boldo and Melquiond, Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd.
    """
    near = x.astype(np.float32)
    cut = np.where(np.abs(near.astype(np.float64)) > np.abs(x), np.nextafter(near, np.float32(0)), near)
    is_inexact = np.isfinite(x) & (cut.astype(np.float64) != x)
    return (cut.view(np.uint32) | is_inexact.astype(np.uint32)).view(np.float32)


def _powers_of_two(x: np.ndarray, saturate: bool, round_mode: str) -> np.ndarray:
    """The power of two at, above, below or next to each magnitude; NaN where E8M0 has none and for NaN."""
    size = np.abs(x)
    if saturate:
        size = np.clip(size, _LEAST_POWER, _LARGEST_POWER)
    fraction, exponent = np.frexp(size)  # size = fraction * 2**exponent with fraction in [0.5, 1)
    goes_up = {"up": fraction > 0.5, "down": np.zeros(size.shape, np.bool_), "nearest": fraction >= 0.75}[round_mode]
    power = np.ldexp(1.0, exponent - 1 + goes_up)
    is_held = np.isfinite(size) & (power >= _LEAST_POWER) & (power <= _LARGEST_POWER) & (size > 0)
    return np.where(is_held, power, np.nan)


def _cast_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    (x,) = types
    return (x.with_dtype(element_type(attributes, "to")),)


def _cast(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    (x,) = arrays
    return (converted(x, element_type(attributes, "to"), saturate=True, round_mode="up"),)


def _convert(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    (x,) = arrays
    saturate, round_mode = bool(integer(attributes, "saturate")), text(attributes, "round_mode")
    return (converted(x, element_type(attributes, "to"), saturate, round_mode),)


def _sample(source: str, target: str, low: float = -9.0, high: float = 9.0) -> Sample:
    return Sample((TensorType(dtype(source), (2, 3)),), {"to": dtype(target)}, low, high)


def _conversion(source: str, target: str, low: float, high: float, saturate: int, round_mode: str = "up") -> Sample:
    given: dict[str, AttributeValue] = {"to": dtype(target), "saturate": saturate, "round_mode": round_mode}
    return Sample((TensorType(dtype(source), (3, 7)),), given, low, high)


_TO: Final = Attribute("dtype", "element type of the result")

CAST: Final = OpRow(
    name="cast",
    doc="The same values in another element type; floats truncate to integers, NaN becomes 0, and they saturate in "
    "integers and in floats of 8 bits and less; integers keep their low bits.",
    inputs="x",
    category="elementwise",
    loops="i*",
    access={"x": "i*"},
    infer=_cast_rule,
    evaluate=_cast,
    cost=per_element(1),
    attributes={"to": _TO},
    samples=(
        _sample("f32", "bf16"),
        _sample("bf16", "f32"),
        _sample("f32", "i32"),
        _sample("f64", "f32"),
        _sample("i64", "f32"),
        _sample("i32", "bool"),
        _sample("bool", "f32"),
        _sample("f32", "f8e4m3", -900.0, 900.0),
        _sample("i32", "u2"),
        _sample("f32", "f4e2m1"),
        _sample("f16", "f8e8m0"),
    ),
)

CONVERT: Final = OpRow(
    name="convert",
    doc="As cast, with a choice for what floats have beyond the range of the target.",
    inputs="x",
    category="elementwise",
    loops="i*",
    access={"x": "i*"},
    infer=_cast_rule,
    evaluate=_convert,
    cost=per_element(2),
    attributes={
        "to": _TO,
        "saturate": Attribute(
            "int", "1: the nearest limit; 0: the low bits of an integer, the infinity or NaN of an 8-bit float", 1
        ),
        "round_mode": Attribute(
            "string", "which power of two f8e8m0 takes", "up", choices=("up", "down", "nearest")
        ),
    },
    samples=(
        _conversion("f32", "i4", -40.0, 40.0, 0),
        _conversion("f32", "i8", -900.0, 900.0, 0),
        _conversion("f32", "f8e5m2", -5e4, 5e4, 0),
        _conversion("f32", "f8e4m3fnuz", -230.0, 230.0, 0),
        _conversion("f32", "f8e5m2fnuz", -5e4, 5e4, 0),
        _conversion("f32", "f8e8m0", 1e-3, 9.0, 1, "nearest"),
        _conversion("f32", "f8e8m0", 0.5, 9.0, 0, "down"),
    ),
)  # fmt: skip

ROWS: Final[tuple[OpRow, ...]] = (CAST, CONVERT)
