"""Scan: directions and axes of what goes in and comes out, batches of sequences with lengths, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from networks import onnxruntime_outputs
from onnx import TensorProto, helper

from birc.compiler.driver import compile_model
from birc.compiler.importer.importer import import_model
from birc.compiler.ir.interpreter import run_graph
from birc.runtime import load
from birc.runtime.errors import BadModelError

STEPS, BATCH, SIZE = 4, 3, 2
F32, I64 = np.float32, np.int64


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).uniform(-2, 2, shape).astype(F32)


def info(name: str, shape: tuple[int, ...] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def body() -> onnx.GraphProto:
    """Two states and two scanned inputs: a weighted sum of one, the largest of the other, and both differences."""
    return helper.make_graph(
        [
            helper.make_node("Mul", ["s", "factor"], ["faded"]),
            helper.make_node("Add", ["faded", "a"], ["s_next"]),
            helper.make_node("Max", ["t", "b"], ["t_next"]),
            helper.make_node("Sub", ["s_next", "outer"], ["p"]),
            helper.make_node("Sub", ["t", "b"], ["q"]),
        ],
        "body",
        [info(name, (SIZE,)) for name in ("s", "t", "a", "b")],
        [info(name, (SIZE,)) for name in ("s_next", "t_next", "p", "q")],
        [helper.make_tensor("factor", TensorProto.FLOAT, (), [0.5])],
    )


def scan_model(
    opset: int, inputs: dict[str, np.ndarray], known: tuple[str, ...] = (), **attributes: Any
) -> onnx.ModelProto:
    names = [name if name in inputs else "" for name in (("n",) if opset < 9 else ())]
    node = helper.make_node(
        "Scan", [*names, "s0", "t0", "x", "w"], ["s1", "t1", "y", "z"], body=body(), num_scan_inputs=2, **attributes
    )
    given = [
        info(name, array.shape, helper.np_dtype_to_tensor_dtype(array.dtype))
        for name, array in inputs.items()
        if name not in known
    ]
    constants = [onnx.numpy_helper.from_array(inputs[name], name) for name in known]
    outputs = [info(name, None) for name in node.output]
    graph = helper.make_graph([node], "scan", given, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def check(model: onnx.ModelProto, inputs: dict[str, np.ndarray], *, compiled: bool = False) -> None:
    given = {entry.name: inputs[entry.name] for entry in model.graph.input}
    if compiled:
        actual = load(compile_model(model, target="tiny")).run(given)
    else:
        graph = import_model(model)
        actual = run_graph(graph, {value.name: given[value.name] for value in graph.inputs})
    for name, expected in onnxruntime_outputs(model, given).items():
        np.testing.assert_allclose(actual[name], expected, rtol=1e-5, atol=1e-6)


STATES = {"s0": values(SIZE), "t0": values(SIZE)[::-1].copy(), "outer": values(SIZE) + 1}


@pytest.mark.parametrize("opset", [9, 11, 19, 25])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"scan_input_directions": [1, 0], "scan_output_directions": [0, 1]},
        {"scan_input_directions": [1, 1], "scan_output_axes": [1, 0]},
        {"scan_input_directions": [0, 1], "scan_output_axes": [-1, 1], "scan_output_directions": [1, 1]},
    ],
)
def test_directions_and_output_axes(opset: int, attributes: dict[str, list[int]]) -> None:
    if opset < 11:
        attributes = {name: [value % 2 for value in flags] for name, flags in attributes.items()}
    inputs = {**STATES, "x": values(STEPS, SIZE), "w": values(STEPS, SIZE) + 0.5}
    check(scan_model(opset, inputs, **attributes), inputs)


@pytest.mark.parametrize("compiled", [False, True])
def test_input_axes(compiled: bool) -> None:
    inputs = {**STATES, "x": values(SIZE, STEPS), "w": values(STEPS, SIZE)}
    model = scan_model(18, inputs, scan_input_axes=[-1, 0], scan_input_directions=[0, 1])
    check(model, inputs, compiled=compiled)


def batched(lengths: np.ndarray | None) -> dict[str, np.ndarray]:
    inputs = {
        "s0": values(BATCH, SIZE),
        "t0": values(BATCH, SIZE) - 1,
        "x": values(BATCH, STEPS, SIZE),
        "w": values(BATCH, STEPS, SIZE) + 0.5,
        "outer": values(SIZE),
    }
    return inputs if lengths is None else {"n": lengths, **inputs}


@pytest.mark.parametrize("directions", [[0, 0], [1, 0], [1, 1]])
@pytest.mark.parametrize("lengths", [None, [4, 4, 4], [2, 4, 1]])
@pytest.mark.parametrize("known", [False, True])
def test_each_sequence_of_a_batch_has_its_length(directions: list[int], lengths: list[int] | None, known: bool) -> None:
    inputs = batched(None if lengths is None else np.array(lengths, I64))
    model = scan_model(8, inputs, known=("n",) if known and lengths else (), directions=directions)
    check(model, inputs)


def test_a_batch_compiles() -> None:
    inputs = batched(np.array([2, 4, 1], I64))
    check(scan_model(8, inputs, directions=[1, 0]), inputs, compiled=True)


def test_nothing_to_scan_leaves_the_states() -> None:
    inputs = {**STATES, "x": values(0, SIZE), "w": values(0, SIZE)}
    graph = import_model(scan_model(18, inputs, scan_output_axes=[0, 1]))
    actual = run_graph(graph, {name: inputs[name] for name in (value.name for value in graph.inputs)})
    np.testing.assert_array_equal(actual["s1"], STATES["s0"])
    assert (actual["y"].shape, actual["z"].shape) == ((0, SIZE), (SIZE, 0))


def test_scanned_axes_must_agree() -> None:
    inputs = {**STATES, "x": values(4, SIZE), "w": values(3, SIZE)}
    with pytest.raises(BadModelError, match=r"the scanned axes have sizes \[3, 4\]"):
        import_model(scan_model(18, inputs))
