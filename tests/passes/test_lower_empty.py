"""Tensors without elements: they are not on the device, and what is made of them is right."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker
from onnx import parser
from onnx.reference import ReferenceEvaluator
from pipeline import compile_network

from birc.compiler.importer.importer import import_model
from birc.compiler.ir.graph import Graph
from birc.compiler.passes.canonicalize import canonicalize

MODELS = (
    "(float[2, 0] x, float[2, 3] z) => (float[2, 3] y, float[2, 0] n) { n = Neg(x) y = Concat<axis = 1>(x, z) }",
    "(float[2, 0, 4] x) => (float[1, 1, 1] y) { y = ReduceMax(x) }",
    "(float[2, 0, 4] x) => (float[2, 1, 4] y) { a = Constant<value_ints = [1]>() y = ReduceMean(x, a) }",
    "(float[2, 0, 4] x) => (float[2, 1, 4] y) { a = Constant<value_ints = [1]>() y = ReduceLogSumExp(x, a) }",
    "(float[2, 0, 4] x) => (float[3, 0, 4] y) { p = Constant<value_ints = [0, 0, 0, 1, 0, 0]>() y = Pad(x, p) }",
    "(float[2, 0] x, float[0, 5] z) => (float[2, 5] y) { y = MatMul(x, z) }",
    "(float[2, 0] x, float[0, 5] z, float[5] b) => (float[2, 5] y) { y = Gemm(x, z, b) }",
    "(float[2, 0] x, float[2, 3] z) => (float[2, 0] y, float[2, 3] w) { y = Abs(x) w = Abs(z) }",
    "(float[4, 0] x) => (float[0, 4] y) { y = Transpose(x) }",
    "(float[4] x, int64[0] i) => (float[0] y) { y = Gather(x, i) }",
    "(float[4] x, int64[0] axes) => (float[1] y) { y = ReduceSum(x, axes) }",
)


def imported(text: str) -> tuple[Graph, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The graph, inputs for it, and what onnx makes of them."""
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> g {text}')
    graph = import_model(model)
    generator = np.random.default_rng(1)
    given = {v.name: generator.normal(size=v.type.sizes).astype(v.type.dtype.numpy) for v in graph.inputs}
    with np.errstate(all="ignore"):
        results = ReferenceEvaluator(model).run(None, given)
    return graph, given, dict(zip(graph.outputs, results, strict=True))


@pytest.mark.parametrize("text", MODELS)
def test_only_what_has_elements_is_on_the_device(text: str) -> None:
    graph, given, expected = imported(text)
    assert {v.name: v.type.sizes for v in graph.inputs} == {name: array.shape for name, array in given.items()}
    compiled = compile_network(parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> g {text}'))
    compiled.verify()
    for port in (*compiled.program.inputs, *compiled.program.outputs):
        assert bool(port.pieces) == bool(np.prod(port.shape))
    for name, array in compiled.values(given).items():
        assert array.shape == expected[name].shape
        np.testing.assert_allclose(array, expected[name], rtol=1e-6, atol=1e-6)


def test_empty_values_in_the_middle_of_a_graph_go() -> None:
    make = GraphMaker()
    x = make.input(3, 4)
    nothing = make("slice", x, starts=(1, 0), ends=(1, 4), steps=(1, 1))
    total = make("reduce_sum", make("exp", nothing), axes=(0,), keepdims=1)
    graph = make.graph(make("add", x, make("concat", make("neg", nothing), total, axis=0)))
    canonical = canonicalize(graph)
    assert [node.op for node in canonical.nodes] == ["add"]


def test_large_sums_of_nothing_take_no_memory() -> None:
    make = GraphMaker()
    graph = canonicalize(make.graph(make("reduce_prod", make.input(0, 1000, 1000), axes=(0,), keepdims=0)))
    (constant,) = graph.constants.values()
    assert constant.is_splat
    assert constant.data[0, 0] == 1
