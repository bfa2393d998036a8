"""Values that only the host holds, through package and session: doubles, optionals, strings with open dimensions."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper, parser

from birc.compiler import compile_model
from birc.runtime import Session, load
from birc.runtime.host import HostStepError

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'


def session(graph: str, **options: Any) -> Session:
    return load(compile_model(parser.parse_model(f"{HEAD} {graph}"), **options))


def test_double_that_is_passed_on_stays_on_the_host() -> None:
    x = np.array([0.1, -3.0])
    outputs = session("g (double[2] x) => (double[2] y, double[2] z) { y = Squeeze(x) z = Identity(x) }").run({"x": x})
    np.testing.assert_array_equal(outputs["y"], x)
    np.testing.assert_array_equal(outputs["z"], x)


def test_double_constants_are_outputs_beside_results_of_the_device() -> None:
    model = """g (float[2] x) => (double[2] y, float[2] z, double[2] w) <double[2] w = {3.0, 4.0}> {
        y = Constant <value = double[2] {0.1, 2.0}> ()
        z = Neg(x)
    }"""
    outputs = session(model).run({"x": np.array([1, 2], np.float32)})
    np.testing.assert_array_equal(outputs["y"], [0.1, 2.0])
    np.testing.assert_array_equal(outputs["z"], [-1.0, -2.0])
    np.testing.assert_array_equal(outputs["w"], [3.0, 4.0])
    assert outputs["y"].dtype == outputs["w"].dtype == np.float64


def test_optional_holds_what_it_was_given() -> None:
    model = """g (float[2] x) => (float[2] y, bool there, optional(float[2]) o) {
        o = Optional(x)
        y = OptionalGetElement(o)
        there = OptionalHasElement(o)
    }"""
    x = np.array([1, 2], np.float32)
    outputs = session(model).run({"x": x})
    np.testing.assert_array_equal(outputs["y"], x)
    np.testing.assert_array_equal(outputs["o"], x)
    assert outputs["there"]


def test_open_dimensions_of_strings_are_fixed() -> None:
    graph = "g (string[n] x, float[n] f) => (string[n] y, float[n] g) { y = StringConcat(x, x) g = Neg(f) }"
    made = session(graph, dims={"n": 2})
    assert [tensor.shape for tensor in made.inputs] == [(2,), (2,)]
    outputs = made.run({"x": np.array(["a", "b"], object), "f": np.array([1, 2], np.float32)})
    assert outputs["y"].tolist() == ["aa", "bb"]


def test_open_dimension_of_strings_alone_can_be_fixed() -> None:
    made = session("g (string[n] x) => (string[n] y) { y = StringConcat(x, x) }", dims={"n": 1})
    assert made.run({"x": np.array(["a"], object)})["y"].tolist() == ["aa"]


def test_library_that_an_operator_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = importlib.import_module("onnx.reference.ops.op_image_decoder")

    def run(*_: Any, **__: Any) -> None:
        raise ImportError("Pillow must be installed")

    monkeypatch.setattr(decoder.ImageDecoder, "_run", run)
    made = session("g (uint8[n] x) => (uint8[h, w, c] y) { y = ImageDecoder(x) }", dims={"n": 4})
    with pytest.raises(HostStepError, match=r"ImageDecoder.*Pillow must be installed \(install the library"):
        made.run({"x": np.zeros(4, np.uint8)})


def test_doubles_made_of_constants_are_computed_when_compiled() -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((2, 40))
    graph = "g (double[40, 2] x) => (double[2, 2] y) { scaled = Mul(table, half) t = Unsqueeze(scaled, first) "
    graph += "s = Squeeze(t, first) y = MatMul(s, x) }"
    model = parser.parse_model(f"{HEAD} {graph}")
    known = {"table": table, "half": np.array(0.5), "first": np.array([0])}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in known.items())
    made = load(compile_model(model))
    assert [node.op_type for node in made.package.manifest.first.host_nodes] == ["MatMul"]
    x = rng.standard_normal((40, 2))
    np.testing.assert_allclose(made.run({"x": x})["y"], (table * 0.5) @ x, rtol=1e-15)


def test_sequence_of_constants_is_an_output_in_an_old_operator_set() -> None:
    model = """<ir_version: 8, opset_import: ["" : 13]>
    g (float[2] f) => (seq(float[2]) s, float[2] g) <bool c = {1}, float[2] x = {1.0, 2.0}> {
        s = If (c) <then_branch = a () => (seq(float[2]) t) { t = SequenceConstruct(x, x) },
                    else_branch = b () => (seq(float[2]) e) { e = SequenceConstruct(x) }>
        g = Neg(f)
    }"""
    outputs = load(compile_model(parser.parse_model(model))).run({"f": np.array([1, 2], np.float32)})
    np.testing.assert_array_equal(outputs["s"], [[1, 2], [1, 2]])
