"""Nodes of operator sets 1 to 6, whose forms ONNX has changed since, against numpy and onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from lowering_case import F32, I64, f32
from networks import onnxruntime_outputs
from onnx import helper, numpy_helper

from birc.compiler.importer.importer import import_model, import_parts
from birc.compiler.importer.placement import HostPart
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.passes.lower.lower import device_problem
from birc.runtime.errors import BadModelError, UnsupportedError

X = f32(2, 3, 4)
Y = f32(3)
BITS = np.array([[True, False, True], [False, False, True]])
IMAGE = f32(2, 3, 4, 4)


def model_of(
    opset: int, op: str, inputs: Sequence[np.ndarray], attributes: Mapping[str, Any], results: int = 1,
    known: Sequence[int] = (),
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:  # fmt: skip
    names = [f"i{place}" for place in range(len(inputs))]
    outputs = [f"o{place}" for place in range(results)]
    given = dict(zip(names, inputs, strict=True))
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, name="old", **attributes)],
        "old",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in given.items()
        ],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(inputs[place], names[place]) for place in known],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)
    known_names = {names[place] for place in known}
    return model, {name: array for name, array in given.items() if name not in known_names}


def outputs(*arguments: Any, **options: Any) -> list[np.ndarray]:
    model, given = model_of(*arguments, **options)
    return list(run_graph(import_model(model), given).values())


AXIS_1 = Y[None, :, None]
BROADCAST: list[tuple[int, str, Sequence[np.ndarray], dict[str, Any], np.ndarray]] = [
    (6, "Add", (X, Y), {"broadcast": 1, "axis": 1}, X + AXIS_1),
    (1, "Add", (X, Y), {"broadcast": 1, "axis": 1, "consumed_inputs": [0, 0]}, X + AXIS_1),
    (6, "Sub", (X, Y), {"broadcast": 1, "axis": -2}, X - AXIS_1),
    (6, "Mul", (X, f32(4)), {"broadcast": 1}, X * f32(4)),
    (6, "Div", (X, f32(2, 3)), {"broadcast": 1, "axis": 0}, X / f32(2, 3)[:, :, None]),
    (1, "Mul", (X, f32(2, 3, 4)), {}, X * f32(2, 3, 4)),
    (6, "Add", (X, f32(1, 1, 1, 1)), {"broadcast": 1}, X + f32(1, 1, 1, 1)[0]),
    (6, "Pow", (np.abs(X), np.array(2.0, F32)), {"broadcast": 1}, np.abs(X) ** 2),
    (1, "Less", (X, Y), {"broadcast": 1, "axis": 1}, X < AXIS_1),
    (1, "Greater", (X, Y), {"broadcast": 1, "axis": 1}, X > AXIS_1),
    (1, "Equal", (np.arange(6, dtype=np.int32).reshape(2, 3), np.array([1, 5], np.int32)),
     {"broadcast": 1, "axis": 0}, np.array([[False, True, False], [False, False, True]])),
    (1, "And", (BITS, np.array([True, False])), {"broadcast": 1, "axis": 0}, BITS & [[True], [False]]),
    (1, "Or", (BITS, np.array([True, False])), {"broadcast": 1, "axis": 0}, BITS | [[True], [False]]),
    (1, "Xor", (BITS, np.array([True, False])), {"broadcast": 1, "axis": 0}, BITS ^ [[True], [False]]),
]  # fmt: skip
SCALES, SHIFTS, MEANS, VARIANCES = f32(3), f32(1, 3)[0], f32(3, 1)[:, 0], np.abs(f32(3, 1, 1)[:, 0, 0]) + 1
CHANNELS = (slice(None), None, None)


def normal(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return (IMAGE - mean) / np.sqrt(variance + 1e-5) * SCALES[CHANNELS] + SHIFTS[CHANNELS]


STATISTICS = (IMAGE, SCALES, SHIFTS, MEANS, VARIANCES)
OTHERS: list[tuple[int, str, Sequence[np.ndarray], dict[str, Any], np.ndarray, tuple[int, ...]]] = [
    (6, "BatchNormalization", STATISTICS, {"is_test": 1}, normal(MEANS[CHANNELS], VARIANCES[CHANNELS]), ()),
    (1, "BatchNormalization", STATISTICS, {"is_test": 1, "consumed_inputs": [0, 0, 0, 1, 1]},
     normal(MEANS[CHANNELS], VARIANCES[CHANNELS]), ()),
    (6, "BatchNormalization", STATISTICS, {},
     normal(IMAGE.mean((0, 2, 3), keepdims=True), IMAGE.var((0, 2, 3), keepdims=True)), ()),
    (6, "PRelu", (IMAGE, Y), {}, np.where(IMAGE < 0, IMAGE * Y[CHANNELS], IMAGE), ()),
    (1, "PRelu", (IMAGE, Y[:1]), {"consumed_inputs": [0, 0]}, np.where(IMAGE < 0, IMAGE * Y[0], IMAGE), ()),
    (1, "Dropout", (X,), {"is_test": 1, "ratio": 0.7}, X, ()),
    (6, "Dropout", (X,), {"is_test": 1}, X, ()),
    (1, "Cast", (X,), {"to": "INT32"}, X.astype(np.int32), ()),
    (5, "Cast", (X,), {"to": "bool"}, X.astype(bool), ()),
    (1, "Concat", (X, X), {}, np.concatenate([X, X], 1), ()),
    (3, "Concat", (X, X), {}, np.concatenate([X, X], 1), ()),
    (1, "Pad", (X,), {"paddings": [0, 1, 0, 0, 0, 2], "value": 3.0},
     np.pad(X, ((0, 0), (1, 0), (0, 2)), constant_values=3.0), ()),
    (1, "LpPool", (IMAGE,), {"kernel_shape": [2, 2], "strides": [2, 2], "p": 2.0},
     np.sqrt((IMAGE.reshape(2, 3, 2, 2, 2, 2) ** 2).sum((3, 5))), ()),
    (1, "GlobalLpPool", (IMAGE,), {"p": 1.0}, np.abs(IMAGE).sum((2, 3), keepdims=True), ()),
    (1, "Reshape", (X,), {"shape": [-1, 3], "consumed_inputs": [0]}, X.reshape(-1, 3), ()),
    (5, "Reshape", (X, np.array([4, 6], I64)), {}, X.reshape(4, 6), (1,)),
    (1, "Selu", (X,), {}, 1.0507 * np.where(X > 0, X, 1.6732 * (np.exp(X) - 1)), ()),
    (1, "Tile", (X, np.array([2], F32), np.array([1], F32)), {}, np.tile(X, (1, 2, 1)), (1, 2)),
    (1, "Upsample", (IMAGE,), {"height_scale": 2.0, "width_scale": 1.0}, IMAGE.repeat(2, 2), ()),
    (6, "Gemm", (f32(2, 3), f32(3, 5), f32(5)), {"broadcast": 1}, f32(2, 3) @ f32(3, 5) + f32(5), ()),
    (1, "Clip", (X,), {"min": -0.5, "max": 0.5, "consumed_inputs": [0]}, X.clip(-0.5, 0.5), ()),
    (1, "Relu", (X,), {"consumed_inputs": [0]}, X.clip(0), ()),
]  # fmt: skip


@pytest.mark.parametrize(("opset", "op", "inputs", "attributes", "expected"), BROADCAST)
def test_operands_meet_at_the_axis(
    opset: int, op: str, inputs: Sequence[np.ndarray], attributes: dict[str, Any], expected: np.ndarray
) -> None:
    (actual,) = outputs(opset, op, inputs, attributes)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert actual.dtype == expected.dtype


@pytest.mark.parametrize(("opset", "op", "inputs", "attributes", "expected", "known"), OTHERS)
def test_old_form(
    opset: int,
    op: str,
    inputs: Sequence[np.ndarray],
    attributes: dict[str, Any],
    expected: np.ndarray,
    known: tuple[int, ...],
) -> None:
    (actual,) = outputs(opset, op, inputs, attributes, known=known)
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-6)
    assert actual.dtype == expected.dtype


@pytest.mark.parametrize("given_as_input", [True, False])
def test_parts_of_split_are_an_input_or_an_attribute(given_as_input: bool) -> None:
    sizes = np.array([1, 3], F32)
    inputs = (X, sizes) if given_as_input else (X,)
    attributes: dict[str, Any] = {"axis": 2} if given_as_input else {"axis": 2, "split": [1, 3]}
    first, second = outputs(1, "Split", inputs, attributes, results=2, known=(1,) if given_as_input else ())
    np.testing.assert_array_equal(first, X[:, :, :1])
    np.testing.assert_array_equal(second, X[:, :, 1:])


@pytest.mark.parametrize(("op", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_recurrent_network_drops_what_is_gone(op: str, gates: int) -> None:
    arrays = (f32(5, 2, 3), f32(1, gates * 4, 3), f32(1, gates * 4, 4))
    (actual,) = outputs(3, op, arrays, {"hidden_size": 4, "output_sequence": 1})
    modern, given = model_of(7, op, arrays, {"hidden_size": 4})
    np.testing.assert_allclose(actual, onnxruntime_outputs(modern, given)["o0"], rtol=1e-5, atol=1e-6)


def test_results_of_training_that_nobody_reads() -> None:
    model, given = model_of(6, "BatchNormalization", STATISTICS, {"is_test": 1}, results=1)
    model.graph.node[0].output.extend(["mean_out", "variance_out", "saved_mean", "saved_variance"])
    (actual,) = run_graph(import_model(model), given).values()
    np.testing.assert_allclose(actual, normal(MEANS[CHANNELS], VARIANCES[CHANNELS]), rtol=2e-5, atol=1e-6)


def test_form_for_the_host() -> None:
    """No instruction computes in float64."""
    wide = X.astype(np.float64)
    model, _ = model_of(6, "Add", (wide, wide[0, 0]), {"broadcast": 1})
    (part,) = import_parts(model, device_problem=device_problem).parts
    assert isinstance(part, HostPart)
    (call,) = part.calls
    assert call.opsets[""] == 7
    assert not call.proto.attribute


REFUSED: list[tuple[int, str, Sequence[np.ndarray], dict[str, Any], type[Exception], str]] = [
    (6, "Add", (X, Y), {}, BadModelError, "broadcast"),
    (6, "Add", (X, Y), {"broadcast": 1, "axis": 2}, BadModelError, "axis 2"),
    (6, "Add", (X, Y), {"broadcast": 1, "axis": 9}, BadModelError, "axis 9"),
    (6, "Add", (Y, X), {"broadcast": 1}, BadModelError, "axis"),
    (6, "PRelu", (IMAGE, f32(2)), {}, BadModelError, "2 slopes"),
    (5, "Cast", (X,), {"to": "QUATERNION"}, BadModelError, "QUATERNION"),
    (1, "Upsample", (IMAGE,), {"height_scale": 0.0, "width_scale": 1.0}, BadModelError, "height_scale"),
    (1, "GlobalLpPool", (IMAGE,), {"p": 2.5}, UnsupportedError, "2.5"),
    (6, "Dropout", (X,), {}, UnsupportedError, "random"),
    (6, "Erf", (X,), {}, UnsupportedError, "operator set 6"),
]


@pytest.mark.parametrize(("opset", "op", "inputs", "attributes", "error", "word"), REFUSED)
def test_what_has_no_new_form(
    opset: int, op: str, inputs: Sequence[np.ndarray], attributes: dict[str, Any], error: type[Exception], word: str
) -> None:
    model, _ = model_of(opset, op, inputs, attributes)
    with pytest.raises(error, match=word) as caught:
        import_model(model)
    assert "old" in str(caught.value)
