"""Canonicalisation of random graphs: same values, settled after one call, same text every time."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs, sources_of

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.printer import print_graph
from birc.compiler.passes.base import run_pass
from birc.compiler.passes.canonicalize import CANONICALIZE, canonicalize

UNARY = ("neg", "abs", "tanh", "sigmoid", "relu", "exp", "erf")
BINARY = ("add", "sub", "mul", "maximum", "minimum")
NUMBERS = (0.0, 1.0, 0.5, 2.0, -1.5)
SHAPES = {(2, 3, 4): 0, (6, 4): 1, (4, 3, 2): 2, (24,): 3}


def random_graph(seed: int, length: int = 24) -> Graph:
    """Element-wise ops, views and constants in a random order; many neutral and repeated ones."""
    generator = np.random.default_rng(seed)
    make = GraphMaker()
    values = {shape: [make.input(*shape)] for shape in SHAPES}

    def pick(items: list | tuple) -> object:
        return items[int(generator.integers(len(items)))]

    for _ in range(length):
        shape = pick(tuple(SHAPES))
        value = pick(values[shape])
        kind = int(generator.integers(7))
        if kind == 0:
            made = make(pick(UNARY), make("tanh", value))
        elif kind in (1, 2):
            made = make(pick(BINARY), value, pick((make.constant(pick(NUMBERS)), make.random(shape[-1]))))
        elif kind == 3:
            made = make(pick(BINARY), value, pick(values[shape]))
        elif kind == 4:
            made = make("div", value, make.constant(pick(NUMBERS[1:])))
        elif kind == 5:
            made = make("mul", value, make("sigmoid", value))
        else:
            target = pick(tuple(SHAPES))
            made = make("reshape", value, shape=target)
            values[target].append(made)
            continue
        values[shape].append(made)
    made_values = [name for entries in values.values() for name in entries[1:]]
    return make.graph(*dict.fromkeys(made_values[-3:]), "x0") if made_values else make.graph("x0")


@pytest.mark.parametrize("seed", range(40))
def test_values_do_not_change(seed: int) -> None:
    graph = random_graph(seed)
    canonical = canonicalize(graph)
    inputs = random_inputs(graph, seed)
    expected, actual = run_graph(graph, inputs), run_graph(canonical, inputs)
    assert list(expected) == list(actual)
    for name, reference in expected.items():
        assert actual[name].dtype == reference.dtype
        largest = max(float(np.abs(reference).max()), 1.0)
        np.testing.assert_allclose(actual[name], reference, rtol=1e-4, atol=2e-5 * largest)


@pytest.mark.parametrize("seed", range(10))
def test_settled_and_deterministic(seed: int) -> None:
    canonical = canonicalize(random_graph(seed))
    assert canonicalize(canonical) is canonical
    assert print_graph(canonicalize(random_graph(seed))) == print_graph(canonical)


@pytest.mark.parametrize("step", dict.fromkeys(CANONICALIZE), ids=lambda step: step.name)
@pytest.mark.parametrize("seed", range(5))
def test_every_pass_alone_is_idempotent_and_loses_no_source(step: object, seed: int) -> None:
    graph = random_graph(seed)
    once = run_pass(step, graph)  # type: ignore[arg-type]
    assert not run_pass(step, once.graph).changed  # type: ignore[arg-type]
    alive, gone = sources_of(once.graph)
    assert set(alive) | set(gone) == {source for node in graph.nodes for source in node.sources}


def test_exported_batch_norm_chain_becomes_one_scale_and_shift() -> None:
    """Batch norm, then the scale and shift that some exporters keep as nodes of their own."""
    make = GraphMaker()
    x = make.input(2, 3, 4, 4)
    statistics = (make.splat(1.0, 3), make.splat(0.0, 3), make.random(3), make.random(3, low=0.5, high=2.0))
    normal = make("batch_norm", x, *statistics, epsilon=1e-5)
    scaled = make("mul", normal, make("reshape", make.random(3), shape=(3, 1, 1)))
    graph = make.graph(make("add", scaled, make("reshape", make.random(3), shape=(3, 1, 1))))
    assert [node.op for node in canonicalize(graph).nodes] == ["mul", "add"]


def test_callback_sees_passes_of_every_round() -> None:
    make = GraphMaker()
    graph = make.graph(make("neg", make("add", make.input(2), make.constant(0.0))))
    seen: list[str] = []
    canonicalize(graph, lambda step, before, result: seen.append(step.name))
    assert seen == [step.name for step in CANONICALIZE] * 2
