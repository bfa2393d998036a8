"""Lowering of normalisations and softmax."""

from __future__ import annotations

import math
from typing import Final

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast, named_type
from birc.compiler.importer.floats import F32, divisor
from birc.compiler.importer.group_statistics import for_channels, grouped_channels, standardized
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.moments import Moments, inverse_root
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape
from birc.compiler.importer.term import Term
from birc.runtime.errors import BadModelError


def _instance_normalization(node: OnnxNode, build: GraphBuilder) -> Results:
    x, rank = node.input(0), build.rank(node.input(0))
    if rank < 2:
        raise BadModelError(f"InstanceNormalization of {rank} dimensions, at least 2", where=node.where)
    shape = build.shape(x)
    image = grouped_channels(build, x) or x
    channels, rank = build.shape(image)[1], build.rank(image)
    normal = standardized(build, image, shape[1], _epsilon(node))
    scale, bias = (for_channels(Term(build, numbers), channels).name for numbers in node.inputs[1:3])
    return reshape(build, _affine(build, normal, scale, bias, rank), shape)


def _group_normalization(node: OnnxNode, build: GraphBuilder) -> Results:
    """Statistics per group of channels. Until operator set 20 the scales are per group too."""
    x, shape, groups = node.input(0), build.shape(node.input(0)), node.int_attribute("num_groups", 1)
    channels = shape[1]
    if groups < 1 or channels % groups:
        raise BadModelError(f"{channels} channels do not make {groups} groups", where=node.where)
    scale, bias = node.inputs[1:3]
    if node.version < 21:
        scale, bias = (for_channels(Term(build, numbers), channels).name for numbers in (scale, bias))
    return _affine(build, standardized(build, x, groups, _epsilon(node)), scale, bias, len(shape))


def _affine(build: GraphBuilder, x: str, scale: str, bias: str, rank: int) -> str:
    """x * scale + bias, the vectors lined up with dimension 1 of `rank`."""
    lined = (build.shape(scale)[0], *(1,) * (rank - 2))
    scaled = build.emit("mul", (x, reshape(build, scale, lined)))
    return build.emit("add", (scaled, reshape(build, bias, lined)))


def _epsilon(node: OnnxNode) -> float:
    return node.float_attribute("epsilon", 1e-5)


def _layer_normalization(node: OnnxNode, build: GraphBuilder) -> Results:
    """The core row, unless the statistics are asked for too, which are of the type that `stash_type` names."""
    x, rank = node.input(0), build.rank(node.input(0))
    axis, epsilon = positive_axis(node, node.int_attribute("axis", -1), rank), _epsilon(node)
    operands = tuple(name for name in node.inputs[:3] if name)
    if len(node.outputs) == 1 and all(build.shape(name) == build.shape(x)[axis:] for name in operands[1:]):
        return build.emit("layer_norm", operands, {"axis": axis, "epsilon": epsilon})
    moments = Moments.over(build, x, tuple(range(axis, rank)))
    inverse = moments.inverse(epsilon)
    normal = cast(build, (moments.centred * inverse).name, build.type_of(x).dtype)
    result = build.emit("mul", (normal, node.input(1)))
    if node.optional(2):
        result = build.emit("add", (result, node.input(2)))
    stash = named_type(node.int_attribute("stash_type", 1))
    return (result, cast(build, moments.mean.name, stash), cast(build, inverse.name, stash))[: len(node.outputs)]


def _rms_normalization(node: OnnxNode, build: GraphBuilder) -> Results:
    """Computes in FP32, and scales in the type of the scale."""
    x, scale = node.input(0), node.input(1)
    rank = build.rank(x)
    axis, epsilon = positive_axis(node, node.int_attribute("axis", -1), rank), _epsilon(node)
    if build.shape(scale) == build.shape(x)[axis:] and build.type_of(x).dtype == build.type_of(scale).dtype:
        return build.emit("rms_norm", (x, scale), {"axis": axis, "epsilon": epsilon})
    wide = Term(build, cast(build, x, F32))
    mean = (wide * wide).reduce("reduce_mean", *range(axis, rank), keep=True)
    normal = cast(build, (wide * inverse_root(mean, epsilon)).name, build.type_of(scale).dtype)
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
    return build.emit("div", (x, divisor(build, norm)))


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("GroupNormalization", _group_normalization),
    OpType("InstanceNormalization", _instance_normalization),
    OpType("LayerNormalization", _layer_normalization, is_extension=True),
    OpType("LogSoftmax", _flat_softmax("log_softmax"), until=12),
    OpType("LogSoftmax", _softmax("log_softmax"), since=13),
    OpType("LpNormalization", _lp_normalization),
    OpType("LRN", _lrn),
    OpType("RMSNormalization", _rms_normalization),
    OpType("Softmax", _flat_softmax("softmax"), until=12),
    OpType("Softmax", _softmax("softmax"), since=13),
)
