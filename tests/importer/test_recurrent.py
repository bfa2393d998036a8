"""Recurrent operators: what they become, what they refuse, outputs that nobody asks for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from lowering_case import F32, case, f32
from lowering_cases_recurrent import HIDDEN, SIZE, STEPS, recurrent
from networks import onnxruntime_outputs
from onnx import helper

from birc.compiler.driver import compile_model
from birc.compiler.importer.importer import import_model, import_parts
from birc.compiler.ir.interpreter import run_graph
from birc.runtime import load
from birc.runtime.errors import BadModelError


@pytest.mark.parametrize(("op", "products"), [("RNN", 1), ("GRU", 2), ("LSTM", 1)])
def test_inputs_of_all_steps_are_one_product_and_weights_are_shared(op: str, products: int) -> None:
    graph = import_model(recurrent(op, bias=True, initial=True).model()[0])
    matmuls = [node for node in graph.nodes if node.op == "matmul"]
    assert len(matmuls) == 1 + products * STEPS
    assert len({node.inputs[1] for node in matmuls}) == 1 + products
    assert not [node for node in graph.nodes if node.op == "transpose"]


@pytest.mark.parametrize("names", [("", "h", "c"), ("y", "", "c"), ("", "", "c"), ("", "h")])
def test_outputs_that_nobody_asks_for(names: tuple[str, ...]) -> None:
    model, given = recurrent("LSTM", bias=True, lengths=np.array([2, 4, 1], np.int32)).model()
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in names if name)
    model.graph.node[0].output[:] = names
    expected = onnxruntime_outputs(model, given)
    actual = run_graph(import_model(model), given)
    assert list(actual) == [name for name in names if name]
    for name, array in expected.items():
        np.testing.assert_allclose(actual[name], array, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "alpha", "beta"),
    [("ThresholdedRelu", [1.0], None), ("Affine", [1.0], [0.0]), ("ScaledTanh", [1.0], [1.0])],
)
def test_scales_default_to_those_of_the_operator_of_the_same_name(
    name: str, alpha: list[float], beta: list[float] | None
) -> None:
    scales = {"activation_alpha": alpha} | ({"activation_beta": beta} if beta else {})
    model, given = recurrent("RNN", activations=[name], **scales).model()
    plain, _ = recurrent("RNN", activations=[name]).model()
    expected = onnxruntime_outputs(model, given)["o0"]
    np.testing.assert_allclose(run_graph(import_model(plain), given)["o0"], expected, rtol=2e-5, atol=2e-6)


def test_long_sequences_are_refused_with_the_limit() -> None:
    entry = case("RNN", f32(5_000, 1, SIZE), f32(1, HIDDEN, SIZE), f32(1, HIDDEN, HIDDEN), hidden_size=HIDDEN)
    (refused,) = import_parts(entry.model()[0]).host_nodes
    assert refused.reason == "unrolled, its 5000 steps take more than 4000 nodes, the limit"


def test_double_precision_is_refused() -> None:
    weights = (f32(1, HIDDEN, SIZE), f32(1, HIDDEN, HIDDEN))
    arrays = [array.astype(np.float64) for array in (f32(2, 1, SIZE), *weights)]
    (refused,) = import_parts(case("RNN", *arrays, hidden_size=HIDDEN).model()[0]).host_nodes
    assert refused.reason == "its arithmetic is in f64, which the device has not"


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"activations": ["Tanh", "Tanh"]}, "2 activations; 1 for each of 1 directions"),
        ({"direction": "sideways"}, "direction 'sideways' is none of forward, reverse, bidirectional"),
        ({"hidden_size": 3}, "hidden_size is 3, the recurrent weights are for 2"),
    ],
)
def test_contradictions_are_refused(attributes: dict[str, object], message: str) -> None:
    model = recurrent("RNN").model()[0]
    node = model.graph.node[0]
    kept = [entry for entry in node.attribute if entry.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(key, value) for key, value in attributes.items())])
    with pytest.raises(BadModelError, match=message):
        import_model(model)


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_compiled_program_agrees_with_onnxruntime(op: str) -> None:
    """Both directions, with lengths that are known at run time only."""
    lengths = np.array([2, 4, 1], np.int32)
    entry = recurrent(op, bias=True, initial=True, lengths=lengths, directions=2, direction="bidirectional")
    model, given = entry.model()
    session = load(compile_model(onnx.shape_inference.infer_shapes(model), target="tiny"))
    actual = session.run({value.name: given[value.name] for value in session.inputs})
    for name, array in onnxruntime_outputs(model, given).items():
        assert array.dtype == F32
        np.testing.assert_allclose(actual[name], array, rtol=2e-3, atol=2e-4)
