"""Quantisation on the device: every quotient is rounded as FP32 division and ONNX round it."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker
from onnx import helper
from onnxruntime import InferenceSession
from pipeline import compile_graph

from birc.runtime.dtypes import dtype

SCALES = (0.007, 0.1, 1.0, 1 / 3, 0.0123, 3e-5, 1e-30, 2e20, 0.5)


def by_onnxruntime(x: np.ndarray, scale: float, zero_point: np.ndarray) -> np.ndarray:
    """What onnxruntime makes of it."""
    given = {"x": x, "s": np.array(scale, np.float32), "z": zero_point}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in given.items()
    ]
    output = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(zero_point.dtype), x.shape)
    graph = helper.make_graph([helper.make_node("QuantizeLinear", list(given), ["y"])], "q", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, given)
    return np.asarray(result)


def numbers(scale: float) -> np.ndarray:
    """Products of whole numbers and halves with the scale, what lies next to them, random ones, and the extremes."""
    generator = np.random.default_rng(7)
    halves = (np.arange(-600, 600) / 2).astype(np.float32) * np.float32(scale)
    beside = [np.nextafter(halves, np.float32(limit)) for limit in (np.inf, -np.inf)]
    spread = (generator.standard_normal(1000) * 60 * scale).astype(np.float32)
    extremes = np.array([0.0, -0.0, np.inf, -np.inf, 3e38, -3e38, 1e-38], np.float32)
    return np.concatenate([halves, *beside, spread, extremes])


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("to", ["i8", "u8", "i16", "u16"])
def test_quotients_are_rounded_as_onnxruntime_rounds_them(to: str, constant: bool) -> None:
    limits = np.iinfo(dtype(to).numpy)
    for scale, zero_point in zip(SCALES, (0, 3, limits.min, limits.max, -1, 1, 0, 2, limits.max // 2), strict=True):
        zero = np.array(max(zero_point, limits.min), dtype(to).numpy)
        make, x = GraphMaker(), numbers(scale)
        data = make.input(*x.shape)
        if constant:
            operands, inputs = (make.constant(scale), make.constant(zero, to)), {}
        else:
            operands = (make.input(), make.input(element=to))
            inputs = {operands[0]: np.array(scale, np.float32), operands[1]: zero}
        compiled = compile_graph(make.graph(make("quantize", data, *operands, to=dtype(to))))
        (result,) = compiled.values({data: x, **inputs}).values()
        np.testing.assert_array_equal(result, by_onnxruntime(x, scale, zero))


def test_nan_is_zero() -> None:
    make = GraphMaker()
    x = make.input(1)
    graph = make.graph(make("quantize", x, make.constant(1.0), make.constant(3, "i8"), to=dtype("i8")))
    (result,) = compile_graph(graph).step({x: np.array([np.nan], np.float32)}).values()
    assert result.tolist() == [0]
