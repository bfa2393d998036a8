"""Lowering of BatchNormalization: by given statistics, or in training by those of the batch."""

from __future__ import annotations

from typing import Final

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.floats import wide_type, widened
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.moments import Moments, inverse_root
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.shape import reshape
from birc.compiler.importer.term import Term


def _batch_normalization(node: OnnxNode, build: GraphBuilder) -> Results:
    """Statistics are one number a channel; until operator set 8 `spatial` = 0 makes it one a feature.

    Training is asked for by an attribute since operator set 14, before by the results that only it has.
    """
    x, shape = node.input(0), build.shape(node.input(0))
    epsilon, kept = node.float_attribute("epsilon", 1e-5), build.type_of(x).dtype
    is_training = bool(node.int_attribute("training_mode", 0)) if node.version >= 14 else len(node.outputs) > 1
    per_channel = node.version >= 9 or bool(node.int_attribute("spatial", 1)) or len(shape) < 3
    wide = {build.type_of(name).dtype for name in node.inputs[:5]} | {wide_type(kept)}
    parameters = list(node.inputs[:5])
    if is_training or len(wide) > 1:
        parameters = [widened(build, name) for name in parameters]
    if not is_training and per_channel:
        return cast(build, build.emit("batch_norm", parameters, {"epsilon": epsilon}), kept)
    x, scale, bias, mean, variance = parameters
    along = (1, shape[1], *(1,) * (len(shape) - 2)) if per_channel else (1, *shape[1:])
    gain, offset, given, spread = (Term(build, reshape(build, name, along)) for name in (scale, bias, mean, variance))
    if not is_training:
        normal = (Term(build, x) - given) * inverse_root(spread, epsilon)
        return cast(build, (normal * gain + offset).name, kept)
    moments = Moments.over(build, x, (0, *range(2, len(shape))) if per_channel else (0,))
    y = moments.standardized(epsilon) * gain + offset
    current = [value.reshape(*build.shape(mean)) for value in (moments.mean, moments.variance)]
    momentum = node.float_attribute("momentum", 0.9)
    running = [
        Term(build, old) * momentum + new * (1.0 - momentum) for old, new in zip((mean, variance), current, strict=True)
    ]
    kinds = [build.type_of(name).dtype for name in node.inputs[3:5]]
    others = zip((*running, *current), (*kinds, *kinds), strict=True)
    return (cast(build, y.name, kept), *(cast(build, value.name, kind) for value, kind in others))[: len(node.outputs)]


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("BatchNormalization", _batch_normalization),)
