"""Networks that onnxruntime's own quantiser and optimiser wrote, through the device path, against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from lowering_case import f32
from networks import exported_network, onnxruntime_outputs, relative_error
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from birc.compiler.driver import compile_model
from birc.runtime.assembly import program_text
from birc.runtime.package import Package
from birc.runtime.session import load

IMAGE = (2, 3, 12, 12)
OURS = "com.microsoft"


class Calibration(CalibrationDataReader):
    """A few random images."""

    def __init__(self) -> None:
        generator = np.random.default_rng(3)
        self._images = iter([{"x": generator.uniform(-2, 2, IMAGE).astype(np.float32)} for _ in range(4)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._images, None)


def convolutional() -> onnx.ModelProto:
    """Convolutions with a residual, a pool, a matrix product with a bias."""
    weights = {
        "w1": f32(8, 3, 3, 3), "b1": f32(8), "w2": f32(8, 8, 3, 3, low=-0.3, high=0.3), "b2": f32(1, 8)[0],
        "w3": f32(8, 10), "b3": f32(10),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "c1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "r1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "c2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["a"], "a"),
        helper.make_node("Sigmoid", ["a"], ["s"], "s"),
        helper.make_node("GlobalAveragePool", ["s"], ["g"], "g"),
        helper.make_node("Flatten", ["g"], ["f"], "f"),
        helper.make_node("MatMul", ["f", "w3"], ["m"], "m"),
        helper.make_node("Add", ["m", "b3"], ["y"], "y"),
    ]
    graph = helper.make_graph(
        nodes, "convolutional", [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 10))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quantised(folder: Path, form: QuantFormat, activations: QuantType, *, per_channel: bool) -> onnx.ModelProto:
    before, after = folder / "float.onnx", folder / "quantised.onnx"
    onnx.save(convolutional(), before)
    quantize_static(
        before, after, Calibration(), quant_format=form, per_channel=per_channel, activation_type=activations,
        weight_type=QuantType.QInt8,
    )  # fmt: skip
    return onnx.load(after)


def compiled(model: onnx.ModelProto, precision: str) -> Package:
    package = compile_model(model, precision=precision, target="br100")
    assert package is not None
    assert not any(variant.host_nodes for variant in package.manifest.variants)
    return package


def largest_step(model: onnx.ModelProto) -> float:
    """The scale of what the last node dequantises."""
    last = next(node for node in reversed(model.graph.node) if node.op_type == "DequantizeLinear")
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == last.input[1])
    return float(numpy_helper.to_array(scale))


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8], ids=["u8", "i8"])
@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator], ids=["qdq", "qlinear"])
def test_a_network_quantised_by_onnxruntime(
    form: QuantFormat, activations: QuantType, per_channel: bool, precision: str, tmp_path: Path
) -> None:
    """Results differ by single steps of quantisation, where a sum lies between two."""
    model = quantised(tmp_path, form, activations, per_channel=per_channel)
    package = compiled(model, precision)
    if precision == "int8" or form == QuantFormat.QOperator:
        products = [line for line in program_text(package.program).splitlines() if "tmma" in line]
        assert products
        assert all("format=s8" in line for line in products)
    given = {"x": f32(*IMAGE)}
    (expected,) = onnxruntime_outputs(model, given).values()
    (actual,) = load(package).run(given).values()
    step = largest_step(model)
    difference = np.abs(actual - expected)
    assert difference.max() <= 1.01 * step
    assert (difference > 0.5 * step).mean() <= 0.15


@pytest.mark.parametrize("name", ["bert_base", "gpt2", "llama2l", "mobilenet_v2"])
def test_a_network_that_onnxruntime_optimised(name: str, tmp_path: Path) -> None:
    model, inputs, outputs = exported_network(name)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")
    assert any(node.domain == OURS for node in optimised.graph.node)
    actual = load(compiled(optimised, "fp32")).run(inputs)
    for output, expected in outputs.items():
        assert relative_error(actual[output], expected) <= 1e-5


def bert(layers: int, hidden: int, heads: int, tokens: int) -> onnx.ModelProto:
    """BERT as onnxruntime's optimiser for transformers writes it, each layer with another form of the GELU."""
    weights: dict[str, np.ndarray] = {}

    def weight(name: str, *shape: int) -> str:
        reach = 2.0 / shape[0] ** 0.5 if len(shape) > 1 else 0.5
        weights[name] = np.random.default_rng(len(weights)).uniform(-reach, reach, shape).astype(np.float32)
        return name

    def norm(name: str) -> list[str]:
        return [weight(f"{name}.gamma", hidden), weight(f"{name}.beta", hidden)]

    tables = [weight("words", 50, hidden), weight("positions", tokens, hidden), weight("segments", 2, hidden)]
    nodes = [
        helper.make_node("EmbedLayerNormalization", ["ids", "kinds", *tables, *norm("embed"), "mask"],
                         ["h0", "lengths"], "embed", domain=OURS)
    ]  # fmt: skip
    for at in range(layers):
        x, name = f"h{at}", f"layer{at}"
        projection = [weight(f"{name}.qkv", hidden, 3 * hidden), weight(f"{name}.qkv_bias", 3 * hidden)]
        nodes += [
            helper.make_node("Attention", [x, *projection, "lengths"], [f"{name}.a"], f"{name}.attention", domain=OURS,
                             num_heads=heads),
            helper.make_node("MatMul", [f"{name}.a", weight(f"{name}.out", hidden, hidden)], [f"{name}.o"]),
            helper.make_node("SkipLayerNormalization", [f"{name}.o", x, *norm(f"{name}.first"),
                             weight(f"{name}.out_bias", hidden)], [f"{name}.n"], f"{name}.norm1", domain=OURS),
            helper.make_node("MatMul", [f"{name}.n", weight(f"{name}.up", hidden, 4 * hidden)], [f"{name}.u"]),
            helper.make_node("FastGelu" if at % 2 else "BiasGelu", [f"{name}.u", weight(f"{name}.up_bias", 4 * hidden)],
                             [f"{name}.g"], f"{name}.gelu", domain=OURS),
            helper.make_node("MatMul", [f"{name}.g", weight(f"{name}.down", 4 * hidden, hidden)], [f"{name}.d"]),
            helper.make_node("SkipLayerNormalization", [f"{name}.d", f"{name}.n", *norm(f"{name}.second"),
                             weight(f"{name}.down_bias", hidden)], [f"h{at + 1}"], f"{name}.norm2", domain=OURS),
        ]  # fmt: skip
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, (2, tokens)) for name in ("ids", "kinds", "mask")]
    outputs = [helper.make_tensor_value_info(f"h{layers}", TensorProto.FLOAT, (2, tokens, hidden))]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "bert", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(OURS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_bert_of_fused_operators() -> None:
    model = bert(layers=2, hidden=32, heads=4, tokens=12)
    generator = np.random.default_rng(0)
    given = {
        "ids": generator.integers(0, 50, (2, 12)).astype(np.int32),
        "kinds": generator.integers(0, 2, (2, 12)).astype(np.int32),
        "mask": (np.arange(12) < [[7], [12]]).astype(np.int32),
    }
    (expected,) = onnxruntime_outputs(model, given).values()
    (actual,) = load(compiled(model, "fp32")).run(given).values()
    assert relative_error(actual, expected) <= 1e-5
