"""What the levels of optimisation do: each tries more than the one below."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from birc.compiler import compile_model
from birc.runtime import load


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """A deep product of few rows, which two dies may divide along its depth."""
    generator = np.random.default_rng(5)
    weights = [
        numpy_helper.from_array(generator.normal(0, shape[0] ** -0.5, shape).astype(np.float32), name)
        for name, shape in {"w1": (256, 2048), "w2": (2048, 512)}.items()
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in {"x": (256, 256), "y": (256, 512)}.items()
    )
    graph = helper.make_graph(nodes, "deep", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_no_level_is_slower_than_the_one_below(model: onnx.ModelProto) -> None:
    latencies = []
    for level in range(4):
        package = compile_model(model, precision="bf16", opt_level=level)
        assert package is not None
        latencies.append(load(package).profile().latency_us)
    assert latencies[0] > latencies[1] >= latencies[2] >= latencies[3]


def test_levels_agree_in_their_values(model: onnx.ModelProto) -> None:
    x = np.random.default_rng(6).uniform(-1, 1, (256, 256)).astype(np.float32)
    first, second = (numpy_helper.to_array(w).astype(np.float64) for w in model.graph.initializer)
    expected = np.maximum(x.astype(np.float64) @ first, 0) @ second
    for level in range(4):
        package = compile_model(model, precision="bf16", opt_level=level)
        assert package is not None
        found = load(package).run({"x": x})["y"]
        assert np.linalg.norm(found - expected) <= 0.02 * np.linalg.norm(expected)
