"""The comparison with a reference: what counts as an error, and who computes the reference."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import packages
import programs
import pytest
from onnx import TensorProto, helper

from birc.cli.compare import LIMIT_BF16, LIMIT_TF32P, compare, relative_error, require_equal
from birc.compiler import reference_outputs
from birc.runtime.errors import BadModelError, NumericMismatchError

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("values", "expected", "error"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.5], [3.0, 4.0], 0.1),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([1e-30], [0.0], INF),
        ([1.0, NAN, -INF], [1.0, NAN, -INF], 0.0),
        ([1.0, INF], [1.0, -INF], INF),
        ([1.0, 2.0], [1.0, NAN], INF),
        ([1.0, NAN], [1.0, 2.0], INF),
        ([[1.0]], [1.0], INF),
        ([], [], 0.0),
    ],
)
def test_relative_error(values, expected, error):
    found = relative_error(np.asarray(values, np.float32), np.asarray(expected, np.float64))
    assert found == pytest.approx(error)


def test_limits_follow_what_the_device_holds():
    manifest = packages.gemm_package().package.manifest
    values = {"out": np.ones((150, 70), np.float32)}
    (narrow,) = compare(manifest, values, values, None)
    assert (narrow.error, narrow.limit, narrow.is_within) == (0.0, LIMIT_BF16, True)
    wide = packages.package_of(programs.causal_sums()).package.manifest
    values = {"out": np.ones((2, 6, 1), np.float32)}
    (comparison,) = compare(wide, values, values, None)
    assert comparison.limit == LIMIT_TF32P
    (comparison,) = compare(wide, values, values, 0.25)
    assert comparison.limit == 0.25


def test_an_output_without_reference_is_named():
    manifest = packages.gemm_package().package.manifest
    with pytest.raises(BadModelError, match=r"no output 'out' \(it has y"):
        compare(manifest, {"out": np.ones(1)}, {"y": np.ones(1)}, None)


def test_the_worst_output_is_named():
    manifest = packages.gemm_package().package.manifest
    ones = np.ones((150, 70), np.float32)
    wrong = compare(manifest, {"out": ones}, {"out": 2 * ones}, None)
    with pytest.raises(NumericMismatchError, match=r"'out': relative error 0.5, the limit is 0.05"):
        require_equal(wrong)
    require_equal(compare(manifest, {"out": ones}, {"out": ones}, None))


@pytest.fixture
def doubling(tmp_path):
    """y = 2 x + w, with w an initialiser that is a graph input too, as old models have it."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["xx"]), helper.make_node("Add", ["xx", "w"], ["y"])],
        "doubling",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x", "w")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
        [onnx.numpy_helper.from_array(np.ones(3, np.float32), "w")],
    )
    path = tmp_path / "doubling.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("installed", [True, False], ids=["onnxruntime", "onnx"])
def test_either_reference_computes(doubling, monkeypatch, installed):
    if not installed:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)  # importing it fails
    found = reference_outputs(doubling, {"x": np.arange(3, dtype=np.float32)})
    np.testing.assert_array_equal(found["y"], [1, 3, 5])


@pytest.mark.parametrize("installed", [True, False], ids=["onnxruntime", "onnx"])
def test_a_reference_that_cannot_run(doubling, monkeypatch, installed):
    if not installed:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BadModelError, match="the reference model wants x, the package takes z"):
        reference_outputs(doubling, {"z": np.zeros(3, np.float32)})
    with pytest.raises(BadModelError, match="cannot run the model"):
        reference_outputs(doubling, {"x": np.zeros((2, 2), np.float32)})
