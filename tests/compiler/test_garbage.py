"""Garbage is looked for less often while a model is compiled, and as before afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import onnx
import pytest
from onnx import TensorProto, helper

from birc.compiler import compile_model
from birc.compiler.garbage import YOUNG_OBJECTS
from birc.runtime.errors import BircError


@pytest.fixture
def threshold() -> Iterator[tuple[int, int, int]]:
    """One that nobody else sets."""
    before = gc.get_threshold()
    gc.set_threshold(701, 11, 12)
    yield 701, 11, 12
    gc.set_threshold(*before)


def model(op: str) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_it_is_as_before_when_a_model_is_compiled(threshold: tuple[int, int, int]) -> None:
    seen = set()
    compile_model(model("Relu"), progress=lambda _: seen.add(gc.get_threshold()))
    assert seen == {(YOUNG_OBJECTS, *threshold[1:])}
    assert gc.get_threshold() == threshold


def test_it_is_as_before_when_that_fails(threshold: tuple[int, int, int]) -> None:
    with pytest.raises(BircError):
        compile_model(model("NoSuchOperator"))
    assert gc.get_threshold() == threshold


@pytest.mark.parametrize("first", [0, 5 * YOUNG_OBJECTS])
def test_whoever_looks_seldom_or_never_still_does(first: int, threshold: tuple[int, int, int]) -> None:
    gc.set_threshold(first, *threshold[1:])
    seen = set()
    compile_model(model("Relu"), progress=lambda _: seen.add(gc.get_threshold()))
    assert seen == {(first, *threshold[1:])}
