"""Symbolic dimensions: fixed by name or by batch, and named when they are left over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from birc.compiler import compile_model
from birc.compiler.importer.importer import import_model
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.printer import print_graph
from birc.runtime.errors import UsageError


def model() -> onnx.ModelProto:
    """Shape arithmetic as exporters write it: flatten all but the batch, read from the input."""
    return parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        open (float[batch, rows, 4] x, float[batch, 1] z) => (float[a, b] y)
        <int64[1] minus_one = {-1}, int64[1] first = {0}> {
            [shape] s = Shape(x)
            [batch] n = Gather(s, first)
            [target] t = Concat <axis = 0> (n, minus_one)
            [flat] f = Reshape(x, t)
            [sum] y = Add(f, z)
        }
    """)


def renamed(old: str, new: str) -> onnx.ModelProto:
    result = model()
    next(node for node in result.graph.node if node.name == old).name = new
    return result


def test_dimensions_are_fixed_and_shape_arithmetic_is_folded() -> None:
    graph = import_model(model(), {"batch": 2, "rows": 3})
    assert [node.op for node in graph.nodes] == ["reshape", "add"]
    assert {fate.source: fate.fate for fate in graph.fates} == dict.fromkeys(("shape", "batch", "target"), "folded")
    assert not graph.constants
    x, z = np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.ones((2, 1), np.float32)
    np.testing.assert_array_equal(run_graph(graph, {"x": x, "z": z})["y"], x.reshape(2, 12) + 1)


def test_batch_fixes_the_first_dimension() -> None:
    graph = import_model(model(), {"rows": 3}, batch=5)
    assert [value.type.sizes for value in graph.inputs] == [(5, 3, 4), (5, 1)]


def test_left_over_dimension_is_named_with_its_input() -> None:
    with pytest.raises(UsageError, match=r"'rows' of input 'x'.*--dim rows=SIZE"):
        import_model(model(), {"batch": 2})


def test_node_that_needs_the_size_is_named() -> None:
    with pytest.raises(UsageError, match=r"'rows' of input 'x' has no size, which node 'target_shape' \(Shape\) needs"):
        import_model(renamed("shape", "target_shape"), {"batch": 2}, open_dims=True)


def test_dimensions_that_nobody_needs_stay_symbols() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 18]>
        open (float[batch, rows, 4] x, float[4, 5] w, int64[2] picked) => (float[a, b, c] y, float[d, e] z)
        <int64[1] last = {2}> {
            s = Softmax(x) t = Transpose<perm = [1, 0, 2]>(s) m = MatMul(t, w) y = Tanh(m)
            r = ReduceMax<keepdims = 0>(x, last) n = Shape<start = 2>(x) f = Cast<to = 1>(n) z = Mul(r, f)
        }
    """
    graph = import_model(parser.parse_model(text), {"batch": 2}, open_dims=True)
    assert graph.type_of("y").shape == ("rows", 2, 5)
    assert graph.type_of("z").shape == (2, "rows")
    assert "f32[2,rows,4]" in print_graph(graph)
    with pytest.raises(UsageError, match=r"'rows' of input 'x' has no size \(give it one: --dim rows=SIZE\)"):
        import_model(parser.parse_model(text), {"batch": 2})


def test_open_dimensions_are_dumped(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]> open (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }"""
    assert compile_model(parser.parse_model(text), stop_after="import", dump_ir=tmp_path) is None
    text_of_graph = (tmp_path / "00_import.ir").read_text()
    assert "%y : f32[n,4] = relu(%x)" in text_of_graph
    with pytest.raises(UsageError, match="--dim n=SIZE"):
        compile_model(parser.parse_model(text), stop_after="canonicalize")


def test_unknown_dimension_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'cols'.*batch, rows"):
        import_model(model(), {"batch": 2, "rows": 3, "cols": 4})


def test_size_must_be_positive() -> None:
    with pytest.raises(UsageError, match="'rows' cannot be 0"):
        import_model(model(), {"batch": 2, "rows": 0})


def test_batch_against_a_fixed_dimension() -> None:
    fixed = model()
    fixed.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 3
    with pytest.raises(UsageError, match=r"batch 5.*'z'.*fixed at 3 .*that of other inputs alone: --dim batch=5"):
        import_model(fixed, {"rows": 3}, batch=5)


def test_nameless_dimension_goes_by_its_place() -> None:
    nameless = model()
    for entry in nameless.graph.input:
        entry.type.tensor_type.shape.dim[0].Clear()
    with pytest.raises(UsageError, match=r"--dim x\.0=SIZE"):
        import_model(nameless, {"rows": 3})
    graph = import_model(nameless, {"rows": 3, "x.0": 2, "z.0": 2})
    assert graph.type_of("y").sizes == (2, 12)
