"""Parameters that arrive at run time: any value that gives the declared shape is right, any other one faults."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from birc.compiler import compile_model
from birc.compiler.importer.importer import import_model, try_import
from birc.compiler.ir.interpreter import run_graph
from birc.runtime import load
from birc.runtime.errors import BircError

CUBE = np.arange(27, dtype=np.float32).reshape(3, 3, 3) / 4


def model(signature: str, node: str, opset: int = 18) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> g {signature} {{ [the_node] {node} }}')


REDUCE = model("(float[3, 3, 3] x, int64[2] axes) => (float[3] y)", "y = ReduceSum<keepdims = 0>(x, axes)")


@pytest.mark.parametrize("axes", [(0, 1), (1, 0), (-1, 1), (2, 0), (-3, -2)])
def test_every_list_of_axes_is_right(axes: tuple[int, int]) -> None:
    given = {"x": CUBE, "axes": np.array(axes)}
    expected = ReferenceEvaluator(REDUCE).run(None, given)[0]
    np.testing.assert_array_equal(run_graph(import_model(REDUCE), given)["y"], expected)
    np.testing.assert_array_equal(load(compile_model(REDUCE)).run(given)["y"], expected)


@pytest.mark.parametrize("axes", [(0, 0), (0, 3), (2, -1), (-4, 0)])
def test_a_list_that_is_none_faults(axes: tuple[int, int]) -> None:
    with pytest.raises(BircError, match="an indexed load has the index 1"):
        load(compile_model(REDUCE)).run({"x": CUBE, "axes": np.array(axes)})


def test_without_a_declared_shape_the_node_is_not_lowered() -> None:
    open_result = model("(float[3, 3, 3] x, int64[2] axes) => (float[n] y)", "y = ReduceSum<keepdims = 0>(x, axes)")
    (unsupported,) = try_import(open_result).unsupported
    assert "only known at run time" in unsupported.reason


def test_more_candidates_than_are_computed() -> None:
    shape = ", ".join(["1"] * 12)
    crowded = model(f"(float[{shape}] x, int64[6] axes) => (float[{shape}] y)", "y = ReduceSum(x, axes)")
    (unsupported,) = try_import(crowded).unsupported
    assert "924 lists of axes" in unsupported.reason


def test_shape_is_read_off_a_result_further_on() -> None:
    chain = model(
        "(float[2, 3] x, int64[1] axes) => (float[2, 1] y)", "s = ReduceSum(x, axes) l = Log(s) y = CastLike(l, x)"
    )
    x, axes = np.ones((2, 3), np.float32), np.array([1])
    np.testing.assert_allclose(run_graph(import_model(chain), {"x": x, "axes": axes})["y"], np.log([[3], [3]]), 1e-6)
