"""The statistics of normalisation in two steps: of parts of rows, and what they add up to for the rows."""

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
from birc.compiler.ir.ops.type_rules import is_float, require, require_axis
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
    moments = _moments(arrays, {**attributes, "parts": 1})
    return _factors(moments, {**attributes, "count": arrays[0].shape[-1]})


def _statistics_access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """x: all of a row."""
    loops, names = output_loops(output)
    return Relations((*loops, *reductions(types[0].sizes[-1:])), ((*names[1:-1], "k0"),))


def _factors_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    (moments,) = types
    require(is_float, "float", moments)
    if moments.rank < 2 or moments.shape[0] not in (1, 2):
        raise TypeRuleError(f"{moments} are no moments: of each part the squares, or its sum and they")
    if integer(attributes, "count") % moments.sizes[-1]:
        raise TypeRuleError(f"{moments}: the parts of {integer(attributes, 'count')} elements are not of one width")
    return (TensorType(moments.dtype, (*moments.shape[:-1], 1)),)


def _factors(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    moments, count = widened(arrays[0]), integer(attributes, "count")
    width, squares = count // moments.shape[-1], moments[-1].sum(-1, keepdims=True)
    epsilon = moments.dtype.type(number(attributes, "epsilon"))
    with np.errstate(all="ignore"):
        if len(moments) == 1:
            return (narrowed((1 / np.sqrt(squares / count + epsilon))[None], arrays[0].dtype),)
        mean = moments[0].sum(-1, keepdims=True) / count
        squares = squares + width * np.square(moments[0] / width - mean).sum(-1, keepdims=True)
        factor = 1 / np.sqrt(squares / count + epsilon)
        return (narrowed(np.stack([factor, -mean * factor]), arrays[0].dtype),)


def _factors_access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """moments: all of a row."""
    loops, names = output_loops(output)
    return Relations((*loops, *reductions((types[0].sizes[0], types[0].sizes[-1]))), (("k0", *names[1:-1], "k1"),))


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
        name="row_factors",
        doc="Of moments of rows the inverse deviation, and minus the mean times that: what normalises x is x * a + b.",
        inputs="moments",
        category="normalization",
        loops="c i* | k p",
        access=_factors_access,
        infer=_factors_rule,
        evaluate=_factors,
        cost=per_element(6, 1),
        attributes={
            "count": Attribute("int", "elements of a row", minimum=1),
            "epsilon": Attribute("float", "added to the variance"),
        },
        in_f32=True,
        samples=(
            Sample(sample_types((2, 3, 4)), {"count": 16, "epsilon": 1e-5}, 0.1, 2.0),
            Sample(sample_types((1, 2, 3, 3)), {"count": 12, "epsilon": 1e-5}, 0.1, 2.0),
            Sample(sample_types((2, 70, 3)), {"count": 192, "epsilon": 1e-5}, 0.1, 2.0),
        ),
    ),
)
