"""Numbers along a dimension, flags, and checks of indices: what lowerings that compute with positions share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.onnx_node import CannotLower
from birc.runtime.dtypes import DType, dtype

LARGEST_HELPER_ELEMENTS = 1 << 24
"""Elements that one ONNX node may make the device hold beside its operands and results."""


def counting(build: GraphBuilder, count: int, after: int = 0, element: DType | None = None) -> str:
    """0, 1, ... `count` - 1 along a dimension that `after` dimensions of size 1 follow; INT32 unless told."""
    if count > LARGEST_HELPER_ELEMENTS:
        raise CannotLower(f"it counts to {count}, the limit is {LARGEST_HELPER_ELEMENTS}")
    numbers = np.arange(count).astype((element or dtype("i32")).numpy)
    return build.constant(numbers.reshape(count, *(1,) * after))


def reduced(build: GraphBuilder, op: str, x: str, axis: int, *, keep: bool = False) -> str:
    """A reduction row over one axis, which goes unless it is to be kept."""
    return build.emit(op, (x,), {"axes": (axis,), "keepdims": int(keep)})


def around(shape: Sequence[int], axis: int) -> tuple[int, int, int]:
    """A shape as three dimensions: all before the axis, the axis, all after it."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def require_helpers(elements: int, what: str) -> None:
    """Raise `CannotLower` when a lowering would need more helper elements than is sensible."""
    if elements > LARGEST_HELPER_ELEMENTS:
        raise CannotLower(f"{what} takes {elements:,} elements, more than {LARGEST_HELPER_ELEMENTS:,}")


def from_end(build: GraphBuilder, indices: str, size: int) -> str:
    """Indices of which negative ones count from the end, as positions from the start."""
    negative = build.emit("less", (indices, build.scalar(0, indices)))
    return build.emit("where", (negative, build.emit("add", (indices, build.scalar(size, indices))), indices))


def is_within(build: GraphBuilder, indices: str, low: int, high: int) -> str:
    """A scalar bool: every index is at least `low` and less than `high`."""
    inside = build.emit(
        "and",
        (
            build.emit("greater_equal", (indices, build.scalar(low, indices))),
            build.emit("less", (indices, build.scalar(high, indices))),
        ),
    )
    return all_true(build, inside)


def all_true(build: GraphBuilder, flags: str) -> str:
    """A scalar bool: all of the flags, of any shape, are true."""
    return _over_all(build, "reduce_min", flags)


def any_true(build: GraphBuilder, flags: str) -> str:
    """A scalar bool: one of the flags, of any shape, is true."""
    return _over_all(build, "reduce_max", flags)


def _over_all(build: GraphBuilder, op: str, flags: str) -> str:
    rank = build.rank(flags)
    if rank == 0:
        return flags
    numbers = build.emit("cast", (flags,), {"to": dtype("i32")})
    found = build.emit(op, (numbers,), {"axes": tuple(range(rank)), "keepdims": 0})
    return build.emit("equal", (found, build.scalar(1, found)))
