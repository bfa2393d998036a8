"""The statistics of normalisation: of whole rows, or of their parts, and what normalises rows by the latter."""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.ir.access import Relations
from birc.compiler.ir.attributes import Attribute, Attributes, integer, number
from birc.compiler.ir.errors import TypeRuleError
from birc.compiler.ir.op import Arrays, Cost, OpRow, Sample, Types, sample_types
from birc.compiler.ir.ops.costs import per_element
from birc.compiler.ir.ops.numeric import narrowed, widened
from birc.compiler.ir.ops.rank_access import output_loops, reductions
from birc.compiler.ir.ops.type_rules import is_float, require, require_axis, require_sizes, same_dtype
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import DType, dtype

_F32: Final = dtype("f32")


def _wide(x: TensorType) -> DType:
    """The element type of sums: narrow elements are added up in single precision."""
    return x.dtype if x.dtype.bits > _F32.bits else _F32


def _moments_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    (x,) = types
    require(is_float, "float", x)
    parts = integer(attributes, "parts")
    if x.rank < 1 or x.sizes[-1] % parts:
        raise TypeRuleError(f"the rows of {x} have no {parts} parts of one width")
    return (TensorType(_wide(x), (1 + integer(attributes, "centred"), *x.shape[:-1], parts)),)


def _moments(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x = widened(arrays[0])
    parts = integer(attributes, "parts")
    in_parts = x.reshape(*x.shape[:-1], parts, -1)
    with np.errstate(all="ignore"):
        if not integer(attributes, "centred"):
            return (np.square(in_parts).sum(-1)[None],)
        squares = np.square(in_parts - in_parts.mean(-1, keepdims=True)).sum(-1)
        return (np.stack([in_parts.sum(-1), squares]),)


def _moments_access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """x: one part of a row."""
    loops, names = output_loops(output)
    width = types[0].sizes[-1] // output.sizes[-1]
    return Relations((*loops, *reductions((width,))), ((*names[1:-1], f"{width} * {names[-1]} + k0"),))


def _moments_cost(inputs: Types, outputs: Types, attributes: Attributes) -> Cost:
    return Cost(vector_ops=inputs[0].num_elements * (2 + 2 * integer(attributes, "centred")))


def _statistics_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    (x,) = types
    require(is_float, "float", x)
    require_axis(0, x)
    return (TensorType(_wide(x), (1 + integer(attributes, "centred"), *x.shape[:-1], 1)),)


def _statistics(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    (moments,) = _moments(arrays, {**attributes, "parts": 1})
    return (_factors(moments, {**attributes, "count": arrays[0].shape[-1]}),)


def _statistics_access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """x: all of a row."""
    loops, names = output_loops(output)
    return Relations((*loops, *reductions(types[0].sizes[-1:])), ((*names[1:-1], "k0"),))


def _scaled_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    x, moments, *columns = types
    require(is_float, "float", x, moments)
    if moments.rank != x.rank + 1 or moments.shape[0] != 1 + bool(columns) or moments.shape[1:-1] != x.shape[:-1]:
        what = "its sum and the squares about its mean" if columns else "the squares"
        raise TypeRuleError(f"{moments} are no moments of the rows of {x}: of each part {what}")
    if integer(attributes, "count") % moments.sizes[-1]:
        raise TypeRuleError(f"{moments}: the parts of {integer(attributes, 'count')} elements are not of one width")
    same_dtype(x, *columns)
    for type in columns:
        require_sizes(type, "what is added to columns", x.shape[-1:])
    return (x.logical,)


def _scaled(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x, columns = widened(arrays[0]), [widened(array) for array in arrays[2:]]
    factors = _factors(widened(arrays[1]), attributes)
    with np.errstate(all="ignore"):
        result = x * factors[0]
        if columns:
            result = result + sum((factors[1] * columns[0], *columns[1:]))
    return (narrowed(result, arrays[0].dtype),)


def _scaled_access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """x: the element; moments: all of its row; columns, bias: those of its column."""
    loops, names = output_loops(output)
    which, parts = reductions((types[1].sizes[0], types[1].sizes[-1]))
    of_columns = (tuple(names[-1:]) for _ in types[2:])
    return Relations((*loops, which, parts), (tuple(names), (which.name, *names[:-1], parts.name), *of_columns))


def _factors(moments: np.ndarray, attributes: Attributes) -> np.ndarray:
    """The inverse deviation of each row, and minus the mean times that."""
    count = integer(attributes, "count")
    width, squares = count // moments.shape[-1], moments[-1].sum(-1, keepdims=True)
    epsilon = moments.dtype.type(number(attributes, "epsilon"))
    with np.errstate(all="ignore"):
        if len(moments) == 1:
            return np.asarray((1 / np.sqrt(squares / count + epsilon))[None])
        mean = moments[0].sum(-1, keepdims=True) / count
        squares = squares + width * np.square(moments[0] / width - mean).sum(-1, keepdims=True)
        factor = 1 / np.sqrt(squares / count + epsilon)
        return np.stack([factor, -mean * factor])


ROWS: Final[tuple[OpRow, ...]] = (
    OpRow(
        name="row_moments",
        doc="Of each of so many parts of a row the sum, and the squares about its mean; if not centred, about 0 alone.",
        inputs="x",
        category="normalization",
        loops="c i* p | k",
        access=_moments_access,
        infer=_moments_rule,
        evaluate=_moments,
        cost=_moments_cost,
        attributes={
            "parts": Attribute("int", "parts of a row, of one width", minimum=1),
            "centred": Attribute("int", "1: sums, and squares about means, 0: squares alone", minimum=0),
        },
        in_f32=True,
        samples=(
            Sample(sample_types((3, 8)), {"parts": 4, "centred": 1}),
            Sample(sample_types((2, 3, 128)), {"parts": 2, "centred": 0}),
            Sample(sample_types((4, 6), elements="bf16"), {"parts": 1, "centred": 1}),
        ),
    ),
    OpRow(
        name="row_statistics",
        doc="Of each row the inverse deviation, and minus the mean times that; if not centred, of the squares alone.",
        inputs="x",
        category="normalization",
        loops="c i* | k",
        access=_statistics_access,
        infer=_statistics_rule,
        evaluate=_statistics,
        cost=per_element(6, 1),
        attributes={
            "centred": Attribute("int", "1: of deviations from the mean, 0: from zero", minimum=0),
            "epsilon": Attribute("float", "added to the variance"),
        },
        in_f32=True,
        samples=(
            Sample(sample_types((3, 8)), {"centred": 1, "epsilon": 1e-5}),
            Sample(sample_types((2, 3, 128)), {"centred": 0, "epsilon": 1e-5}),
            Sample(sample_types((70, 192)), {"centred": 1, "epsilon": 1e-5}),
        ),
    ),
    OpRow(
        name="scale_by_moments",
        doc="x times the inverse deviation a of its row, by moments, less the mean times a and columns, plus bias.",
        inputs="x moments columns? bias?",
        category="normalization",
        loops="i* | k p",
        access=_scaled_access,
        infer=_scaled_rule,
        evaluate=_scaled,
        cost=per_element(4),
        attributes={
            "count": Attribute("int", "elements of a row", minimum=1),
            "epsilon": Attribute("float", "added to the variance"),
        },
        samples=(
            Sample(sample_types((3, 8), (2, 3, 4), (8,), (8,)), {"count": 16, "epsilon": 1e-5}, 0.1, 2.0),
            Sample(sample_types((2, 3, 5), (1, 2, 3, 3)), {"count": 12, "epsilon": 1e-5}, 0.1, 2.0),
            Sample(sample_types((70, 130), (2, 70, 3), (130,)), {"count": 192, "epsilon": 1e-5}, 0.1, 2.0),
        ),
    ),
)
