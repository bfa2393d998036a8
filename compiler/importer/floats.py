"""What lowerings that compute with floats share: the precision of the device, NaN, divisors that are not 0."""

from __future__ import annotations

from typing import Final

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.onnx_node import CannotLower
from birc.runtime.dtypes import DType, dtype

F32: Final = dtype("f32")
"""The floats of the vector registers."""


def require_single(build: GraphBuilder, *values: str) -> None:
    """Raise `CannotLower` where one of the values is FP64, whose precision no instruction has."""
    if any(build.type_of(value).dtype.name == "f64" for value in values):
        raise CannotLower("its arithmetic is in f64, which the device has not")


def in_f32(build: GraphBuilder, x: str) -> str:
    """Numbers of any kind in FP32. Raises `CannotLower` for FP64."""
    require_single(build, x)
    return cast(build, x, F32)


def wide_type(kind: DType) -> DType:
    """FP32 for a narrower float, so that a computation of several steps rounds once; other types as they are."""
    return F32 if kind.is_float and kind.bits < F32.bits else kind


def widened(build: GraphBuilder, x: str) -> str:
    """`x` in its `wide_type`."""
    return cast(build, x, wide_type(build.type_of(x).dtype))


def is_number(build: GraphBuilder, x: str) -> str:
    """Where `x` is not NaN: only a NaN differs from itself."""
    return build.emit("equal", (x, x))


def is_nan(build: GraphBuilder, x: str) -> str:
    """Where `x` is NaN."""
    return build.emit("not", (is_number(build, x),))


def divisor(build: GraphBuilder, x: str) -> str:
    """`x` with 1 for 0: what is divided by a norm of 0 stays as it is."""
    is_zero = build.emit("equal", (x, build.scalar(0, x)))
    return build.emit("where", (is_zero, build.scalar(1, x), x))
