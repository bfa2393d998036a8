"""Lowering of BatchNormalization: by given statistics, or in training by those of the batch."""

from __future__ import annotations

from typing import Final

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.shape import reshape
from birc.compiler.ir.attributes import AttributeValue
from birc.runtime.dtypes import dtype


def _batch_normalization(node: OnnxNode, build: GraphBuilder) -> Results:
    """Statistics are one number a channel; until operator set 8 `spatial` = 0 makes it one a feature.

    Training is asked for by an attribute since operator set 14, before by the results that only it has.
    """
    x, shape = node.input(0), build.shape(node.input(0))
    epsilon, kept = node.float_attribute("epsilon", 1e-5), build.type_of(x).dtype
    is_training = bool(node.int_attribute("training_mode", 0)) if node.version >= 14 else len(node.outputs) > 1
    per_channel = node.version >= 9 or bool(node.int_attribute("spatial", 1)) or len(shape) < 3
    wide = {build.type_of(name).dtype for name in node.inputs[:5]} | ({dtype("f32")} if kept.bits < 32 else set())
    parameters = list(node.inputs[:5])
    if is_training or len(wide) > 1:
        parameters = [
            cast(build, name, dtype("f32")) if build.type_of(name).dtype.bits < 32 else name for name in parameters
        ]
    if not is_training and per_channel:
        return cast(build, build.emit("batch_norm", parameters, {"epsilon": epsilon}), kept)
    x, scale, bias, mean, variance = parameters
    along = (1, shape[1], *(1,) * (len(shape) - 2)) if per_channel else (1, *shape[1:])
    if not is_training:
        normal = _normal(
            build, build.emit("sub", (x, reshape(build, mean, along))), reshape(build, variance, along), epsilon
        )
        return cast(build, _affine(build, normal, reshape(build, scale, along), reshape(build, bias, along)), kept)
    over: dict[str, AttributeValue] = {"axes": (0, *range(2, len(shape))) if per_channel else (0,), "keepdims": 1}
    batch_mean = build.emit("reduce_mean", (x,), over)
    centred = build.emit("sub", (x, batch_mean))
    batch_variance = build.emit("reduce_mean", (build.emit("mul", (centred, centred)),), over)
    normal = _normal(build, centred, batch_variance, epsilon)
    y = _affine(build, normal, reshape(build, scale, along), reshape(build, bias, along))
    current = [reshape(build, value, build.shape(mean)) for value in (batch_mean, batch_variance)]
    momentum = node.float_attribute("momentum", 0.9)
    running = [_mixed(build, old, new, momentum) for old, new in zip((mean, variance), current, strict=True)]
    kinds = [build.type_of(name).dtype for name in node.inputs[3:5]]
    others = zip((*running, *current), (*kinds, *kinds), strict=True)
    return (cast(build, y, kept), *(cast(build, value, kind) for value, kind in others))[: len(node.outputs)]


def _normal(build: GraphBuilder, centred: str, variance: str, epsilon: float) -> str:
    """Deviations from the mean over the root of the variance plus epsilon."""
    moved = build.emit("add", (variance, build.scalar(epsilon, variance)))
    return build.emit("mul", (centred, build.emit("rsqrt", (moved,))))


def _affine(build: GraphBuilder, x: str, scale: str, bias: str) -> str:
    return build.emit("add", (build.emit("mul", (x, scale)), bias))


def _mixed(build: GraphBuilder, old: str, new: str, momentum: float) -> str:
    """old * momentum + new * (1 - momentum)"""
    kept = build.emit("mul", (old, build.scalar(momentum, old)))
    return build.emit("add", (kept, build.emit("mul", (new, build.scalar(1.0 - momentum, new)))))


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("BatchNormalization", _batch_normalization),)
