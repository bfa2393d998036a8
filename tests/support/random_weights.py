"""Gives an ONNX network seeded random weights in place of the ones it came with.

Filters are He-normal; scales and variances of norms lie in 0.5 to 1.5, means and biases are small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.random import Generator
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray
Dimensions = tuple[int, ...]

# Operators that only change a weight's shape on its way to the operator that uses it.
SHAPE_ONLY = {"Reshape", "Unsqueeze"}
# He and others, "Delving Deep into Rectifiers" (2015): variance 2 / fan-in keeps the size of what ReLU leaves.
RELU_GAIN = 2.0
# A residual sum adds up the variances of its two sides.
RESIDUAL_GAIN = RELU_GAIN / 2


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight and its use: the operator, the input's position, the axes that are summed, the gain wanted."""

    shape: Dimensions
    op_type: str
    position: int
    summed_axes: Dimensions
    gain: float


def randomise(graph: onnx.GraphProto, rng: Generator) -> None:
    """Replace, in place, every float weight by a random one; fills become initialisers, unread weights go.

    A weight is a float initialiser or the output of a ConstantOfShape node over a constant shape. Graph
    inputs that are also initialisers (the rule before IR version 4) stop being inputs. Raises ValueError for
    a weight whose use is not known.
    """
    shapes = dict(_weight_shapes(graph))
    kept = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    readers = {name: node for node in reversed(kept) for name in node.input}
    gain = RESIDUAL_GAIN if any(node.op_type == "Sum" for node in kept) else RELU_GAIN
    constants = [tensor for tensor in graph.initializer if tensor.name not in shapes and tensor.name in readers]
    for name, shape in shapes.items():
        if name in readers:
            values = _draw(_weight(name, shape, readers, gain), rng)
            constants.append(numpy_helper.from_array(values, name))
    names = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in names]
    for field, messages in (("node", kept), ("initializer", constants), ("input", inputs)):
        graph.ClearField(field)
        getattr(graph, field).extend(messages)


def _weight_shapes(graph: onnx.GraphProto) -> Iterator[tuple[str, Dimensions]]:
    """Name and shape of every weight: first the initialisers, then the fills in node order."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            yield tensor.name, tuple(tensor.dims)
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            yield node.output[0], tuple(numpy_helper.to_array(constants[node.input[0]]).tolist())


def _weight(name: str, shape: Dimensions, readers: dict[str, onnx.NodeProto], gain: float) -> Weight:
    """The weight with its first use, seen through the operators that only change its shape."""
    node = readers[name]
    while node.op_type in SHAPE_ONLY:
        name = node.output[0]
        node = readers[name]
    return Weight(shape, node.op_type, list(node.input).index(name), _summed_axes(node, shape), gain)


def _summed_axes(node: onnx.NodeProto, shape: Dimensions) -> Dimensions:
    """The axes of the node's weight that one output value sums over."""
    if node.op_type != "Gemm":
        return tuple(range(1, len(shape)))
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    last = len(shape) - 1
    return (last,) if attributes.get("transB", 0) else (last - 1,)


def _filter(weight: Weight, rng: Generator) -> Array:
    fan_in = math.prod(weight.shape[axis] for axis in weight.summed_axes)
    values = rng.standard_normal(weight.shape, np.float32)
    values *= np.float32(math.sqrt(weight.gain / fan_in))
    return values


def _around_one(weight: Weight, rng: Generator) -> Array:
    return rng.uniform(0.5, 1.5, weight.shape).astype(np.float32)


def _small(weight: Weight, rng: Generator) -> Array:
    return np.float32(0.05) * rng.standard_normal(weight.shape, np.float32)


# (operator, input position) -> what a trained weight there looks like
DRAWS: dict[tuple[str, int], Callable[[Weight, Generator], Array]] = {
    ("Conv", 1): _filter,
    ("Conv", 2): _small,
    ("Gemm", 1): _filter,
    ("Gemm", 2): _small,
    ("BatchNormalization", 1): _around_one,  # scale
    ("BatchNormalization", 2): _small,  # bias
    ("BatchNormalization", 3): _small,  # mean
    ("BatchNormalization", 4): _around_one,  # variance
    ("Mul", 1): _around_one,
    ("Add", 1): _small,
}


def _draw(weight: Weight, rng: Generator) -> Array:
    draw = DRAWS.get((weight.op_type, weight.position))
    if draw is None:
        raise ValueError(f"no rule for a weight at input {weight.position} of {weight.op_type}")
    return draw(weight, rng)
