"""Lowering of normalisations and softmax."""

from __future__ import annotations

import math
from typing import Final

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.tensors import element_type, element_type_name
from birc.compiler.ir.attributes import AttributeValue
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError

_WIDE: Final = dtype("f32")


def _instance_normalization(node: OnnxNode, build: GraphBuilder) -> Results:
    x, rank = node.input(0), build.rank(node.input(0))
    normal = _standardized(build, x, tuple(range(2, rank)), node.float_attribute("epsilon", 1e-5))
    per_channel = (build.shape(x)[1],) + (1,) * (rank - 2)
    return _affine(build, normal, node.input(1), node.input(2), per_channel)


def _group_normalization(node: OnnxNode, build: GraphBuilder) -> Results:
    """Statistics per group of channels. Until operator set 20 the scales are per group too."""
    x, shape, groups = node.input(0), build.shape(node.input(0)), node.int_attribute("num_groups", 1)
    batch, channels, *spatial = shape
    if groups < 1 or channels % groups:
        raise BadModelError(f"{channels} channels do not make {groups} groups", where=node.where)
    grouped_shape = (batch, groups, channels // groups, *spatial)
    grouped = build.emit("reshape", (x,), {"shape": grouped_shape})
    normal = _standardized(build, grouped, tuple(range(2, len(grouped_shape))), node.float_attribute("epsilon", 1e-5))
    per_group = node.version < 21
    if not per_group:
        normal = build.emit("reshape", (normal,), {"shape": shape})
    rank = build.rank(normal)
    result = _affine(build, normal, node.input(1), node.input(2), (-1,) + (1,) * (rank - 2))
    return build.emit("reshape", (result,), {"shape": shape}) if per_group else result


def _standardized(build: GraphBuilder, x: str, axes: tuple[int, ...], epsilon: float) -> str:
    """(x - mean) / sqrt(variance + epsilon) over `axes`, in the type of `x`"""
    centred, inverse, _ = _statistics(build, x, axes, epsilon)
    return cast(build, build.emit("mul", (centred, inverse)), build.type_of(x).dtype)


def _statistics(build: GraphBuilder, x: str, axes: tuple[int, ...], epsilon: float) -> tuple[str, str, str]:
    """x - mean, 1 / sqrt(variance + epsilon) and the mean: as f32, as the squares of half precision may overflow."""
    if build.type_of(x).dtype.bits < _WIDE.bits:
        x = cast(build, x, _WIDE)
    over: dict[str, AttributeValue] = {"axes": axes, "keepdims": 1}
    mean = build.emit("reduce_mean", (x,), over)
    centred = build.emit("sub", (x, mean))
    variance = build.emit("reduce_mean", (build.emit("mul", (centred, centred)),), over)
    inverse = build.emit("rsqrt", (build.emit("add", (variance, build.scalar(epsilon, x))),))
    return centred, inverse, mean


def _affine(build: GraphBuilder, x: str, scale: str, bias: str, shape: tuple[int, ...]) -> str:
    """x * scale + bias, the vectors in `shape` (one entry may be -1), lined up with the channels."""
    channels = build.shape(scale)[0]
    target = tuple(channels if size == -1 else size for size in shape)
    scaled = build.emit("mul", (x, build.emit("reshape", (scale,), {"shape": target})))
    return build.emit("add", (scaled, build.emit("reshape", (bias,), {"shape": target})))


def _layer_normalization(node: OnnxNode, build: GraphBuilder) -> Results:
    """The core row, unless the statistics are asked for too, which are of the type that `stash_type` names."""
    x, rank = node.input(0), build.rank(node.input(0))
    axis, epsilon = (
        positive_axis(node, node.int_attribute("axis", -1), rank),
        node.float_attribute("epsilon", 1e-5),
    )
    if len(node.outputs) == 1 and all(build.shape(name) == build.shape(x)[axis:] for name in node.inputs[1:3] if name):
        return build.emit(
            "layer_norm", tuple(name for name in node.inputs[:3] if name), {"axis": axis, "epsilon": epsilon}
        )
    centred, inverse, mean = _statistics(build, x, tuple(range(axis, rank)), epsilon)
    normal = cast(build, build.emit("mul", (centred, inverse)), build.type_of(x).dtype)
    result = build.emit("mul", (normal, node.input(1)))
    if node.optional(2):
        result = build.emit("add", (result, node.input(2)))
    stash = element_type(node.int_attribute("stash_type", 1))
    if stash is None:
        raise CannotLower(f"its statistics are of type {element_type_name(node.int_attribute('stash_type', 1))}")
    return (result, cast(build, mean, stash), cast(build, inverse, stash))[: len(node.outputs)]


def _rms_normalization(node: OnnxNode, build: GraphBuilder) -> Results:
    """Computes in the type `stash_type` names, f32 unless told, and scales in the type of the scale."""
    x, scale = node.input(0), node.input(1)
    rank = build.rank(x)
    axis, epsilon = (
        positive_axis(node, node.int_attribute("axis", -1), rank),
        node.float_attribute("epsilon", 1e-5),
    )
    if build.shape(scale) == build.shape(x)[axis:] and build.type_of(x).dtype == build.type_of(scale).dtype:
        return build.emit("rms_norm", (x, scale), {"axis": axis, "epsilon": epsilon})
    wide = cast(build, x, dtype("f32"))
    mean = build.emit(
        "reduce_mean", (build.emit("mul", (wide, wide)),), {"axes": tuple(range(axis, rank)), "keepdims": 1}
    )
    inverse = build.emit("rsqrt", (build.emit("add", (mean, build.scalar(epsilon, wide))),))
    normal = cast(build, build.emit("mul", (wide, inverse)), build.type_of(scale).dtype)
    return build.emit("mul", (normal, scale))


def _softmax(op: str) -> Lower:
    """Softmax over one axis: since operator set 13."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        axis = positive_axis(node, node.int_attribute("axis", -1), build.rank(node.input(0)))
        return build.emit(op, (node.input(0),), {"axis": axis})

    return lower


def _flat_softmax(op: str) -> Lower:
    """Softmax over all dimensions from `axis` on, as one: until operator set 12."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        x, shape = node.input(0), build.shape(node.input(0))
        axis = positive_axis(node, node.int_attribute("axis", 1), len(shape), inclusive=True)
        if axis < len(shape) and all(size == 1 for size in shape[axis + 1 :]):
            return build.emit(op, (x,), {"axis": axis})
        flat = build.emit("reshape", (x,), {"shape": (math.prod(shape[:axis]), math.prod(shape[axis:]))})
        return build.emit("reshape", (build.emit(op, (flat,), {"axis": 1}),), {"shape": shape})

    return lower


def _lrn(node: OnnxNode, build: GraphBuilder) -> Results:
    attributes = {
        "size": node.int_attribute("size", 0),
        "alpha": node.float_attribute("alpha", 1e-4),
        "beta": node.float_attribute("beta", 0.75),
        "k": node.float_attribute("bias", 1.0),
    }
    return build.emit("lrn", (node.input(0),), attributes)


def _lp_normalization(node: OnnxNode, build: GraphBuilder) -> Results:
    """x / ||x||_p along one axis, 0 where the norm is 0."""
    x, power = node.input(0), node.int_attribute("p", 2)
    axis = positive_axis(node, node.int_attribute("axis", -1), build.rank(x))
    if power not in (1, 2):
        raise CannotLower(f"norm of order {power}; ONNX knows 1 and 2")
    terms = build.emit("abs", (x,)) if power == 1 else build.emit("mul", (x, x))
    norm = build.emit("reduce_sum", (terms,), {"axes": (axis,), "keepdims": 1})
    if power == 2:
        norm = build.emit("sqrt", (norm,))
    zero = build.emit("equal", (norm, build.scalar(0, x)))
    return build.emit("div", (x, build.emit("where", (zero, build.scalar(1, x), norm))))


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("GroupNormalization", _group_normalization),
    OpType("InstanceNormalization", _instance_normalization),
    OpType("LayerNormalization", _layer_normalization),
    OpType("LogSoftmax", _flat_softmax("log_softmax"), until=12),
    OpType("LogSoftmax", _softmax("log_softmax"), since=13),
    OpType("LpNormalization", _lp_normalization),
    OpType("LRN", _lrn),
    OpType("RMSNormalization", _rms_normalization),
    OpType("Softmax", _flat_softmax("softmax"), until=12),
    OpType("Softmax", _softmax("softmax"), since=13),
)
