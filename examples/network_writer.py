"""Collects the nodes and the seeded weights of a network: what the builders of this folder share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET = 17
IR_VERSION = 8


class NetworkWriter:
    """The nodes and weights of one network, in order; the weights are drawn from one seeded generator."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add an initialiser; returns its name."""
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def normal(self, name: str, shape: tuple[int, ...], deviation: float, mean: float = 0.0) -> str:
        """Add a normally distributed float32 initialiser; returns its name."""
        value = self.rng.standard_normal(shape, np.float32)
        value *= np.float32(deviation)
        value += np.float32(mean)
        return self.constant(name, value)

    def node(self, op_type: str, name: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Add a node with one output, named after the node unless given; returns the output's name."""
        output = output or f"{name}_out"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name, **attributes))
        return output

    def model(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """The model of everything added so far; `name` is also that of the script which builds it."""
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.weights)
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name=f"{name}.py")
