"""A softmax over the columns of a product in its kernel: values on every engine, whatever the rows hold."""

from __future__ import annotations

import math
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from machines import with_input_buffers
from pipeline import Values, compiled_plans

from birc.compiler.ir.graph import GROUP, Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import BLOCK
from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine, load_machine

WIDE = with_input_buffers()
ERRORS = {"model": 2e-3, "fp32": 2e-5, "bf16": 2e-2}
"""The largest error of a share of a row, which is at most 1: products are rounded to TF32+ or BF16."""
BATCH, ROWS, DEPTH = 2, 9, 16

Change = Callable[[GraphMaker, str], str]


def unchanged(_: GraphMaker, x: str) -> str:
    return x


def softmax_of_product(columns: int, before: Change = unchanged, after: Change = unchanged, rows: int = ROWS) -> Graph:
    """after(softmax(before(q @ k)))"""
    make = GraphMaker()
    scores = make("matmul", make.input(BATCH, rows, DEPTH), make.input(BATCH, DEPTH, columns))
    return make.graph(after(make, make("softmax", before(make, scores), axis=2)))


def check(graph: Graph, machine: Machine = WIDE, precision: str = "model", inputs: Values | None = None) -> None:
    """One kernel, which steps in a random order and as whole arrays give the graph's values, by every plan."""
    inputs = random_inputs(graph) if inputs is None else inputs
    if precision == "bf16":
        held = {name: a.astype(ml_dtypes.bfloat16) if a.dtype == np.float32 else a for name, a in inputs.items()}
        inputs = {name: a.astype(inputs[name].dtype) for name, a in held.items()}
    with np.errstate(all="ignore"):
        ((name, expected),) = run_graph(graph, inputs).items()
        scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0)))
        for compiled in compiled_plans(graph, machine, precision):
            assert [node.op for node in compiled.graph.nodes] == [GROUP]
            compiled.verify()
            stepped, counts = compiled.step_counted(inputs, "random", 5)
            values, counts_of_values = compiled.values_counted(inputs)
            assert counts_of_values == counts
            for actual in (stepped[name], values[name]):
                np.testing.assert_allclose(actual, expected, rtol=0, atol=ERRORS[precision] * scale)


@pytest.mark.parametrize("tiles", range(1, 9))
def test_rows_of_one_to_eight_tiles(tiles: int) -> None:
    check(softmax_of_product(64 * tiles))


@pytest.mark.parametrize("columns", [1, 7, 63, 66, 129, 189, 196, 320])
def test_rows_that_fill_no_tiles(columns: int) -> None:
    check(softmax_of_product(columns, rows=70))


@pytest.mark.parametrize("columns", [64, 192])
@pytest.mark.parametrize("precision", ERRORS)
@pytest.mark.parametrize("target", ["tiny", "br100"])
def test_precisions_and_targets(target: str, precision: str, columns: int) -> None:
    def before(make: GraphMaker, x: str) -> str:
        return make("add", make("mul", x, make.constant(0.25)), make.input(columns))

    check(softmax_of_product(columns, before), WIDE if target == "tiny" else load_machine(target), precision)


def scaled(make: GraphMaker, x: str) -> str:
    return make("mul", x, make.constant(0.125))


def masked_by(*shape: int) -> Change:
    return lambda make, x: make("add", scaled(make, x), make.input(*shape))


def chosen_by(*shape: int, low: float = -math.inf) -> Change:
    def before(make: GraphMaker, x: str) -> str:
        return make("where", make.input(*shape, element="bool"), x, make.constant(low))

    return before


@pytest.mark.parametrize("columns", [64, 256])
@pytest.mark.parametrize(
    "shape", [(BATCH, ROWS, 0), (1, 0), (0,), (BATCH, 1, 0), (ROWS, 0), (BATCH, ROWS, 1), (ROWS, 1), (1,)]
)
@pytest.mark.parametrize("is_bool", [False, True])
def test_masks(shape: tuple[int, ...], columns: int, is_bool: bool) -> None:
    """0 stands for the columns."""
    full = tuple(size or columns for size in shape)
    check(softmax_of_product(columns, chosen_by(*full, low=-1e9) if is_bool else masked_by(*full)))


LOWEST = -3.4e38


@pytest.mark.parametrize("columns", [64, 192])
@pytest.mark.parametrize("low", [-math.inf, LOWEST])
def test_rows_that_a_choice_masks(low: float, columns: int) -> None:
    """A row of nothing but the lowest number is even; of nothing but -inf it is no number."""
    graph = softmax_of_product(columns, chosen_by(ROWS, columns, low=low))
    inputs = random_inputs(graph)
    mask = inputs["x2"]
    mask[...] = True
    mask[0], mask[1, : columns // 2], mask[2, 1:], mask[3, ::2] = False, False, False, False
    check(graph, inputs=inputs)
    expected = next(iter(run_graph(graph, inputs).values()))[:, 0]
    assert np.isnan(expected).all() if low == -math.inf else np.allclose(expected, 1 / columns)


@pytest.mark.parametrize("columns", [64, 192])
def test_rows_with_infinities(columns: int) -> None:
    graph = softmax_of_product(columns, masked_by(ROWS, columns))
    inputs = random_inputs(graph)
    mask = inputs["x2"]
    mask[0], mask[1], mask[2, 5], mask[3, 7] = -math.inf, math.inf, math.inf, math.nan
    mask[4, : columns - 1], mask[5], mask[6, 3:9], mask[7, 9] = -math.inf, LOWEST, LOWEST, -math.inf
    check(graph, inputs=inputs)


def multiplied(make: GraphMaker, x: str) -> str:
    sizes = make("mul", x, make.input(ROWS, 1)), make.input(BATCH, 1, 1)
    return make("add", *sizes)


def activated(make: GraphMaker, x: str) -> str:
    return make("gelu", make("sub", x, make.constant(0.01)), approximate="none")


@pytest.mark.parametrize("columns", [64, 128, 320])
@pytest.mark.parametrize("after", [scaled, multiplied, activated], ids=lambda after: after.__name__)
def test_what_follows_comes_along(after: Change, columns: int) -> None:
    check(softmax_of_product(columns, masked_by(ROWS, columns), after))


@pytest.mark.parametrize(("columns", "machine", "precision"), [(128, WIDE, "model"), (1024, None, "bf16")])
@pytest.mark.parametrize("shape", [(ROWS, 0), (0,), (ROWS, 1)])
def test_a_mask_before_and_after(shape: tuple[int, ...], columns: int, machine: Machine, precision: str) -> None:
    """What one operand is read for twice: scores and shares are both masked."""
    make = GraphMaker()
    mask = make.input(*(size or columns for size in shape))
    scores = make("matmul", make.input(BATCH, ROWS, DEPTH), make.input(BATCH, DEPTH, columns))
    shares = make("softmax", make("add", scores, mask), axis=2)
    _check_values(make.graph(make("mul", shares, mask)), machine or load_machine("br100"), precision)


@pytest.mark.parametrize(("columns", "machine", "precision"), [(512, WIDE, "model"), (1024, None, "bf16")])
@pytest.mark.parametrize("of_rows", [False, True])
def test_many_operands_after(columns: int, machine: Machine, precision: str, of_rows: bool) -> None:
    """More than the registers hold beside a row, each another one for every element or for every row."""

    def after(make: GraphMaker, x: str) -> str:
        for _ in range(20):
            operand = make.input(ROWS, 1 if of_rows else columns)
            x = make("add", x, make("tanh", operand) if of_rows else operand)
        return x

    _check_values(softmax_of_product(columns, after=after), machine or load_machine("br100"), precision)


def _check_values(graph: Graph, machine: Machine, precision: str) -> None:
    """As `check`, in however many kernels."""
    inputs = random_inputs(graph)
    ((name, expected),) = run_graph(graph, inputs).items()
    for compiled in compiled_plans(graph, machine, precision):
        compiled.verify()
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(compiled.values(inputs)[name], expected, rtol=0, atol=ERRORS[precision] * scale)


@pytest.mark.parametrize("element", ["f16", "bf16", "i8"])
def test_other_element_types(element: str) -> None:
    make = GraphMaker()
    a, b = make.input(ROWS, DEPTH, element=element), make.input(DEPTH, 192, element=element)
    scores = make("matmul", a, b)
    if element == "i8":
        scores = make("mul", make("cast", scores, to=dtype("f32")), make.constant(0.125))
    graph = make.graph(make("softmax", scores, axis=1))
    inputs = random_inputs(graph)
    ((name, expected),) = run_graph(graph, inputs).items()
    (compiled, *_) = compiled_plans(graph, WIDE)
    compiled.verify()
    assert [node.op for node in compiled.graph.nodes] == [GROUP]
    error = np.abs(compiled.values(inputs)[name].astype(np.float64) - expected.astype(np.float64)).max()
    assert error <= ERRORS["bf16" if element == "bf16" else "model"]


def test_a_program_takes_whole_rows_of_tiles() -> None:
    (compiled, *_) = compiled_plans(softmax_of_product(320), WIDE)
    (tiling,) = {kernel.tiling for kernel in compiled.kernels}
    assert tiling is not None
    assert (tiling.turns, tiling.rows, tiling.columns) == (BLOCK, 1, 5)
    assert dict(tiling.spcs).get("n", 1) == 1
