"""Numerics that several families share: widening of narrow floats, the error function, windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np

from birc.compiler.ir.attributes import Attributes
from birc.compiler.ir.op import Arrays, Evaluate

_WIDE_FLOATS: Final = (np.dtype(np.float32), np.dtype(np.float64))


def widened(x: np.ndarray) -> np.ndarray:
    """`x`, in float32 when it is a narrower float: narrow types are stored, not computed in."""
    narrow = x.dtype not in _WIDE_FLOATS and not np.issubdtype(x.dtype, np.integer) and x.dtype != np.bool_
    return x.astype(np.float32) if narrow and is_floating(x.dtype) else x


def is_floating(holder: np.dtype) -> bool:
    """Whether the numpy type holds floats, those of ml_dtypes included."""
    return holder.kind == "f" or holder.name.startswith(("bfloat", "float"))


def narrowed(x: np.ndarray, holder: np.dtype) -> np.ndarray:
    """`x` in the type `holder`, rounded once."""
    return x if x.dtype == holder else x.astype(holder)


def elementwise(function: Callable[..., Any]) -> Evaluate:
    """The meaning of an op whose output has the elements of its first input, computed in float32 or wider."""

    def evaluate(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
        with np.errstate(all="ignore"):
            result = np.asarray(function(*(widened(x) for x in arrays)))
        return (narrowed(result, arrays[0].dtype),)

    return evaluate


def with_attributes(function: Callable[[np.ndarray, Attributes], np.ndarray]) -> Evaluate:
    """As `elementwise`, for a function of one input that also looks at the attributes."""

    def evaluate(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
        (x,) = arrays
        with np.errstate(all="ignore"):
            result = np.asarray(function(widened(x), attributes))
        return (narrowed(result, x.dtype),)

    return evaluate


_ERF_STEPS: Final = 128  # grid points per unit
_ERF_BLOCK: Final = 1 << 13  # elements at a time, so that what is in between stays in the cache
_ERF_END: Final = 6  # erf(6) is 1 to the last bit of a double
_ERF_TERMS: Final = {np.dtype(np.float32): 4, np.dtype(np.float64): 7}  # errors below 1e-10 and 1e-16


@lru_cache(maxsize=1)
def _erf_series() -> np.ndarray:
    """The Taylor coefficients of erf (7 x 769) around the grid points 0, 1/128, ..., 6.

    Around c they are erf(c), then those of d (h - c h^2 + (2c^2 - 1) h^3 / 3 - (2c^3 - 3c) h^4 / 6 + (4c^4 -
    12c^2 + 3) h^5 / 30 - (4c^5 - 20c^3 + 15c) h^6 / 90), d being the derivative at c; the polynomials are
    Hermite's (Abramowitz and Stegun, 7.1.19).
    """
    c = np.arange(_ERF_END * _ERF_STEPS + 1) / _ERF_STEPS
    squared = c * c
    slope = 2 / math.sqrt(math.pi) * np.exp(-squared)
    polynomials = (
        np.ones_like(c),
        -c,
        (2 * squared - 1) / 3,
        -c * (2 * squared - 3) / 6,
        (4 * squared * squared - 12 * squared + 3) / 30,
        -c * (4 * squared * squared - 20 * squared + 15) / 90,
    )
    return np.stack([[math.erf(x) for x in c], *(slope * polynomial for polynomial in polynomials)])


def erf(x: np.ndarray) -> np.ndarray:
    """The error function of floats, correct to the last bit or the one before, in the type of `x`."""
    flat = np.ascontiguousarray(x).reshape(-1)
    series = _erf_series()[: _ERF_TERMS[x.dtype]]
    result = np.empty_like(flat)
    for start in range(0, flat.size, _ERF_BLOCK):
        part = slice(start, start + _ERF_BLOCK)
        result[part] = _erf_block(flat[part].astype(np.float64), series)
    return result.reshape(x.shape)


def _erf_block(x: np.ndarray, series: np.ndarray) -> np.ndarray:
    """Horner's rule on the series around the nearest grid point; erf is odd."""
    size = np.fmin(np.abs(x), _ERF_END)
    place = (size * _ERF_STEPS + 0.5).astype(np.intp)
    distance = size - place * (1 / _ERF_STEPS)
    result = series[-1].take(place)
    for coefficients in series[-2::-1]:
        result *= distance
        result += coefficients.take(place)
    np.copysign(result, x, out=result)
    result[np.isnan(x)] = np.nan
    return result


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow on either side."""
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + decay), decay / (1 + decay)).astype(x.dtype)


def padded(x: np.ndarray, pads: Sequence[int], value: Any) -> np.ndarray:
    """NCHW `x` with `pads` (top, left, bottom, right) of `value` around each picture."""
    top, left, bottom, right = pads
    if not any(pads):
        return x
    batch, channels, height, width = x.shape
    result = np.full((batch, channels, height + top + bottom, width + left + right), value, x.dtype)
    result[:, :, top : top + height, left : left + width] = x
    return result


def window_size(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """The number of windows along a dimension of `size` with `pad` added in all; at most 0 when none fits."""
    return (size + pad - dilation * (kernel - 1) - 1) // stride + 1


def taps(
    x: np.ndarray, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], out: Sequence[int]
) -> Iterator[np.ndarray]:
    """For each kernel position in row-major order the view of padded `x` that all `out` windows see there."""
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            y, z = row * dilation[0], column * dilation[1]
            yield x[:, :, y : y + (out[0] - 1) * stride[0] + 1 : stride[0],
                    z : z + (out[1] - 1) * stride[1] + 1 : stride[1]]  # fmt: skip
