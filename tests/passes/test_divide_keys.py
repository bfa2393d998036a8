"""Attention to many keys, piece by piece: values beside FP64, what pieces see, and when it is left as it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import with_input_buffers
from pipeline import compiled_plans, fusing

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.divide_keys import DivideKeys, divide_keys_for
from birc.compiler.plan_search import Found, PlanSearch
from birc.runtime.machine import load_machine

LOWEST = float(np.finfo(np.float32).min)
WIDE = with_input_buffers()


def attention(
    rows: int,
    columns: int,
    keeps: np.ndarray | None = None,
    low: float = -math.inf,
    *,
    bias: bool = False,
    heads: int = 2,
    depth: int = 8,
) -> Graph:
    """softmax(where(keeps, q @ k * 0.5 + bias, low)) @ v"""
    make = GraphMaker()
    scores = make("matmul", make.input(heads, rows, depth), make.input(heads, depth, columns))
    scores = make("mul", scores, make.constant(0.5))
    if bias:
        scores = make("add", scores, make.constant(slopes(columns)))
    if keeps is not None:
        scores = make("where", make.constant(keeps, element="bool"), scores, make.constant(low))
    return make.graph(make("matmul", make("softmax", scores, axis=2), make.input(heads, columns, depth)))


def slopes(columns: int) -> np.ndarray:
    return np.linspace(-2, 2, 2 * columns, dtype=np.float32).reshape(2, 1, columns)


def expected(graph: Graph, inputs: dict[str, np.ndarray], keeps: np.ndarray | None, bias: bool = False) -> np.ndarray:
    """The attention in FP64."""
    q, k, v = (inputs[value.name].astype(np.float64) for value in graph.inputs)
    scores = q @ k * 0.5 + (slopes(k.shape[-1]) if bias else 0.0)
    scores = scores if keeps is None else np.where(keeps, scores, -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True) @ v


def causal(rows: int, columns: int) -> np.ndarray:
    return np.tril(np.ones((rows, columns), bool), columns - rows)


def pieces(graph: Graph) -> list[tuple[int, ...]]:
    """The sizes of the scores of pieces that are put together."""
    return [graph.type_of(node.inputs[0]).sizes for node in graph.nodes if node.op == "logsumexp"]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 24),
    columns=st.integers(3, 40),
    most=st.sampled_from([2, 4, 6, 12]),
    tile=st.sampled_from([1, 2]),
    mask=st.sampled_from(["", "causal", "any", "columns"]),
    low=st.sampled_from([-math.inf, LOWEST, -1e30]),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_pieces_come_to_the_whole(
    rows: int, columns: int, most: int, tile: int, mask: str, low: float, bias: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    keeps = None
    if mask == "causal":
        keeps = causal(rows, columns) if rows <= columns else np.tri(rows, columns, dtype=bool)
    elif mask:
        keeps = generator.random((1 if mask == "columns" else rows, columns)) < 0.2
        keeps[:, generator.integers(columns)] = True
    graph = attention(rows, columns, keeps, low, bias=bias)
    result = DivideKeys(most, tile).run(graph)
    assert result.changed == (columns > most)
    assert all(sizes[-1] <= most for sizes in pieces(result.graph))
    inputs = random_inputs(graph)
    (actual,) = run_graph(result.graph, inputs).values()
    np.testing.assert_allclose(actual, expected(graph, inputs, keeps, bias), rtol=1e-4, atol=1e-5)


def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    """The first piece has scores that are 300 above those of the second, in half of the rows, and below in others."""
    graph = attention(2, 8)
    inputs = random_inputs(graph)
    q, k = (inputs[value.name] for value in graph.inputs[:2])
    q[:], k[:] = 0, 0
    q[:, :, 0], k[:, 0, :4] = [[300, -300]], 2
    for one in (graph, DivideKeys(4).run(graph).graph):
        (actual,) = run_graph(one, inputs).values()
        np.testing.assert_allclose(actual, expected(graph, inputs, None), rtol=1e-5, atol=1e-6)


def test_rows_take_the_pieces_that_their_mask_lets_through() -> None:
    graph = attention(16, 16, causal(16, 16))
    result = DivideKeys(8).run(graph).graph
    assert [n.output.type.sizes for n in result.nodes if n.op == "softmax"] == [(2, 8, 8), *pieces(result)]
    assert pieces(result) == [(2, 4, 8), (2, 4, 4), (2, 4, 8), (2, 4, 8)]


OTHERS = {
    "few keys": lambda make: make.constant(0.5),
    "a mask of run time": lambda make: make.input(2, 1, 12),
    "a mask with infinities": lambda make: make.constant(np.where(np.arange(12) < 6, 0, -np.inf)),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_left_as_it_is(case: str) -> None:
    """Where whole pieces may have the score minus infinity they have no shares to put together."""
    make = GraphMaker()
    scores = make("matmul", make.input(2, 4, 8), make.input(2, 8, 12))
    added = make("add", scores, OTHERS[case](make))
    graph = make.graph(make("matmul", make("softmax", added, axis=2), make.input(2, 12, 8)))
    assert not DivideKeys(12 if case == "few keys" else 4).run(graph).changed


DEVICE = {
    "no mask": (128, 320, None),
    "causal": (192, 320, causal(192, 320)),
    "three pieces": (64, 384, None),
    "a row without a score in a piece": (64, 256, np.arange(256)[None, :] % 256 >= np.arange(64)[:, None] * 4),
}


@pytest.mark.parametrize("precision", ["bf16", "model"])
@pytest.mark.parametrize("case", DEVICE)
def test_pieces_on_the_device(case: str, precision: str) -> None:
    """All plans, on both engines: each piece is one kernel of scores and shares, and one with the values."""
    rows, columns, keeps = DEVICE[case]
    graph = attention(rows, columns, keeps)
    divided = DivideKeys(128, 64).run(graph).graph
    assert pieces(divided)
    inputs = random_inputs(graph)
    wanted = expected(graph, inputs, keeps)
    error = 3e-2 if precision == "bf16" else 2e-3
    for number, compiled in enumerate(compiled_plans(divided, WIDE, precision)):
        compiled.verify()
        outputs = [compiled.values(inputs), *([compiled.step(inputs, "random", 3)] if number == 0 else [])]
        for actual in (array for each in outputs for array in each.values()):
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=error)
    products = sum(kernel.contraction is not None for kernel in compiled.kernels)
    assert products == 2 * sum(node.op == "softmax" for node in divided.nodes)


def test_on_a_br100_each_piece_is_two_products() -> None:
    """Of 2,048 keys, which no kernel takes together, nothing is left to kernels of its own but putting together."""
    machine = load_machine("br100")
    graph = attention(2048, 2048, causal(2048, 2048))
    divided = DivideKeys(*_sizes(divide_keys_for(machine))).run(graph).graph
    fused = run_passes(divided, fusing(machine, "bf16"))
    kinds = [node.attributes["kind"] for node in fused.nodes if node.op == "group" and node.body is not None]
    softmax = [kind for kind in kinds if "softmax" in str(kind)]
    assert len(softmax) == sum(node.op == "matmul" for node in fused.nodes)
    assert set(softmax) == {"matmul+softmax", "matmul+softmax+logsumexp"}


@pytest.mark.parametrize(("rows", "columns"), [(512, 2048), (64, 1088)])
def test_the_faster_way_is_taken(rows: int, columns: int) -> None:
    machine = load_machine("br100")
    search, plain = PlanSearch(machine, "bf16", 3), fusing(machine, "bf16")
    ways = (plain, (divide_keys_for(machine), *plain))
    graph = attention(rows, columns, heads=16, depth=64)
    latencies = [_cycles(search.plan(run_passes(graph, way), timed=True)) for way in ways]
    passes, found = search.fastest(graph, ways)
    assert passes is ways[int(np.argmin(latencies))]
    assert _cycles(found) == min(latencies)
    assert (latencies[1] < latencies[0]) == (rows == 512)


def _cycles(found: Found) -> int:
    assert found.outcome is not None
    return found.outcome.latency_cycles


def test_logarithms_that_no_softmax_makes_have_a_kernel_of_their_own() -> None:
    """Those of other scores, and of rows that are too long to wait in registers."""
    make = GraphMaker()
    x, y = make.input(2, 64, 8), make.input(2, 8, 64)
    scores = make("matmul", x, y)
    graph = make.graph(make("softmax", scores, axis=2), make("logsumexp", scores, axis=1))
    inputs = random_inputs(graph)
    wanted = run_graph(graph, inputs)
    for compiled in compiled_plans(graph, WIDE):
        assert len(compiled.kernels) > 1
        for name, actual in compiled.values(inputs).items():
            np.testing.assert_allclose(actual, wanted[name], rtol=0, atol=2e-3)


def _sizes(step: DivideKeys) -> tuple[int, int]:
    return step.most, step.tile
