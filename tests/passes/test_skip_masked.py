"""Attention under a constant mask: which of it is computed, that values stay, and what is left as it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import with_input_buffers
from pipeline import compiled_plans

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.skip_masked import SkipMasked, skip_masked_for
from birc.runtime.machine import load_machine

LOWEST = float(np.finfo(np.float32).min)
WIDE = with_input_buffers()


def attention(
    keeps: np.ndarray, heads: int = 2, low: float = -math.inf, *, depth: int = 8, inverted: bool = False
) -> Graph:
    """softmax(where(keeps, q @ k * 0.5, low)) @ v"""
    rows, columns = keeps.shape[-2:]
    rows = max(rows, columns if rows == 1 else 0)
    make = GraphMaker()
    q, k = make.input(heads, rows, depth), make.input(heads, depth, columns)
    scores = make("mul", make("matmul", q, k), make.constant(0.5))
    number = make.constant(low)
    mask = make.constant(~keeps if inverted else keeps, element="bool")
    chosen = make("where", mask, *((number, scores) if inverted else (scores, number)))
    return make.graph(make("matmul", make("softmax", chosen, axis=2), make.input(heads, columns, depth)))


def expected(graph: Graph, inputs: dict[str, np.ndarray], keeps: np.ndarray) -> np.ndarray:
    """The attention in FP64."""
    q, k, v = (inputs[value.name].astype(np.float64) for value in graph.inputs)
    scores = np.where(keeps, q @ k * 0.5, -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True) @ v


def causal(rows: int, columns: int | None = None) -> np.ndarray:
    return np.tril(np.ones((rows, columns or rows), bool))


def scores_computed(graph: Graph) -> int:
    return sum(node.output.type.num_elements for node in graph.nodes if node.op == "softmax")


@settings(max_examples=40, deadline=None)
@given(
    groups=st.sampled_from([2, 3, 4, 8]),
    columns=st.integers(1, 40),
    seed=st.integers(0, 99),
    low=st.sampled_from([-math.inf, LOWEST, -1e30]),
    inverted=st.booleans(),
    tile=st.sampled_from([1, 2, 4]),
)
def test_bands_of_any_shape(groups: int, columns: int, seed: int, low: float, inverted: bool, tile: int) -> None:
    generator = np.random.default_rng(seed)
    rows = groups * tile
    first = generator.integers(0, columns, rows)
    last = np.minimum(columns, first + generator.integers(1, columns + 1, rows))
    places = np.arange(columns)
    keeps = (places >= first[:, None]) & (places < last[:, None])
    graph = attention(keeps, low=low, inverted=inverted)
    result = SkipMasked(tile).run(graph)
    inputs = random_inputs(graph)
    (actual,) = run_graph(result.graph, inputs).values()
    np.testing.assert_allclose(actual, expected(graph, inputs, keeps), rtol=1e-5, atol=1e-6)
    assert scores_computed(result.graph) < scores_computed(graph) or not result.changed


def test_a_causal_mask_leaves_the_lower_blocks() -> None:
    result = SkipMasked(8).run(attention(causal(64), heads=1))
    shapes = [node.output.type.sizes for node in result.graph.nodes if node.op == "softmax"]
    assert shapes == [(1, 8, 8 * (n + 1)) for n in range(8)]


def test_a_window_leaves_a_band_without_a_mask_where_all_is_seen() -> None:
    keeps = np.kron(np.eye(4, dtype=bool), np.ones((8, 8), bool))
    result = SkipMasked(8).run(attention(keeps))
    assert scores_computed(result.graph) == 2 * 4 * 8 * 8
    assert not any(node.op == "where" for node in result.graph.nodes)


def test_a_mask_of_columns_only_takes_all_rows_at_once() -> None:
    keeps = np.arange(32)[None] < 11
    graph = attention(keeps)
    result = SkipMasked(4).run(graph)
    inputs = random_inputs(graph)
    (actual,) = run_graph(result.graph, inputs).values()
    np.testing.assert_allclose(actual, expected(graph, inputs, keeps), rtol=1e-5, atol=1e-6)
    assert [node.output.type.sizes for node in result.graph.nodes if node.op == "softmax"] == [(2, 32, 12)]


@pytest.mark.parametrize("precision", ["model", "bf16"])
@pytest.mark.parametrize("low", [-1e9, LOWEST, -math.inf])
def test_a_mask_that_is_added_is_one(low: float, precision: str) -> None:
    """As decoders are exported: what is added to the scores is 0 or takes their share from them."""
    keeps = causal(64)
    make = GraphMaker()
    q, k = make.input(2, 64, 8), make.input(2, 8, 64)
    scores = make("mul", make("matmul", q, k), make.constant(0.5))
    masked = make("add", scores, make.constant(np.where(keeps, 0.0, low)[None]))
    graph = make.graph(make("matmul", make("softmax", masked, axis=2), make.input(2, 64, 8)))
    result = SkipMasked(8).run(canonicalize(graph))
    assert scores_computed(result.graph) == 2 * sum(8 * 8 * (n + 1) for n in range(8))
    inputs = random_inputs(graph)
    for compiled in compiled_plans(result.graph, WIDE, precision):
        compiled.verify()
        for found in (compiled.step(inputs), compiled.values(inputs)):
            (value,) = found.values()
            tolerance = 2e-2 if precision == "bf16" else 1e-4
            np.testing.assert_allclose(value, expected(graph, inputs, keeps), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("precision", ["model", "bf16"])
@pytest.mark.parametrize("target", ["tiny", "br100"])
def test_values_on_the_engines(target: str, precision: str) -> None:
    """Groups are written into their place in the result; two dies share them."""
    keeps = causal(64, 80)
    graph = SkipMasked(16).run(attention(keeps, heads=3, low=LOWEST)).graph
    inputs = random_inputs(graph)
    machine = WIDE if target == "tiny" else load_machine(target)
    for compiled in compiled_plans(graph, machine, precision):
        compiled.verify()
        assert len({kernel.name for kernel in compiled.kernels}) == 8, "a kernel for scores and one for values"
        (actual,) = compiled.values(inputs).values()
        error = 2e-2 if precision == "bf16" else 2e-3
        np.testing.assert_allclose(actual, expected(graph, inputs, keeps), rtol=0, atol=error)


@pytest.mark.parametrize(("heads", "groups"), [(12, 2), (96, 4)])
def test_few_groups_where_each_has_few_rows(heads: int, groups: int) -> None:
    """Half of GPT-2's 1,024 rows of 16 tiles leave registers for their mask; all of them do not."""
    result = skip_masked_for(load_machine("br100")).run(attention(causal(1024), heads=heads))
    assert sum(node.op == "softmax" for node in result.graph.nodes) == groups


def kept_as_it_is(graph: Graph) -> bool:
    return not SkipMasked().run(graph).changed


def test_what_is_left_as_it_is() -> None:
    keeps = causal(8)
    assert not kept_as_it_is(attention(keeps))
    assert kept_as_it_is(attention(np.ones((8, 8), bool)))
    assert kept_as_it_is(attention(keeps, low=-1e9)), "scores may be as low"
    empty = keeps.copy()
    empty[3] = False
    assert kept_as_it_is(attention(empty)), "the shares of a row without a score are even, or no numbers"
    assert not skip_masked_for(load_machine("br100")).run(attention(causal(64))).changed, "there is nothing to win"


@pytest.mark.parametrize("place", ["scores", "shares", "mask"])
def test_what_others_read_or_give(place: str) -> None:
    make = GraphMaker()
    q, k, v = make.input(1, 8, 4), make.input(1, 4, 8), make.input(1, 8, 4)
    mask = make.input(8, 8, element="bool") if place == "mask" else make.constant(causal(8), element="bool")
    scores = make("matmul", q, k)
    shares = make("softmax", make("where", mask, scores, make.constant(-math.inf)), axis=2)
    outputs = [make("matmul", shares, v), *({"scores": [scores], "shares": [shares]}.get(place, []))]
    assert kept_as_it_is(make.graph(*outputs))
