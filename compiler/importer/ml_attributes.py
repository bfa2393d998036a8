"""Attributes and inputs of the ai.onnx.ml operators, which keep their models in long lists of numbers."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.floats import in_f32
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape
from birc.compiler.importer.tensors import tensor_array
from birc.runtime.errors import BadModelError

DOMAIN: Final = "ai.onnx.ml"


def floats(node: OnnxNode, name: str) -> np.ndarray | None:
    """A list of numbers in FP32, from the attribute or from the tensor that can stand for it; None without either.

    Raises `CannotLower` for numbers that FP32 does not hold.
    """
    given = node.attributes.get(name, node.attributes.get(f"{name}_as_tensor"))
    if given is None:
        return None
    values = tensor_array(given, None) if isinstance(given, onnx.TensorProto) else np.asarray(given, np.float32)
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if not np.array_equal(single.astype(values.dtype), values, equal_nan=values.dtype.kind == "f"):
        raise CannotLower(f"{name!r} has numbers of double precision")
    return single.reshape(-1)


def required_floats(node: OnnxNode, name: str) -> np.ndarray:
    """As `floats`. Raises `BadModelError` without them."""
    found = floats(node, name)
    if found is None:
        raise BadModelError(f"{node.op_type} has no attribute {name!r}", where=node.where)
    return found


def integers(node: OnnxNode, name: str) -> np.ndarray:
    """A list of whole numbers, empty when it is not given."""
    return np.asarray(node.ints_attribute(name, ()), np.int64)


def words(node: OnnxNode, name: str) -> tuple[str, ...]:
    """A list of strings, empty when it is not given."""
    given = node.attributes.get(name, ())
    return tuple(str(word) for word in given) if isinstance(given, tuple) else ()


def samples(node: OnnxNode, build: GraphBuilder) -> str:
    """The first input in FP32, one sample a row; a vector is one sample."""
    x = in_f32(build, node.input(0))
    shape = build.shape(x)
    if len(shape) not in (1, 2):
        raise BadModelError(f"{node.op_type} takes rows of features, not {list(shape)}", where=node.where)
    return reshape(build, x, (1, *shape)) if len(shape) == 1 else x
