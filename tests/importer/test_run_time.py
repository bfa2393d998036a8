"""Parameters that arrive at run time: any value that gives the declared shape is right, any other one faults."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from birc.compiler import compile_model
from birc.compiler.importer.importer import import_model, import_parts
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
    (unsupported,) = import_parts(open_result).host_nodes
    assert "only known at run time" in unsupported.reason


def test_more_candidates_than_are_computed() -> None:
    shape = ", ".join(["1"] * 12)
    crowded = model(f"(float[{shape}] x, int64[6] axes) => (float[{shape}] y)", "y = ReduceSum(x, axes)")
    (unsupported,) = import_parts(crowded).host_nodes
    assert "924 lists of axes" in unsupported.reason


def test_shape_is_read_off_a_result_further_on() -> None:
    chain = model(
        "(float[2, 3] x, int64[1] axes) => (float[2, 1] y)", "s = ReduceSum(x, axes) l = Log(s) y = CastLike(l, x)"
    )
    x, axes = np.ones((2, 3), np.float32), np.array([1])
    np.testing.assert_allclose(run_graph(import_model(chain), {"x": x, "axes": axes})["y"], np.log([[3], [3]]), 1e-6)


ROW = np.arange(8, dtype=np.float32)
CONTRADICTIONS = (
    ("(float[8] x, int64[2] p) => (float[2, 4] y)", "y = Reshape(x, p)", [(4, 2), (-1, -1), (2, 0), (2, 5)]),
    ("(float[8] x, int64[2] p) => (float[3, 8] y)", "y = Expand(x, p)", [(1, 8), (3, 4), (4, 8)]),
    ("(float[8] x, int64[1] p) => (float[16] y)", "y = Tile(x, p)", [(1,), (3,)]),
    ("(float[8] x, int64[1] p) => (float[1, 8] y)", "y = Unsqueeze(x, p)", [(1,), (-1,), (2,)]),
    ("(float[8] x, int64[1] p) => (float[8, 1] y)", "y = Unsqueeze(x, p)", [(0,), (-2,)]),
    ("(int64[2] p) => (float[2, 3] y)", "y = ConstantOfShape(p)", [(3, 2), (2, 4)]),
    ("(float[8] x, int64[2] p) => (float[3] y, float[5] z)", "y, z = Split(x, p)", [(5, 3), (3, 4)]),
    ("(float[8] x, int64[2] p) => (float[12] y)", "y = Pad(x, p)", [(3, 2), (0, 3), (-1, 4)]),
    ("(int64 s, int64 e, int64 d) => (int64[3] y)", "y = Range(s, e, d)",
     [(0, 4, 1), (0, 2, 1), (0, 3, 0), (0, 3, -1)]),
)  # fmt: skip


@pytest.mark.parametrize(
    ("signature", "node", "values"),
    [(signature, node, values) for signature, node, lists in CONTRADICTIONS for values in lists],
)
def test_a_value_that_gives_another_shape_faults(signature: str, node: str, values: tuple[int, ...]) -> None:
    package = compile_model(model(signature, node))
    assert package is not None
    session = load(package)
    parts = iter(values)
    given = {
        port.name: ROW
        if port.name == "x"
        else np.array(values).reshape(port.shape)
        if port.name == "p"
        else np.array(next(parts))
        for port in session.inputs
    }
    with pytest.raises(BircError, match="an indexed load has the index"):
        session.run(given)


SLICE = model(
    "(float[8] x, int64[1] s, int64[1] e, int64[1] a, int64[1] d) => (float[3] y)", "y = Slice(x, s, e, a, d)"
)


@pytest.mark.parametrize(
    "values",
    [(2, 5, 0, 1), (-3, 100, -1, 1), (1, 7, 0, 2), (1, 6, 0, 2), (7, 1, 0, -2), (2, -100, 0, -1), (99, 4, 0, -1)],
)
def test_every_slice_of_the_declared_size_is_right(values: tuple[int, int, int, int]) -> None:
    given = {"x": ROW, **{name: np.array([value]) for name, value in zip("sead", values, strict=True)}}
    expected = ReferenceEvaluator(SLICE).run(None, given)[0]
    assert expected.shape == (3,)
    np.testing.assert_array_equal(load(compile_model(SLICE)).run(given)["y"], expected)


@pytest.mark.parametrize(
    "values", [(2, 6, 0, 1), (2, 4, 0, 1), (2, 5, 1, 1), (2, 5, -2, 1), (2, 5, 0, 0), (2, 5, 0, -1), (0, 8, 0, 2)]
)
def test_a_slice_of_another_size_faults(values: tuple[int, int, int, int]) -> None:
    given = {"x": ROW, **{name: np.array([value]) for name, value in zip("sead", values, strict=True)}}
    with pytest.raises(BircError, match="an indexed load has the index"):
        load(compile_model(SLICE)).run(given)


def test_an_axis_without_a_cut_keeps_its_size() -> None:
    signature = "(float[2, 8] x, int64[1] s) => (float[2, 4] y)"
    wrong = model(signature, "axis = Constant<value_ints = [0]>() y = Slice(x, s, s, axis)")
    (unsupported,) = import_parts(wrong).host_nodes
    assert "an axis that is not cut" in unsupported.reason
