"""Layouts: images lie channels last from the first image op on, graph outputs do not, no value changes."""

from __future__ import annotations

import numpy as np
from graph_maker import GraphMaker, random_inputs
from hypothesis import given, settings
from random_graphs import graphs

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.verify import verify_graph
from birc.compiler.passes.base import run_pass
from birc.compiler.passes.choose_layouts import CHANNELS_LAST, ChooseLayouts

CONV = {"stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1), "group": 1}
POOL = {"kernel": (2, 2), "stride": (2, 2), "pads": (0, 0, 0, 0), "dilation": (1, 1)}


def layouts(graph: Graph) -> dict[str, tuple[int, ...] | None]:
    """The layout of every node's result, by name."""
    result = run_pass(ChooseLayouts(), graph)
    verify_graph(result.graph)
    return {node.name: node.output.type.layout for node in result.graph.nodes}


def test_images_and_what_follows_them() -> None:
    make = GraphMaker()
    before = make("relu", make.input(1, 4, 8, 8))
    image = make("conv2d", before, make.random(4, 4, 3, 3), **CONV)
    follower = make("add", image, make.random(4, 1, 1))
    pooled = make("reduce_mean", follower, axes=(2, 3), keepdims=1)
    joined = make("concat", follower, image, axis=1)
    flat = make("reshape", pooled, shape=(1, 4))
    last = make("max_pool2d", joined, **POOL)
    chosen = layouts(make.graph(flat, last))
    assert chosen == {
        before: None,
        image: CHANNELS_LAST,
        follower: CHANNELS_LAST,
        pooled: CHANNELS_LAST,
        joined: CHANNELS_LAST,
        flat: None,
        last: None,
    }


def test_another_rank_has_no_layout() -> None:
    make = GraphMaker()
    image = make("max_pool2d", make.input(1, 4, 8, 8), **POOL)
    total = make("reduce_sum", image, axes=(2, 3), keepdims=0)
    chosen = layouts(make.graph(make("neg", total)))
    assert chosen[total] is None


def test_graph_without_images_is_unchanged() -> None:
    make = GraphMaker()
    graph = make.graph(make("neg", make("matmul", make.input(3, 4), make.input(4, 5))))
    result = run_pass(ChooseLayouts(), graph)
    assert not result.changed
    assert result.graph is graph


@settings(max_examples=100, deadline=None)
@given(graph=graphs())
def test_random_graph_keeps_its_values_and_the_layout_of_its_outputs(graph: Graph) -> None:
    result = run_pass(ChooseLayouts(), graph).graph
    verify_graph(result)
    assert all(result.type_of(name).layout is None for name in result.outputs)
    inputs = random_inputs(graph)
    expected = run_graph(graph, inputs)
    for name, actual in run_graph(result, inputs).items():
        np.testing.assert_array_equal(actual, expected[name])
