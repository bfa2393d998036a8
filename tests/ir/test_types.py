"""Tensor types and constants."""

from __future__ import annotations

import math

import numpy as np
import pytest

from birc.compiler.ir.errors import InvalidIRError, TypeRuleError
from birc.compiler.ir.graph import Constant, Graph, Node, Value
from birc.compiler.ir.ops.numeric import erf
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import dtype

F32 = dtype("f32")


@pytest.mark.parametrize(
    ("type", "text"),
    [
        (TensorType(F32, ()), "f32[]"),
        (TensorType(F32, (1, 64, 56, 56)), "f32[1,64,56,56]"),
        (TensorType(dtype("bf16"), (1, 64, 56, 56), (0, 2, 3, 1)), "bf16[1,64,56,56]{0,2,3,1}"),
        (TensorType(F32, ("N", "a b", "nan")), 'f32[N,"a b","nan"]'),
        (TensorType(F32, (2, 3), (0, 1)), "f32[2,3]"),
    ],
)
def test_text(type: TensorType, text: str) -> None:
    assert str(type) == text


def test_sizes() -> None:
    type = TensorType(dtype("i4"), (3, 5))
    assert (type.rank, type.num_elements, type.num_bytes, type.is_static) == (2, 15, 8, True)
    symbolic = TensorType(F32, ("N", 5))
    assert not symbolic.is_static
    with pytest.raises(TypeRuleError, match=r"dimension 'N' has no size yet .*--dim N=SIZE"):
        _ = symbolic.num_bytes


def test_layout_is_no_part_of_the_logical_type() -> None:
    type = TensorType(F32, (2, 3), (1, 0))
    assert type != TensorType(F32, (2, 3))
    assert type.logical == TensorType(F32, (2, 3), (0, 1)) == TensorType(F32, (2, 3))


@pytest.mark.parametrize(("shape", "layout"), [((-1,), None), (("",), None), ((2, 3), (0, 0)), ((2,), (0, 1))])
def test_impossible_types_are_refused(shape: tuple[int | str, ...], layout: tuple[int, ...] | None) -> None:
    with pytest.raises(TypeRuleError):
        TensorType(F32, shape, layout)


def test_splats_take_no_memory() -> None:
    splat = Constant.splat(1.5, TensorType(dtype("bf16"), (1000, 1000, 1000)))
    assert splat.is_splat
    assert splat.data.base is not None
    assert not Constant.of(np.ones((2, 2), np.float32)).is_splat
    assert not Constant.of(np.ones((), np.float32)).is_splat


def test_constant_data_has_its_type() -> None:
    with pytest.raises(InvalidIRError, match=r"data float32\[2\] is not of type f32\[3\]"):
        Constant(TensorType(F32, (3,)), np.ones(2, np.float32))


def test_graph_knows_producers_and_users() -> None:
    type = TensorType(F32, (2,))
    neg = Node("neg", ("x",), (Value("y", type),))
    square = Node("mul", ("y", "y"), (Value("z", type),))
    graph = Graph("net", (Value("x", type),), ("z",), (neg, square))
    assert graph.producer("z") is square
    assert graph.producer("x") is None
    assert graph.users("y") == (square,)
    assert graph.users("z") == ()
    assert graph.input_types(square) == (type, type)
    with pytest.raises(InvalidIRError, match="no value %w"):
        graph.type_of("w")
    with pytest.raises(TypeError):
        neg.attributes["alpha"] = 1.0  # type: ignore[index]


def test_error_function_against_the_standard_library() -> None:
    x = np.concatenate([np.linspace(-7, 7, 20001), np.logspace(-300, 1, 500), [0.0, -0.0, np.inf, -np.inf]])
    exact = np.array([math.erf(value) for value in x])
    np.testing.assert_allclose(erf(x), exact, rtol=5e-16)
    single = x.astype(np.float32)
    rounded = np.array([math.erf(value) for value in single]).astype(np.float32)
    np.testing.assert_array_max_ulp(erf(single), rounded, 1)
    assert np.isnan(erf(np.array([np.nan]))).all()
    assert np.signbit(erf(np.array([-0.0]))).all()
