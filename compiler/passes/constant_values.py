"""Computing with constants: splats stay one stored element, and nothing grows beyond a bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from birc.compiler.ir.attributes import Attributes
from birc.compiler.ir.graph import Constant
from birc.compiler.ir.table import row
from birc.compiler.ir.types import TensorType

MOST_BYTES: Final = 64 * 2**20
MOST_GROWTH: Final = 16
ALWAYS_BYTES: Final = 64 * 2**10  # so little that growth does not matter

# Ops that only choose and place elements of their first input, so that a splat stays one.
_CHOOSING: Final = ("reshape", "transpose", "slice", "expand", "gather", "gather_nd")


def evaluate(op: str, inputs: Sequence[Constant], attributes: Attributes, result: TensorType) -> Constant | None:
    """The only output of an op on constants, of type `result`; None when it would take too much memory."""
    entry = row(op)
    if op in _CHOOSING and _is_uniform(inputs[0]) and result.num_elements:
        return Constant.splat(inputs[0].data.flat[0], result)
    if entry.category == "elementwise" and result.num_elements > 1 and all(map(_is_uniform, inputs)):
        scalars = tuple(constant.data.reshape(-1)[:1].reshape(()) for constant in map(_narrowed, inputs))
        return Constant.splat(entry.evaluate(scalars, attributes)[0], result)
    if not _is_bounded(result, inputs):
        return None
    try:
        (data,) = entry.evaluate(tuple(constant.data for constant in inputs), attributes)
    except (IndexError, ValueError, ZeroDivisionError):
        return None  # fails on these very values: left for the run, which says where
    return Constant(result.logical, np.asarray(data))


def _is_uniform(constant: Constant) -> bool:
    return constant.is_splat or constant.data.size == 1


def _narrowed(constant: Constant) -> Constant:
    """One element of a uniform constant, as a constant of its own."""
    return Constant.of(np.asarray(constant.data.flat[0]))


def _is_bounded(result: TensorType, inputs: Sequence[Constant]) -> bool:
    stored = sum(
        constant.type.dtype.bytes_for(1) if constant.is_splat else constant.type.num_bytes for constant in inputs
    )
    if result.num_bytes <= ALWAYS_BYTES:
        return True
    return result.num_bytes <= MOST_BYTES and result.num_bytes <= MOST_GROWTH * stored


def scaled_channels(weights: Constant, factors: np.ndarray) -> Constant:
    """`weights` with the slice of each output channel (dimension 0) times its factor, rounded once."""
    dtype = weights.type.dtype.numpy
    if weights.is_splat and (factors == factors[0]).all():
        return Constant.splat(np.asarray(weights.data.flat[0], np.float64) * factors[0], weights.type)
    per_channel = factors.reshape((-1,) + (1,) * (weights.data.ndim - 1))
    return Constant(weights.type, (weights.data.astype(np.float64) * per_channel).astype(dtype))


def uniform_or_dense(values: np.ndarray) -> Constant:
    """A constant of these values, as a splat when they are all the same."""
    dense = Constant.of(values)
    if values.size > 1 and (values == values.flat[0]).all():
        return Constant.splat(values.flat[0], dense.type)
    return dense
