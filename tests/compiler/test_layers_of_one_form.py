"""Graphs of many kernels of one form: what such kernels have in common is found as often for few as for many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from birc.codegen import kernel_code
from birc.compiler import compile_model
from birc.compiler.ir import plan_verify, view_overlap
from birc.compiler.passes import chunk, split_search, tile
from birc.compiler.passes.split_search import BEAM_WIDTH, MOST_OPTIONS
from birc.runtime.timing import kernels as timing_kernels

WIDTH = 192


def chain(products: int) -> onnx.ModelProto:
    """Products of a matrix with one weight after the other."""
    random = np.random.default_rng(0)
    weights = [(random.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32) for _ in range(products)]
    names = ["x", *(f"y{number}" for number in range(products))]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[n], f"w{n}"], [names[n + 1]]) for n in range(products)],
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [WIDTH, WIDTH])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [WIDTH, WIDTH])],
        [numpy_helper.from_array(weight, f"w{number}") for number, weight in enumerate(weights)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


ONCE_A_FORM: tuple[tuple[ModuleType, str], ...] = (
    (plan_verify, "kernel_problems"),
    (plan_verify, "tiling_problems"),
    (kernel_code, "emit_kernel"),
    (view_overlap, "overlaps"),
    (tile, "_solve"),
    (timing_kernels, "lead"),
    (timing_kernels, "walk"),
)
"""What is asked of a form, and where."""


def counted(counts: Counter[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        counts[name] += 1
        return function(*arguments, **named)

    return call


def asked(products: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the compiler calls each of these functions for a chain."""
    counts: Counter[str] = Counter()
    with monkeypatch.context() as patch:
        for module, name in ONCE_A_FORM:
            patch.setattr(module, name, counted(counts, name, getattr(module, name)))
        patch.setattr(chunk, "cut_into", counted(counts, "cut_into", chunk.cut_into))
        compile_model(chain(products), precision="bf16", stop_after="codegen")
    return counts


def test_more_layers_ask_for_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = asked(6, monkeypatch), asked(18, monkeypatch)
    assert few == many
    assert few.keys() == {name for _, name in ONCE_A_FORM}


def test_what_breaks_ties_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []

    def state(cost: float, order: int, *others: Any) -> Any:
        orders.append(order)
        return made(cost, order, *others)

    made = split_search._State
    monkeypatch.setattr(split_search, "_State", state)
    compile_model(chain(30), precision="bf16", stop_after="partition")
    assert len(orders) > 30
    assert max(orders) < BEAM_WIDTH * MOST_OPTIONS
