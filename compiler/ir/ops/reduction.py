"""Reductions: sum, mean, extremes and product over some dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from birc.compiler.ir.access import Relations
from birc.compiler.ir.attributes import Attribute, Attributes, integer, integers
from birc.compiler.ir.errors import TypeRuleError
from birc.compiler.ir.op import Arrays, Cost, Evaluate, OpRow, Sample, Types
from birc.compiler.ir.ops.numeric import is_floating, narrowed, widened
from birc.compiler.ir.ops.rank_access import output_loops, reductions
from birc.compiler.ir.ops.type_rules import is_number, require, require_axis
from birc.compiler.ir.types import Dim, TensorType
from birc.runtime.dtypes import dtype


def _rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    (x,) = types
    require(is_number, "number", x)
    axes = integers(attributes, "axes")
    for axis in axes:
        require_axis(axis, x)
    if list(axes) != sorted(set(axes)):
        raise TypeRuleError(f"axes {list(axes)} are not in ascending order, each once")
    kept: list[Dim] = []
    for dim, size in enumerate(x.shape):
        if dim not in axes:
            kept.append(size)
        elif integer(attributes, "keepdims"):
            kept.append(1)
    return (x.with_shape(tuple(kept)),)


def _access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """x: all of the reduced dimensions; other dimensions as the output."""
    (x,) = types
    axes = integers(attributes, "axes")
    loops, names = output_loops(output)
    along = reductions([x.sizes[axis] for axis in axes])
    outer = iter(names)
    inner = iter(loop.name for loop in along)
    read = []
    for dim in range(x.rank):
        if dim in axes:
            read.append(next(inner))
            if integer(attributes, "keepdims"):
                next(outer)
        else:
            read.append(next(outer))
    return Relations((*loops, *along), (tuple(read),))


def _cost(inputs: Types, outputs: Types, attributes: Attributes) -> Cost:
    return Cost(vector_ops=inputs[0].num_elements)


def _evaluate(function: Callable[[np.ndarray, tuple[int, ...], bool], Any]) -> Evaluate:
    def evaluate(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
        (x,) = arrays
        axes, keepdims = integers(attributes, "axes"), bool(integer(attributes, "keepdims"))
        with np.errstate(all="ignore"):
            return (narrowed(np.asarray(function(widened(x), axes, keepdims)), x.dtype),)

    return evaluate


def _sum(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> np.ndarray:
    return np.sum(x, axes, dtype=x.dtype, keepdims=keepdims)


def _mean(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> np.ndarray:
    """Integers are summed in 64 bits and divided towards zero; there is no mean of no floats: NaN."""
    count = math.prod(x.shape[axis] for axis in axes)
    if is_floating(x.dtype):
        return np.mean(x, axes, keepdims=keepdims) if count else np.sum(x, axes, keepdims=keepdims) / x.dtype.type(0)
    total = np.sum(x, axes, dtype=np.int64, keepdims=keepdims)
    count = max(count, 1)
    return np.sign(total) * (np.abs(total) // count)


def _max(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> np.ndarray:
    least = -np.inf if is_floating(x.dtype) else np.iinfo(x.dtype).min
    return np.max(x, axes, keepdims=keepdims, initial=least)


def _min(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> np.ndarray:
    most = np.inf if is_floating(x.dtype) else np.iinfo(x.dtype).max
    return np.min(x, axes, keepdims=keepdims, initial=most)


def _prod(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> np.ndarray:
    return np.prod(x, axes, dtype=x.dtype, keepdims=keepdims)


_ATTRIBUTES: Final = {
    "axes": Attribute("ints", "dimensions to reduce, ascending", minimum=0),
    "keepdims": Attribute("int", "1: a reduced dimension stays with size 1, 0: it goes", minimum=0),
}


def _sample(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: int, elements: str = "f32") -> Sample:
    return Sample((TensorType(dtype(elements), shape),), {"axes": axes, "keepdims": keepdims})


_SAMPLES: Final = (
    _sample((3, 5), (1,), 1),
    _sample((2, 3, 4), (0, 2), 0),
    _sample((2, 3, 4), (0, 2), 1),
    _sample((2, 3, 4, 5), (2, 3), 1),
    _sample((2, 3), (0, 1), 0),
    _sample((2, 3, 4), (1,), 0, "i32"),
    _sample((2, 3, 4), (1,), 0, "bf16"),
)


def _row(name: str, doc: str, function: Callable[[np.ndarray, tuple[int, ...], bool], np.ndarray]) -> OpRow:
    return OpRow(
        name=name,
        doc=doc,
        inputs="x",
        category="reduction",
        loops="i* | k*",
        access=_access,
        infer=_rule,
        evaluate=_evaluate(function),
        cost=_cost,
        attributes=_ATTRIBUTES,
        samples=_SAMPLES,
    )


ROWS: Final[tuple[OpRow, ...]] = (
    _row("reduce_sum", "The sum over the axes.", _sum),
    _row("reduce_mean", "The mean over the axes; integers divide towards zero.", _mean),
    _row("reduce_max", "The largest element over the axes; NaN if one is.", _max),
    _row("reduce_min", "The smallest element over the axes; NaN if one is.", _min),
    _row("reduce_prod", "The product over the axes.", _prod),
)
