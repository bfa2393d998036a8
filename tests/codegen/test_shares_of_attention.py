"""Attention whose shares are divided by their sums behind the product with the values: values, whatever rows hold."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from machines import with_input_buffers
from pipeline import Compiled, Values, compiled_plans

from birc.compiler.ir.graph import Graph
from birc.runtime.machine import Machine, load_machine

WIDE = with_input_buffers()
ERRORS = {"model": 2e-3, "fp32": 2e-5, "bf16": 3e-2}
ROWS, DEPTH, FEATURES = 9, 16, 24


def attention(columns: int, *, heads: int = 2, shared: bool = False, rows: int = ROWS, then: str = "") -> Graph:
    """softmax(q @ k + mask) @ v, the values `shared` by the heads or not; `then` follows element by element."""
    make = GraphMaker()
    scores = make("matmul", make.input(heads, rows, DEPTH), make.input(heads, DEPTH, columns))
    shares = make("softmax", make("add", scores, make.input(rows, columns)), axis=2)
    y = make("matmul", shares, make.input(*([] if shared else [heads]), columns, FEATURES))
    return make.graph(make(then, y, make.input(FEATURES)) if then else y)


def expected(inputs: Values, then: str = "") -> np.ndarray:
    """The attention in FP64."""
    q, k, mask, v, *rest = (np.asarray(a, np.float64) for a in inputs.values())
    with np.errstate(all="ignore"):
        scores = q @ k + mask
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        y = powers / powers.sum(axis=-1, keepdims=True) @ v
    return y + rest[0] if then else y


def as_held(inputs: Values, precision: str) -> Values:
    """Inputs as a package of a precision holds them."""
    if precision != "bf16":
        return inputs
    return {name: a.astype(ml_dtypes.bfloat16).astype(np.float32) for name, a in inputs.items()}


def check(
    graph: Graph, machine: Machine = WIDE, precision: str = "model", inputs: Values | None = None, then: str = ""
) -> list[Compiled]:
    """Both engines by every plan, beside FP64."""
    inputs = as_held(random_inputs(graph) if inputs is None else inputs, precision)
    plans = list(compiled_plans(graph, machine, precision))
    for compiled in plans:
        compiled.verify()
        with np.errstate(all="ignore"):
            stepped, counts = compiled.step_counted(inputs, "random", 3)
            values, counts_of_values = compiled.values_counted(inputs)
        assert counts == counts_of_values
        for outputs in (stepped, values):
            (actual,) = outputs.values()
            np.testing.assert_allclose(actual, expected(inputs, then), rtol=0, atol=ERRORS[precision])
    return plans


@pytest.mark.parametrize("columns", [1, 63, 64, 66, 128, 320, 512, 640, 896])
def test_rows_of_some_tiles(columns: int) -> None:
    (compiled, *_) = check(attention(columns))
    last = compiled.kernels[0].phases[-1]
    assert not any(s.op == "vrcp" for s in last.statements), "the product with the values divides"


@pytest.mark.parametrize("precision", ERRORS)
@pytest.mark.parametrize("target", ["tiny", "br100"])
def test_precisions_and_targets(target: str, precision: str) -> None:
    machine = WIDE if target == "tiny" else load_machine(target)
    check(attention(192, rows=70), machine, precision)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("then", ["", "add"])
def test_values_that_heads_share_and_what_follows(shared: bool, then: str) -> None:
    check(attention(128, shared=shared, then=then), then=then)


@pytest.mark.parametrize("target", ["tiny", "br100"])
def test_a_mask_for_all_rows_is_scaled_once(target: str) -> None:
    """Samples whose keys are all shut, by the lowest number or a large one, are even; a bias weighs as it should."""
    columns, samples = 192, 6
    make = GraphMaker()
    scores = make("matmul", make.input(samples, 70, DEPTH), make.input(samples, DEPTH, columns))
    scores = make("add", make("mul", scores, make.constant(0.25)), make.input(samples, 1, columns))
    graph = make.graph(make("matmul", make("softmax", scores, axis=2), make.input(samples, columns, FEATURES)))
    inputs = random_inputs(graph)
    mask = inputs["x2"]
    lowest = float(ml_dtypes.finfo(ml_dtypes.bfloat16).min)
    mask[1, :, 7:], mask[2, :, ::2], mask[3], mask[4, :, 50:] = lowest, -1e4, -3e38, -math.inf
    mask[0], mask[5, :, 9] = lowest, -lowest
    inputs = as_held(inputs, "bf16")
    q, k, mask, v = (np.asarray(a, np.float64) for a in inputs.values())
    scores = (q @ k * 0.25).astype(np.float32) + mask.astype(np.float32)
    powers = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True))
    wanted = powers / powers.sum(axis=-1, keepdims=True) @ v
    machine = WIDE if target == "tiny" else load_machine(target)
    for compiled in compiled_plans(graph, machine, "bf16"):
        compiled.verify()
        assert any(s.op == "vlt" for phase in compiled.kernels[0].phases for s in phase.statements)
        for outputs in (compiled.step(inputs, "random", 3), compiled.values(inputs)):
            (actual,) = outputs.values()
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=ERRORS["bf16"])


@pytest.mark.parametrize("columns", [64, 192])
def test_rows_that_are_masked(columns: int) -> None:
    """A row of nothing but the lowest number is even; of nothing but -inf it is no number, and nobody else's."""
    graph = attention(columns)
    inputs = random_inputs(graph)
    mask = inputs["x2"]
    mask[0], mask[1], mask[2, 1:], mask[3, ::2] = -math.inf, -3e38, -math.inf, -math.inf
    mask[4, : columns - 1], mask[5, 3] = -3e38, 60.0
    check(graph, inputs=inputs)
    assert np.isnan(expected(inputs)[:, 0]).all()


@pytest.mark.parametrize("reader", ["output", "second", "values", "relu"])
def test_shares_that_others_read_are_divided_at_once(reader: str) -> None:
    make = GraphMaker()
    columns = 128
    scores = make("matmul", make.input(2, columns, DEPTH), make.input(2, DEPTH, columns))
    shares = make("softmax", scores, axis=2)
    v = shares if reader == "values" else make.input(2, columns, FEATURES)
    outputs = [make("matmul", make("relu", shares) if reader == "relu" else shares, v)]
    outputs += {"output": [shares], "second": [make("matmul", shares, make.input(2, columns, 8))]}.get(reader, [])
    graph = make.graph(*outputs)
    inputs = random_inputs(graph)
    q, k, *rest = (a.astype(np.float64) for a in inputs.values())
    powers = np.exp(q @ k)
    p = powers / powers.sum(axis=-1, keepdims=True)
    wanted = [p @ p if reader == "values" else p @ rest[0]]
    wanted += {"output": [p], "second": [p @ rest[-1]]}.get(reader, [])
    for compiled in compiled_plans(graph, WIDE):
        compiled.verify()
        for actual, one in zip(compiled.values(inputs).values(), wanted, strict=True):
            np.testing.assert_allclose(actual, one, rtol=0, atol=ERRORS["model"])


def test_programs_take_a_head_each_where_rows_are_too_few() -> None:
    """Three heads of one block of rows on each SPC: the rows of one head wait for no program of another."""
    graph = attention(128, heads=48, rows=64)
    machine = load_machine("br100").with_values({"dies": 1})
    tilings = [compiled.kernels[0].tiling for compiled in check(graph, machine, "bf16")]
    found = [(dict(tiling.spcs), tiling.programs, tiling.hoist) for tiling in tilings if tiling is not None]
    assert ({"b0": 16}, 3, "") in found
