"""Counts, depths, axes and indices of run time: right ones agree with ONNX's reference, others fault on the device."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from birc.compiler import compile_model
from birc.runtime import load
from birc.runtime.errors import BircError

ROWS = np.array([[3, -1, 4, 1], [5, 9, -2, 6]], np.float32)


def model(signature: str, node: str, opset: int = 18) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> g {signature} {{ [the_node] {node} }}')


TOP = model("(float[2, 4] x, int64[1] k) => (float[2, 3] y, int64[2, 3] i)", "y, i = TopK(x, k)")
HOT = model("(int64[2] x, int64 k, float[2] v) => (float[2, 3] y)", "y = OneHot(x, k, v)")
SUMS = model("(float[2, 4] x, int64 k) => (float[2, 4] y)", "y = CumSum<reverse = 1>(x, k)")
NONZERO = model("(float[2, 4] x) => (int64[2, 3] y)", "y = NonZero(x)")
COMPRESS = model("(float[2, 4] x, bool[4] k) => (float[2, 2] y)", "y = Compress<axis = 1>(x, k)")
UNIQUE = model("(float[8] x) => (float[3] y)", "y = Unique(x)")
ELEMENTS = model("(float[2, 4] x, int64[2, 1] k) => (float[2, 1] y)", "y = GatherElements<axis = 1>(x, k)")
SCATTER = model(
    "(float[2, 4] x, int64[2, 1] k, float[2, 1] v) => (float[2, 4] y)", "y = ScatterElements<axis = 1>(x, k, v)"
)
CACHE = model(
    "(float[2, 4, 1] x, float[2, 2, 1] v, int64[2] k) => (float[2, 4, 1] y)", "y = TensorScatter(x, v, k)", opset=24
)
SPARSE = np.where(ROWS > 4, ROWS, 0)
VALUES = np.array([0.5, 7], np.float32)


def at(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


RIGHT = (
    (TOP, {"x": ROWS, "k": at(3)}),
    (HOT, {"x": at(1, -1), "k": np.array(3), "v": VALUES}),
    (SUMS, {"x": ROWS, "k": np.array(-2)}),
    (SUMS, {"x": ROWS, "k": np.array(1)}),
    (NONZERO, {"x": SPARSE}),
    (COMPRESS, {"x": ROWS, "k": np.array([False, True, False, True])}),
    (UNIQUE, {"x": np.array([2, 5, 2, -1, 5, 5, 2, -1], np.float32)}),
    (ELEMENTS, {"x": ROWS, "k": at(3, -4).reshape(2, 1)}),
    (SCATTER, {"x": ROWS, "k": at(3, -4).reshape(2, 1), "v": VALUES.reshape(2, 1)}),
    (CACHE, {"x": ROWS[:, :, None], "v": ROWS[:, 2:, None], "k": at(2, 0)}),
)
WRONG = (
    (TOP, {"x": ROWS, "k": at(2)}),
    (HOT, {"x": at(1, -1), "k": np.array(4), "v": VALUES}),
    (SUMS, {"x": ROWS, "k": np.array(2)}),
    (NONZERO, {"x": ROWS}),
    (COMPRESS, {"x": ROWS, "k": np.array([False, True, True, True])}),
    (UNIQUE, {"x": np.array([2, 5, 2, -1, 5, 5, 2, 0], np.float32)}),
    (UNIQUE, {"x": np.array([2, 5, 2, 5, 5, 5, 2, np.nan], np.float32)}),
    (ELEMENTS, {"x": ROWS, "k": at(4, 0).reshape(2, 1)}),
    (ELEMENTS, {"x": ROWS, "k": at(0, -5).reshape(2, 1)}),
    (SCATTER, {"x": ROWS, "k": at(4, 0).reshape(2, 1), "v": VALUES.reshape(2, 1)}),
    (CACHE, {"x": ROWS[:, :, None], "v": ROWS[:, 2:, None], "k": at(2, 3)}),
)


def identify(entry: object) -> str:
    return entry.graph.node[0].op_type if isinstance(entry, onnx.ModelProto) else ""


@pytest.mark.parametrize(("proto", "given"), RIGHT, ids=identify)
def test_what_was_declared_is_computed(proto: onnx.ModelProto, given: dict[str, np.ndarray]) -> None:
    expected = ReferenceEvaluator(proto).run(None, given)
    found = load(compile_model(proto)).run(given)
    for output, reference in zip(proto.graph.output, expected, strict=True):
        np.testing.assert_allclose(found[output.name], reference, rtol=1e-5)


@pytest.mark.parametrize(("proto", "given"), WRONG, ids=identify)
def test_anything_else_faults(proto: onnx.ModelProto, given: dict[str, np.ndarray]) -> None:
    with pytest.raises(BircError, match="an indexed load has the index"):
        load(compile_model(proto)).run(given)
