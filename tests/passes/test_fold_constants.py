"""Constant folding: bounded, exact, and splats stay one stored element."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker, sources_of

from birc.compiler.ir.graph import Constant, Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.passes.base import run_pass
from birc.compiler.passes.constant_values import MOST_GROWTH, scaled_channels
from birc.compiler.passes.fold_constants import FoldConstants


def folded(make: GraphMaker, *outputs: str) -> Graph:
    return run_pass(FoldConstants(), make.graph(*outputs)).graph


def test_chain_is_folded_to_its_end() -> None:
    make = GraphMaker()
    weights = make.random(3, 4)
    moved = make("transpose", make("neg", weights), perm=(1, 0))
    product = make("matmul", make.input(2, 4), moved)
    graph = folded(make, product)
    assert [node.op for node in graph.nodes] == ["matmul"]
    assert len(graph.constants) == 1
    assert sources_of(graph)[1] == {"n0": "folded", "n1": "folded"}


@pytest.mark.parametrize(
    "build",
    [
        lambda m: m("add", m.splat(1.5, 512, 512), m.splat(2.0, 512, 1)),
        lambda m: m("exp", m.splat(1.5, 512, 512)),
        lambda m: m("where", m.splat(True, 512, 512, element="bool"), m.constant(2.0), m.splat(0.0, 512, 512)),
        lambda m: m("reshape", m.splat(1.5, 512, 512), shape=(256, 1024)),
        lambda m: m("transpose", m.splat(1.5, 512, 256), perm=(1, 0)),
        lambda m: m("slice", m.splat(1.5, 512, 512), starts=(1, 1), ends=(512, 300), steps=(2, 1)),
        lambda m: m("expand", m.constant(1.5), shape=(4096, 4096, 16)),
        lambda m: m("gather", m.splat(1.5, 512, 512), m.constant([3, 4], "i64"), axis=0),
    ],
)
def test_splats_stay_splats(build: object) -> None:
    make = GraphMaker()
    expanded = build(make)  # type: ignore[operator]
    graph = make.graph(expanded)
    result = run_pass(FoldConstants(), graph).graph
    (constant,) = result.constants.values()
    assert not result.nodes
    assert constant.is_splat
    if constant.data.size < 10**6:
        np.testing.assert_array_equal(constant.data, run_graph(graph, {})[expanded])


def test_growth_is_bounded() -> None:
    make = GraphMaker()
    rows = MOST_GROWTH * 64
    grown = make("expand", make.random(1, 4096), shape=(rows, 4096))
    graph = make.graph(grown)
    assert not run_pass(FoldConstants(), graph).changed


def test_size_is_bounded() -> None:
    make = GraphMaker()
    wide = make("add", make.splat(1.0, 4096, 8192), make.random(1, 8192))
    assert not run_pass(FoldConstants(), make.graph(wide)).changed


def test_what_fails_on_its_values_is_left_for_the_run() -> None:
    make = GraphMaker()
    taken = make("gather", make.random(3, 2), make.constant([5], "i64"), axis=0)
    assert not run_pass(FoldConstants(), make.graph(taken)).changed


def test_folded_output_keeps_its_name() -> None:
    make = GraphMaker()
    total = make("add", make.constant(1.0), make.constant(2.0))
    graph = folded(make, total)
    assert run_graph(graph, {}) == {total: np.float32(3.0)}


def test_scaled_channels_of_splats_and_others() -> None:
    splat = Constant.splat(0.5, Constant.of(np.zeros((2, 3), np.float32)).type)
    assert scaled_channels(splat, np.array([2.0, 2.0])).is_splat
    np.testing.assert_array_equal(
        scaled_channels(splat, np.array([2.0, 4.0])).data, np.array([[1.0] * 3, [2.0] * 3], np.float32)
    )
