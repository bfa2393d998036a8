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
    """`x` itself, or in float32 when it is a float of 16 bits or less: narrow types are stored, not computed
    in.
    """
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
_ERF_END: Final = 6  # erf(6) is 1 to the last bit of a double


@lru_cache(maxsize=1)
def _erf_on_grid() -> tuple[np.ndarray, np.ndarray]:
    """erf and its first derivative on the grid 0, 1/128, ..., 6."""
    grid = np.arange(_ERF_END * _ERF_STEPS + 1) / _ERF_STEPS
    values = np.array([math.erf(x) for x in grid])
    return values, 2 / math.sqrt(math.pi) * np.exp(-grid * grid)


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, to about 1e-16, in the type of `x`.

    Taylor expansion around the nearest of 769 grid points: with d the derivative there and h <= 1/256 the
    distance, erf(c + h) = erf(c) + d (h - c h^2 + (2c^2 - 1) h^3 / 3 - (2c^3 - 3c) h^4 / 6 + (4c^4 - 12c^2 +
    3) h^5 / 30 - (4c^5 - 20c^3 + 15c) h^6 / 90), the polynomials being Hermite's (Abramowitz and Stegun,
    7.1.19).
    """
    values, slopes = _erf_on_grid()
    size = np.minimum(np.abs(x).astype(np.float64), _ERF_END)
    known = np.where(np.isnan(size), 0.0, size)
    place = np.rint(known * _ERF_STEPS).astype(np.intp)
    c = place / _ERF_STEPS
    h = known - c
    c2 = c * c
    tail = (4 * c2 * c2 - 12 * c2 + 3) / 30 - h * c * (4 * c2 * c2 - 20 * c2 + 15) / 90
    series = 1 + h * (-c + h * ((2 * c2 - 1) / 3 + h * (-c * (2 * c2 - 3) / 6 + h * tail)))
    result = np.copysign(values[place] + slopes[place] * h * series, x)
    return np.where(np.isnan(x), np.nan, result).astype(x.dtype)


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
