"""Statistics of groups of channels: against FP64, and as exporters write them, images lying channels last."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from birc.compiler.driver import compile_model
from birc.compiler.importer.importer import import_model
from birc.compiler.passes.canonicalize import canonicalize
from birc.runtime import load

GROUPS, CHANNELS, SIDE = 4, 12, 24
EPSILON = 1e-5


def image(mean: float) -> np.ndarray:
    """Channels of their own means and deviations around a common mean."""
    generator = np.random.default_rng(3)
    deviation = generator.uniform(0.5, 2.0, (1, CHANNELS, 1, 1))
    return (generator.standard_normal((2, CHANNELS, SIDE, SIDE)) * deviation + mean).astype(np.float32)


def expected(x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """In FP64."""
    grouped = x.astype(np.float64).reshape(len(x), GROUPS, -1)
    deviations = grouped - grouped.mean(2, keepdims=True)
    normal = deviations / np.sqrt(grouped.var(2, keepdims=True) + EPSILON)
    return normal.reshape(x.shape) * scale.reshape(-1, 1, 1) + bias.reshape(-1, 1, 1)


def model(form: str, scale: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:
    """A normalisation by groups: the operator, or as exporters write it before operator set 18."""
    shape = (2, CHANNELS, SIDE, SIDE)
    known = {"scale": scale, "bias": bias, "ones": np.ones(GROUPS, np.float32), "zeros": np.zeros(GROUPS, np.float32),
             "groups": np.array([0, GROUPS, -1]), "whole": np.array(shape),
             "lined_scale": scale.reshape(-1, 1, 1), "lined_bias": bias.reshape(-1, 1, 1)}  # fmt: skip
    if form == "operator":
        nodes = [helper.make_node("GroupNormalization", ["i", "scale", "bias"], ["y"], num_groups=GROUPS)]
    else:
        nodes = [
            helper.make_node("Reshape", ["i", "groups"], ["grouped"]),
            helper.make_node("InstanceNormalization", ["grouped", "ones", "zeros"], ["normal"]),
            helper.make_node("Reshape", ["normal", "whole"], ["n"]),
            helper.make_node("Mul", ["n", "lined_scale"], ["m"]),
            helper.make_node("Add", ["m", "lined_bias"], ["y"]),
        ]
    pool = helper.make_node("LRN", ["x"], ["i"], size=1, alpha=0.0, bias=1.0)
    nodes = [pool, *nodes, helper.make_node("LRN", ["y"], ["o"], size=1, alpha=0.0, bias=1.0)]
    graph = helper.make_graph(
        nodes,
        "groups",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(data, name) for name, data in known.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def parameters() -> tuple[np.ndarray, np.ndarray]:
    """Scale and bias of every channel."""
    generator = np.random.default_rng(5)
    scale, bias = generator.uniform(0.5, 2.0, CHANNELS), generator.uniform(-1.0, 1.0, CHANNELS)
    return scale.astype(np.float32), bias.astype(np.float32)


@pytest.mark.parametrize("form", ["operator", "exporter"])
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_groups_agree_with_fp64(form: str, mean: float) -> None:
    scale, bias = parameters()
    x = image(mean)
    package = compile_model(model(form, scale, bias), "tiny")
    assert package is not None
    np.testing.assert_allclose(load(package).run({"x": x})["o"], expected(x, scale, bias), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("form", ["operator", "exporter"])
def test_no_image_is_seen_with_its_channels_and_pixels_in_one(form: str) -> None:
    """A view of that kind is a copy where channels are innermost."""
    graph = canonicalize(import_model(model(form, *parameters())))
    large = [value.type.sizes for node in graph.nodes for value in node.outputs if value.type.num_elements > 1000]
    assert large
    assert set(large) == {(2, CHANNELS, SIDE, SIDE)}


@pytest.mark.parametrize("length", [30, 600, 601, 1201 * 3])
def test_signals_agree_with_fp64(length: int) -> None:
    """Long ones are summed up in steps, unless their length is a prime."""
    generator = np.random.default_rng(length)
    x = (generator.standard_normal((2, CHANNELS, length)) + 5.0).astype(np.float32)
    scale, bias = parameters()
    known = {"w": np.eye(CHANNELS, dtype=np.float32)[..., None], "scale": scale, "bias": bias}
    signal = helper.make_node("Conv", ["x", "w"], ["c"])
    norm = helper.make_node("InstanceNormalization", ["c", "scale", "bias"], ["n"])
    graph = helper.make_graph(
        [signal, norm, helper.make_node("Conv", ["n", "w"], ["y"])],
        "signals",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        [numpy_helper.from_array(data, name) for name, data in known.items()],
    )
    package = compile_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), "tiny")
    assert package is not None
    wide = x.astype(np.float64)
    normal = (wide - wide.mean(2, keepdims=True)) / np.sqrt(wide.var(2, keepdims=True) + EPSILON)
    wanted = normal * scale[:, None] + bias[:, None]
    np.testing.assert_allclose(load(package).run({"x": x})["y"], wanted, rtol=5e-3, atol=1e-2)


def test_instances_of_what_was_no_reshape_stay_as_they_are() -> None:
    entry = model("exporter", *parameters())
    graph = canonicalize(import_model(entry))
    assert all(node.op != "gather" or node.output.type.rank == 2 for node in graph.nodes)
    del entry.graph.node[1], entry.graph.node[2]
    entry.graph.node[1].input[:] = ["i", "scale", "bias"]
    entry.graph.node[2].input[0] = "normal"
    alone = canonicalize(import_model(entry))
    assert not [node for node in alone.nodes if node.op == "gather"]
