"""Shapes that a model fixes by what it does with a value, and those that it declares with symbols."""

from __future__ import annotations

import onnx
import pytest
from onnx import parser

from birc.compiler.importer.dimensions import input_values
from birc.compiler.importer.inference import InferredTypes
from birc.compiler.importer.lookahead import Lookahead
from birc.compiler.importer.read import read_model


def ahead(body: str, result: str = "y") -> Lookahead:
    """Where only `result` has a known shape, [2, 3], and `s` has rank 0."""
    graph = parser.parse_graph(f"g (float[n] x) => (float[n] y) {{ {body} }}")
    return Lookahead(graph.node, {result: (2, 3)}.get, {"s": (), "v": (3,)}.get)


@pytest.mark.parametrize(
    "body",
    [
        "y = Log(x)",
        "a = Sqrt(x) b = Cast<to = 1>(a) y = CastLike(b, v)",
        "a = Mul(s, x) y = Add(a, s)",
        "y = Mul(x, x)",
        "other = Flatten(x) y = Neg(x)",
        "y = Max(s, x, s)",
        "a = Cos(x) b = Mul(s, x) c = Sin(b) y = Add(a, c)",
    ],
)
def test_shape_is_read_off_the_result(body: str) -> None:
    assert ahead(body).shape_of("x") == (2, 3)


@pytest.mark.parametrize(
    "body",
    [
        "y = Mul(x, v)",
        "y = CastLike(v, x)",
        "y = Transpose(x)",
        "y = Add(x, unknown)",
        "a = Neg(x) y = Sub(a, unknown)",
        "y = com.microsoft.Log(x)",
    ],
)
def test_shape_stays_open(body: str) -> None:
    assert ahead(body).shape_of("x") is None


def test_chain_may_be_long() -> None:
    body = " ".join(f"v{i + 1} = Neg(v{i})" for i in range(5000))
    assert ahead(body, "v5000").shape_of("v0") == (2, 3)


def inferred(text: str, dims: dict[str, int]) -> InferredTypes:
    model: onnx.ModelProto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {text}')
    read = read_model(model)
    return InferredTypes(read, input_values(read.proto.graph, dims, None).on_device)


def test_symbols_have_their_sizes_in_declared_results() -> None:
    text = "g (float[batch, 4] x, int64[2] t) => (float[batch, 2, 2] y) { y = Reshape(x, t) }"
    assert inferred(text, {"batch": 3}).shape_of("y") == (3, 2, 2)


def test_open_dimension_is_not_a_shape() -> None:
    text = "g (float[batch, 4] x, int64[2] t) => (float[other, 2] y) { y = Reshape(x, t) }"
    assert inferred(text, {"batch": 3}).shape_of("y") is None
