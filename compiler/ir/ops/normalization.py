"""Normalisations: elements scaled by statistics of their neighbours."""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.ir.access import Relations
from birc.compiler.ir.attributes import Attribute, Attributes, integer, number
from birc.compiler.ir.errors import TypeRuleError
from birc.compiler.ir.op import Arrays, Cost, OpRow, Sample, Types, sample_types
from birc.compiler.ir.ops.costs import per_element
from birc.compiler.ir.ops.numeric import narrowed, widened
from birc.compiler.ir.ops.rank_access import output_loops, reductions, whole_axes
from birc.compiler.ir.ops.type_rules import (
    broadcast_shapes,
    is_float,
    require,
    require_axis,
    require_sizes,
    same_dtype,
)
from birc.compiler.ir.types import TensorType


def _batch_norm_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    x = types[0]
    require(is_float, "float", *types)
    same_dtype(*types)
    require_axis(1, x)
    for name, type in zip(("scale", "bias", "mean", "variance"), types[1:], strict=True):
        require_sizes(type, name, x.shape[1:2])
    return (x.logical,)


def _batch_norm(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x = widened(arrays[0])
    per_channel = (1, -1, *(1,) * (x.ndim - 2))
    scale, bias, mean, variance = (widened(array).reshape(per_channel) for array in arrays[1:])
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + x.dtype.type(number(attributes, "epsilon")))
        return (narrowed((x - mean) * factor + bias, arrays[0].dtype),)


def _trailing_norm_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    x = types[0]
    require(is_float, "float", *types)
    same_dtype(*types)
    require_axis(integer(attributes, "axis"), x)
    for type in types[1:]:
        if broadcast_shapes(x.shape, type.shape) != x.shape:
            raise TypeRuleError(f"{type} does not broadcast to {x}")
    return (x.logical,)


def _trailing_axes(x: np.ndarray, attributes: Attributes) -> tuple[int, ...]:
    return tuple(range(integer(attributes, "axis"), x.ndim))


def _layer_norm(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x, scale = widened(arrays[0]), widened(arrays[1])
    axes = _trailing_axes(x, attributes)
    with np.errstate(all="ignore"):
        centred = x - x.mean(axes, keepdims=True)
        variance = np.square(centred).mean(axes, keepdims=True)
        result = centred / np.sqrt(variance + x.dtype.type(number(attributes, "epsilon"))) * scale
        if len(arrays) > 2:
            result = result + widened(arrays[2])
    return (narrowed(result, arrays[0].dtype),)


def _rms_norm(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x, scale = widened(arrays[0]), widened(arrays[1])
    with np.errstate(all="ignore"):
        power = np.square(x).mean(_trailing_axes(x, attributes), keepdims=True)
        result = x / np.sqrt(power + x.dtype.type(number(attributes, "epsilon"))) * scale
    return (narrowed(result, arrays[0].dtype),)


def _softmax_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    (x,) = types
    require(is_float, "float", x)
    require_axis(integer(attributes, "axis"), x)
    return (x.logical,)


def _softmax(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x, axis = widened(arrays[0]), integer(attributes, "axis")
    with np.errstate(all="ignore"):
        powers = np.exp(x - x.max(axis, keepdims=True))
        return (narrowed(powers / powers.sum(axis, keepdims=True), arrays[0].dtype),)


def _log_softmax(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x, axis = widened(arrays[0]), integer(attributes, "axis")
    with np.errstate(all="ignore"):
        shifted = x - x.max(axis, keepdims=True)
        result = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
    return (narrowed(result, arrays[0].dtype),)


def _logsumexp_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    (x,) = _softmax_rule(types, attributes)
    axis = integer(attributes, "axis")
    return (TensorType(x.dtype, (*x.shape[:axis], 1, *x.shape[axis + 1 :])),)


def _logsumexp(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x, axis = widened(arrays[0]), integer(attributes, "axis")
    with np.errstate(all="ignore"):
        most = x.max(axis, keepdims=True)
        return (narrowed(most + np.log(np.exp(x - most).sum(axis, keepdims=True)), arrays[0].dtype),)


def _logsumexp_access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """x: all of the axis."""
    (x,), axis = types, integer(attributes, "axis")
    loops, names = output_loops(output)
    along = reductions((x.sizes[axis],))
    return Relations((*loops, *along), ((*names[:axis], along[0].name, *names[axis + 1 :]),))


def _lrn_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    (x,) = types
    require(is_float, "float", x)
    require_axis(1, x)
    return (x.logical,)


def _lrn(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x, size = widened(arrays[0]), integer(attributes, "size")
    channels, below = x.shape[1], (size - 1) // 2
    squares = np.square(x)
    total = np.zeros_like(x)
    for offset in range(-below, size - below):
        first, last = max(0, -offset), min(channels, channels - offset)
        if first < last:
            total[:, first:last] += squares[:, first + offset : last + offset]
    alpha, beta, k = (x.dtype.type(number(attributes, name)) for name in ("alpha", "beta", "k"))
    with np.errstate(all="ignore"):
        return (narrowed(x / np.power(k + alpha / x.dtype.type(size) * total, beta), arrays[0].dtype),)


def _lrn_cost(inputs: Types, outputs: Types, attributes: Attributes) -> Cost:
    elements = outputs[0].num_elements
    return Cost(vector_ops=elements * (integer(attributes, "size") + 4), sfu_ops=2 * elements)


def _axis_access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """x: all of the axis; other dimensions as the output."""
    return whole_axes(types, output, (integer(attributes, "axis"),))


def _trailing_access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """x: all of the dimensions from the axis on; scale and bias broadcast."""
    return whole_axes(types, output, range(integer(attributes, "axis"), output.rank))


_EPSILON: Final = Attribute("float", "added to the variance")
_AXIS: Final = Attribute("int", "dimension to normalise over", minimum=0)
_FIRST_AXIS: Final = Attribute("int", "first of the dimensions to normalise over", minimum=0)


_TRAILING_SAMPLES: Final = (
    Sample(sample_types((2, 3, 8), (8,)), {"axis": 2, "epsilon": 1e-5}),
    Sample(sample_types((2, 3, 4), (3, 4)), {"axis": 1, "epsilon": 1e-3}),
    Sample(sample_types((4, 6), (6,), elements="bf16"), {"axis": 1, "epsilon": 1e-5}),
)
_SOFTMAX_SAMPLES: Final = (
    Sample(sample_types((3, 5)), {"axis": 1}),
    Sample(sample_types((2, 3, 4)), {"axis": 0}),
    Sample(sample_types((2, 3, 4)), {"axis": 1}, -80.0, 80.0),
    Sample(sample_types((3, 5), elements="bf16"), {"axis": 1}),
)

ROWS: Final[tuple[OpRow, ...]] = (
    OpRow(
        name="batch_norm",
        doc="(x - mean) / sqrt(variance + epsilon) * scale + bias, with one of each a channel (dimension 1).",
        inputs="x scale bias mean variance",
        category="normalization",
        loops="n c i*",
        access={"x": "n, c, i*", "scale": "c", "bias": "c", "mean": "c", "variance": "c"},
        infer=_batch_norm_rule,
        evaluate=_batch_norm,
        cost=per_element(2),
        attributes={"epsilon": _EPSILON},
        samples=(
            Sample(sample_types((2, 3, 4, 5), (3,), (3,), (3,), (3,)), {"epsilon": 1e-5}, 0.1, 2.0),
            Sample(sample_types((4, 3), (3,), (3,), (3,), (3,)), {"epsilon": 1e-3}, 0.1, 2.0),
        ),
    ),
    OpRow(
        name="layer_norm",
        doc="x less its mean, over its deviation, times scale, plus bias; over all dimensions from axis on.",
        inputs="x scale bias?",
        category="normalization",
        loops="i* | k*",
        access=_trailing_access,
        infer=_trailing_norm_rule,
        evaluate=_layer_norm,
        cost=per_element(7),
        attributes={"axis": _FIRST_AXIS, "epsilon": _EPSILON},
        samples=(
            *_TRAILING_SAMPLES,
            Sample(sample_types((2, 3, 8), (8,), (8,)), {"axis": 2, "epsilon": 1e-5}),
            Sample(sample_types((2, 3, 4), (1, 4), (3, 1)), {"axis": 1, "epsilon": 1e-5}),
        ),
    ),
    OpRow(
        name="rms_norm",
        doc="x over the root of its mean square, times scale; over all dimensions from the axis on.",
        inputs="x scale",
        category="normalization",
        loops="i* | k*",
        access=_trailing_access,
        infer=_trailing_norm_rule,
        evaluate=_rms_norm,
        cost=per_element(4),
        attributes={"axis": _FIRST_AXIS, "epsilon": _EPSILON},
        samples=_TRAILING_SAMPLES,
    ),
    OpRow(
        name="softmax",
        doc="exp(x) over the sum of exp(x) along the axis.",
        inputs="x",
        category="normalization",
        loops="i* | k",
        access=_axis_access,
        infer=_softmax_rule,
        evaluate=_softmax,
        cost=per_element(4, 1),
        attributes={"axis": _AXIS},
        samples=_SOFTMAX_SAMPLES,
    ),
    OpRow(
        name="log_softmax",
        doc="The natural logarithm of softmax.",
        inputs="x",
        category="normalization",
        loops="i* | k",
        access=_axis_access,
        infer=_softmax_rule,
        evaluate=_log_softmax,
        cost=per_element(4, 1),
        attributes={"axis": _AXIS},
        samples=_SOFTMAX_SAMPLES,
    ),
    OpRow(
        name="logsumexp",
        doc="The natural logarithm of the sum of exp(x) along the axis, which stays with size 1.",
        inputs="x",
        category="normalization",
        loops="i* | k",
        access=_logsumexp_access,
        infer=_logsumexp_rule,
        evaluate=_logsumexp,
        cost=per_element(4, 1),
        attributes={"axis": _AXIS},
        in_f32=True,
        samples=_SOFTMAX_SAMPLES,
    ),
    OpRow(
        name="lrn",
        doc="x / (k + alpha / size * sum of squares over `size` neighbouring channels) to the power beta.",
        inputs="x",
        category="normalization",
        loops="n c i* | d:size",
        access={"x": "n, c + d - (size - 1) // 2, i*"},
        infer=_lrn_rule,
        evaluate=_lrn,
        cost=_lrn_cost,
        attributes={
            "size": Attribute("int", "number of channels summed", minimum=1),
            "alpha": Attribute("float", "scale of the sum"),
            "beta": Attribute("float", "exponent"),
            "k": Attribute("float", "added to the sum"),
        },
        samples=(
            Sample(sample_types((5, 5, 3, 2)), {"size": 3, "alpha": 0.1, "beta": 0.75, "k": 1.0}),
            Sample(sample_types((4, 4, 2, 2)), {"size": 4, "alpha": 0.2, "beta": 0.5, "k": 2.0}),
        ),
    ),
)
