"""Layouts: images lie channels last from the first image op on, graph outputs do not, no value changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from hypothesis import given, settings
from pipeline import compile_graph
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


def signals(make: GraphMaker, shape: tuple[int, ...] = (1, 6, 64)) -> tuple[str, str]:
    """What is computed of a convolution over one dimension, which others see as an image of one row."""
    image = make("conv2d", make.input(1, 4, 1, 64), make.random(6, 4, 1, 3), **{**CONV, "pads": (0, 1, 0, 1)})
    signal = make("relu", make("reshape", image, shape=shape))
    seen = make("reshape", make("neg", signal), shape=(1, 6, 1, 64))
    return signal, make("conv2d", seen, make.random(5, 6, 1, 3), **{**CONV, "pads": (0, 1, 0, 1)})


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 6, 64), (0, 2, 1)),
        ((6, 64), (1, 0)),
        ((1, 6, 8, 8), CHANNELS_LAST),
        ((1, 384), None),
        ((1, 2, 3, 64), (0, 3, 1, 2)),
    ],
)
def test_a_reshaped_image_keeps_its_order(shape: tuple[int, ...], layout: tuple[int, ...] | None) -> None:
    make = GraphMaker()
    signal, last = signals(make, shape)
    graph = make.graph(make("abs", last))
    assert layouts(graph)[signal] == layout
    case = compile_graph(graph)
    case.verify()
    inputs = random_inputs(graph)
    ((name, expected),) = run_graph(graph, inputs).items()
    np.testing.assert_allclose(case.values(inputs)[name], expected, rtol=0, atol=2e-3 * np.abs(expected).max())


def gathered(make: GraphMaker, table: str, axis: int) -> str:
    """Some places of an axis, one of them twice."""
    return make("gather", table, make.constant([0, 0, 2, 1], "i32"), axis=axis)


def test_what_is_gathered_lies_as_the_table_does() -> None:
    make = GraphMaker()
    image = make("lrn", make.input(1, 4, 8, 8), size=3, alpha=0.1, beta=0.5, k=1.0)
    rows = gathered(make, image, 2)
    columns = gathered(make, make("slice", rows, starts=(0, 0, 1, 0), ends=(1, 4, 4, 8), steps=(1, 1, 1, 1)), 3)
    tokens = make("neg", make.input(2, 24, 4))
    seen = make("reshape", make("transpose", tokens, perm=(0, 2, 1)), shape=(2, 4, 6, 4))
    of_tokens = gathered(make, seen, 2)
    merged = gathered(make, make("reshape", seen, shape=(8, 6, 4)), 1)  # no view of the tokens
    plain = gathered(make, tokens, 1)
    graph = make.graph(*(make("relu", name) for name in (columns, of_tokens, merged, plain)))
    chosen = layouts(graph)
    assert [chosen[name] for name in (rows, columns, of_tokens)] == [CHANNELS_LAST] * 3
    assert [chosen[name] for name in (merged, plain)] == [None, None]
    inputs = random_inputs(graph)
    expected, got = run_graph(graph, inputs), compile_graph(graph).values(inputs)
    for name in graph.outputs:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-6)


def test_graph_without_images_is_unchanged() -> None:
    make = GraphMaker()
    graph = make.graph(make("neg", make("matmul", make.input(3, 4), make.input(4, 5))))
    result = run_pass(ChooseLayouts(), graph)
    assert not result.changed
    assert result.graph is graph


def heads(make: GraphMaker) -> str:
    """A product whose result is a stack of matrices, one a head."""
    return make("matmul", make.input(2, 3, 4, 6), make.input(2, 3, 6, 5))


def test_a_product_that_is_only_read_transposed_lies_as_it_is_read() -> None:
    """Heads side by side in a row: their reshape is then a view."""
    make = GraphMaker()
    product = heads(make)
    joined = make("reshape", make("transpose", product, perm=(0, 2, 1, 3)), shape=(2, 4, 15))
    graph = make.graph(make("relu", joined))
    assert layouts(graph)[product] == (0, 2, 1, 3)
    case = compile_graph(graph, "tiny")
    assert len(case.kernels) == 2 * len({kernel.name for kernel in case.kernels}) == 4
    case.verify()
    inputs = random_inputs(graph)
    ((name, expected),) = run_graph(graph, inputs).items()
    np.testing.assert_allclose(case.values(inputs)[name], expected, rtol=0, atol=2e-3 * np.abs(expected).max())


def columns_outside(make: GraphMaker, product: str) -> tuple[str, ...]:
    return (make("neg", make("transpose", product, perm=(0, 1, 3, 2))),)


def read_as_it_is_too(make: GraphMaker, product: str) -> tuple[str, ...]:
    return (make("neg", make("transpose", product, perm=(0, 2, 1, 3))), make("exp", product))


def transposed_twice(make: GraphMaker, product: str) -> tuple[str, ...]:
    turned = (make("transpose", product, perm=perm) for perm in ((0, 2, 1, 3), (1, 0, 2, 3)))
    return tuple(make("neg", value) for value in turned)


def given_out(make: GraphMaker, product: str) -> tuple[str, ...]:
    return (product, make("neg", make("transpose", product, perm=(0, 2, 1, 3))))


def changed_first(make: GraphMaker, product: str) -> tuple[str, ...]:
    return (make("neg", make("transpose", make("exp", product), perm=(0, 2, 1, 3))),)


@pytest.mark.parametrize(
    "build",
    [columns_outside, read_as_it_is_too, transposed_twice, given_out, changed_first],
    ids=lambda build: build.__name__,
)
def test_other_products_stay_row_major(build: Callable[[GraphMaker, str], tuple[str, ...]]) -> None:
    make = GraphMaker()
    product = heads(make)
    assert layouts(make.graph(*build(make, product)))[product] is None


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
