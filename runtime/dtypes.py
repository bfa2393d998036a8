"""The element types and the device's roundings.

A type is named as it is printed in every text form of birc (`f32`, `bf16`, `i8`, ...). `DTYPES` are those of
numbers that a graph can have, `HOST_DTYPES` those that exist at the boundary and on the host alone. The roundings
are to nearest, ties to even, bit exact and vectorised; infinities and NaNs stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt

from birc.runtime.errors import InternalError, UsageError

Kind = Literal["float", "int", "uint", "bool", "string", "complex"]
F32Array = npt.NDArray[np.float32]
U16Array = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class DType:
    """One element type: `bits` is its width in an ONNX file, where elements narrower than a byte are packed (0 for
    strings, which have no fixed width); `numpy` the type that holds it on the host, one element a byte or more.

    `device` is the type as which its elements lie in device memory: the type itself where instructions load and store
    it, else one that holds every value of it exactly; None where there is none.
    """

    name: str
    bits: int
    kind: Kind
    numpy: np.dtype
    device: str | None

    def __str__(self) -> str:
        return self.name

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        """Whether it counts: signed or unsigned integers, not bool."""
        return self.kind in ("int", "uint")

    @property
    def is_addressable(self) -> bool:
        """Whether instructions load and store elements of this very type."""
        return self.device == self.name

    def bytes_for(self, elements: int) -> int:
        """The bytes that `elements` packed elements take in an ONNX file."""
        return (elements * self.bits + 7) // 8


def _native(name: str, bits: int, kind: Kind, holder: npt.DTypeLike) -> DType:
    """A type that device memory holds as it is."""
    return DType(name, bits, kind, np.dtype(holder), name)


DTYPES: Final[tuple[DType, ...]] = (
    DType("f64", 64, "float", np.dtype(np.float64), None),
    _native("f32", 32, "float", np.float32),
    _native("f16", 16, "float", np.float16),
    _native("bf16", 16, "float", ml_dtypes.bfloat16),
    _native("f8e4m3", 8, "float", ml_dtypes.float8_e4m3fn),
    _native("f8e5m2", 8, "float", ml_dtypes.float8_e5m2),
    _native("i64", 64, "int", np.int64),
    _native("i32", 32, "int", np.int32),
    _native("i16", 16, "int", np.int16),
    _native("i8", 8, "int", np.int8),
    DType("i4", 4, "int", np.dtype(ml_dtypes.int4), "i8"),
    _native("u64", 64, "uint", np.uint64),
    _native("u32", 32, "uint", np.uint32),
    _native("u16", 16, "uint", np.uint16),
    _native("u8", 8, "uint", np.uint8),
    DType("u4", 4, "uint", np.dtype(ml_dtypes.uint4), "u8"),
    _native("bool", 8, "bool", np.bool_),
    DType("i2", 2, "int", np.dtype(ml_dtypes.int2), "i8"),
    DType("u2", 2, "uint", np.dtype(ml_dtypes.uint2), "u8"),
    DType("f8e4m3fnuz", 8, "float", np.dtype(ml_dtypes.float8_e4m3fnuz), "bf16"),
    DType("f8e5m2fnuz", 8, "float", np.dtype(ml_dtypes.float8_e5m2fnuz), "bf16"),
    DType("f8e8m0", 8, "float", np.dtype(ml_dtypes.float8_e8m0fnu), "bf16"),
    DType("f6e2m3", 6, "float", np.dtype(ml_dtypes.float6_e2m3fn), "f8e4m3"),
    DType("f6e3m2", 6, "float", np.dtype(ml_dtypes.float6_e3m2fn), "f8e4m3"),
    DType("f4e2m1", 4, "float", np.dtype(ml_dtypes.float4_e2m1fn), "f8e4m3"),
)
"""Programs store a type as its place in this list: new ones come last."""

HOST_DTYPES: Final[tuple[DType, ...]] = (
    DType("string", 0, "string", np.dtype(np.object_), None),
    DType("complex64", 64, "complex", np.dtype(np.complex64), None),
    DType("complex128", 128, "complex", np.dtype(np.complex128), None),
)

_BY_NAME: Final = {entry.name: entry for entry in DTYPES + HOST_DTYPES}
_BY_NUMPY: Final = {entry.numpy: entry for entry in DTYPES + HOST_DTYPES}
_TEXT_KINDS: Final = "SUT"


def dtype(name: str) -> DType:
    """The element type called `name`. Raises `UsageError` for a name that is not in the table."""
    found = _BY_NAME.get(name)
    if found is None:
        raise UsageError(f"there is no element type {name!r}", hint=f"one of {', '.join(_BY_NAME)}")
    return found


def from_numpy(numpy_dtype: npt.DTypeLike) -> DType:
    """The element type that `numpy_dtype` holds, `string` for any of numpy's kinds of text.

    Raises `UsageError` when there is none such.
    """
    wanted = np.dtype(numpy_dtype)
    found = _BY_NAME["string"] if wanted.kind in _TEXT_KINDS else _BY_NUMPY.get(wanted.newbyteorder("="))
    if found is None:
        raise UsageError(f"numpy type {wanted} has no element type", hint=f"one of {', '.join(_BY_NAME)}")
    return found


# A 32-bit float keeps its upper bits: TF32+ is E8M15 (24 of 32), BF16 is E8M7 (16 of 32).
_TF32P_DROPPED_BITS: Final = np.uint32(8)
_TF32P_KEPT: Final = np.uint32(0xFFFFFF00)
_TF32P_HALF_UNIT_LESS_ONE: Final = np.uint32(0x7F)
_QUIET_NAN: Final = np.uint32(0x00400000)
_BF16_DROPPED_BITS: Final = np.uint32(16)

_BLOCK_ELEMENTS: Final = 1 << 16  # so that the steps of a rounding find their operands in the cache


def round_tf32p(x: F32Array, out: F32Array | None = None) -> F32Array:
    """`x` rounded to TF32+ (sign, 8 exponent bits, 15 mantissa bits), held in 32-bit floats.

    `out` (same shape; `x` itself, or memory apart from it) takes the result. The T-core rounds FP32 inputs
    so. Source: Tensor Library Reference, 24-bit math mode.
    """
    return _blockwise(_round_block_tf32p, x, out)


def round_bf16(x: F32Array, out: F32Array | None = None) -> F32Array:
    """`x` rounded to BF16 (sign, 8 exponent bits, 7 mantissa bits), held in 32-bit floats.

    `out` (same shape; `x` itself, or memory apart from it) takes the result.
    """
    return _blockwise(_round_block_bf16, x, out)


def to_bf16_bits(x: F32Array) -> U16Array:
    """The BF16 bit patterns of `x`, rounded to nearest, ties to even."""
    with np.errstate(invalid="ignore"):  # numpy warns of signalling NaNs
        return _checked(x).astype(ml_dtypes.bfloat16).view(np.uint16)


def from_bf16_bits(bits: U16Array, out: F32Array | None = None) -> F32Array:
    """The 32-bit floats whose upper halves are `bits`; exact. `out` takes the result."""
    result = np.empty(np.shape(bits), np.float32) if out is None else _checked(out)
    np.left_shift(bits, _BF16_DROPPED_BITS, out=result.view(np.uint32), dtype=np.uint32)
    return result


def _blockwise(round_block: Callable[[F32Array, F32Array], None], x: F32Array, out: F32Array | None) -> F32Array:
    """Apply `round_block(source, target)` to all of `x`, in blocks where the memory allows it."""
    x = _checked(x)
    result = np.empty(x.shape, np.float32) if out is None else _checked(out)
    if x.size <= _BLOCK_ELEMENTS or not (x.flags.c_contiguous and result.flags.c_contiguous):
        round_block(x, result)
        return result
    source, target = x.reshape(-1), result.reshape(-1)
    for start in range(0, x.size, _BLOCK_ELEMENTS):
        block = slice(start, start + _BLOCK_ELEMENTS)
        round_block(source[block], target[block])
    return result


def _round_block_bf16(source: F32Array, target: F32Array) -> None:
    from_bf16_bits(to_bf16_bits(source), out=target)


def _round_block_tf32p(source: F32Array, target: F32Array) -> None:
    """Round by integer arithmetic on the bit patterns.

    Adding half a unit less one, plus the lowest kept bit, carries into the kept bits exactly when the value
    has to go up; the carry runs into the exponent and, from the largest finite value, to infinity, as IEEE
    754 asks. NaNs would carry too, so they are put back, quiet and with what is left of their payload.
    """
    nan = np.isnan(source)
    quiet = (source[nan].view(np.uint32) & _TF32P_KEPT | _QUIET_NAN).view(np.float32) if nan.any() else None
    bits = source.view(np.uint32)
    increment = np.asarray(bits >> _TF32P_DROPPED_BITS)
    increment &= np.uint32(1)
    increment += _TF32P_HALF_UNIT_LESS_ONE
    increment += bits
    np.bitwise_and(increment, _TF32P_KEPT, out=target.view(np.uint32))
    if quiet is not None:
        target[nan] = quiet


def _checked(x: F32Array) -> F32Array:
    """Refuse anything but 32-bit floats: a silent conversion would round twice or write to a copy."""
    array = np.asarray(x)
    if array.dtype != np.float32:
        raise InternalError(f"rounding works on 32-bit floats, not on {array.dtype}")
    return array
