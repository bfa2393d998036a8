"""GroupQueryAttention where onnxruntime's CPU kernel stops: normalised heads, and lengths that contradict the model."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from lowering_case import F32, f32
from lowering_cases_contrib import angles
from networks import onnxruntime_outputs
from onnx import TensorProto, helper, numpy_helper

from birc.compiler.driver import compile_model
from birc.compiler.importer.importer import import_model
from birc.compiler.ir.interpreter import run_graph
from birc.runtime.errors import BircError
from birc.runtime.session import load

HEADS = {"num_heads": 4, "kv_num_heads": 2}
SIZE = 16


def model(nodes: list[onnx.NodeProto], given: dict[str, np.ndarray], known: dict[str, np.ndarray]) -> onnx.ModelProto:
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
    inputs = [helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in given.items()]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    if "present" in nodes[-1].output:
        for name in ("present", "present_v"):
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 2, 7, SIZE)))
    constants = [numpy_helper.from_array(array, name) for name, array in known.items()]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "attention", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def attention(inputs: list[str], outputs: list[str]) -> onnx.NodeProto:
    return helper.make_node("GroupQueryAttention", inputs, outputs, domain="com.microsoft", do_rotary=1, **HEADS)


def test_heads_are_normalised_before_they_are_rotated() -> None:
    given = {"q": f32(2, 5, 64), "k": f32(2, 5, 32), "v": f32(3, 5, 32)[:2]}
    cosines, sines = angles(9, SIZE // 2)
    known = {
        "lengths": np.array([4, 4], np.int32), "total": np.array(5, np.int32), "cos": cosines, "sin": sines,
        "of_q": f32(SIZE), "of_k": f32(1, SIZE)[0],
    }  # fmt: skip
    common = ["", "", "lengths", "total", "cos", "sin"]
    fused = attention(["q", "k", "v", *common, "", "", "", "", "", "of_q", "of_k"], ["y"])
    apart = []
    for name, count in (("q", 4), ("k", 2)):
        known[f"{name}_heads"] = np.array([2, 5, count, SIZE])
        known[f"{name}_joined"] = np.array([2, 5, count * SIZE])
        apart += [
            helper.make_node("Reshape", [name, f"{name}_heads"], [f"{name}1"]),
            helper.make_node("SimplifiedLayerNormalization", [f"{name}1", f"of_{name}"], [f"{name}2"], epsilon=1e-6),
            helper.make_node("Reshape", [f"{name}2", f"{name}_joined"], [f"{name}3"]),
        ]
    apart.append(attention(["q3", "k3", "v", *common], ["y"]))
    (expected,) = onnxruntime_outputs(model(apart, given, known), given).values()
    (actual,) = run_graph(import_model(model([fused], given, known)), given).values()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_a_total_length_that_contradicts_the_declared_cache_faults() -> None:
    given = {
        "q": f32(2, 1, 64), "k": f32(2, 1, 32), "v": f32(3, 1, 32)[:2], "past_k": f32(2, 2, 6, SIZE),
        "past_v": f32(3, 2, 6, SIZE)[:2], "lengths": np.array([6, 3], np.int32), "total": np.array(7, np.int32),
    }  # fmt: skip
    cosines, sines = angles(9, SIZE // 2)
    names = [*given, "cos", "sin"]
    whole = model([attention(names, ["y", "present", "present_v"])], given, {"cos": cosines.astype(F32), "sin": sines})
    package = compile_model(whole, precision="fp32", target="br100")
    assert package is not None
    session = load(package)
    actual = session.run(given)
    for name, expected in onnxruntime_outputs(whole, given).items():
        np.testing.assert_allclose(actual[name], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(BircError):
        session.run({**given, "total": np.array(8, np.int32)})
