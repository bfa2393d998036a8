"""Lowering at the edges of a graph: inputs and outputs of every kind, views among them, unused values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from pipeline import compile_graph

from birc.compiler.ir.interpreter import run_graph

Build = Callable[[GraphMaker], tuple[str, ...]]


def input_as_output(make: GraphMaker) -> tuple[str, ...]:
    return (make.input(3, 4),)


def constant_as_output(make: GraphMaker) -> tuple[str, ...]:
    make.input(3, 4)
    return (make.constant(np.arange(6.0).reshape(2, 3)), make.splat(2.5, 5, 70))


def one_value_twice(make: GraphMaker) -> tuple[str, ...]:
    result = make("relu", make.input(3, 4))
    return (result, result)


def input_and_what_is_made_of_it(make: GraphMaker) -> tuple[str, ...]:
    x = make.input(3, 4)
    return (x, make("relu", x))


def unused_input(make: GraphMaker) -> tuple[str, ...]:
    x = make.input(3, 4)
    make.input(5)
    return (make("relu", x),)


def intermediate_outputs(make: GraphMaker) -> tuple[str, ...]:
    first = make("relu", make.input(70, 65))
    turned = make("transpose", first, perm=(1, 0))
    return (first, make("neg", first), turned, make("reshape", first, shape=(65, 70)))


def view_of_input(make: GraphMaker) -> tuple[str, ...]:
    return (make("transpose", make.input(4, 6), perm=(1, 0)),)


def joined_views(make: GraphMaker) -> tuple[str, ...]:
    x = make.input(40, 66)
    part = make("slice", x, starts=(0, 1), ends=(40, 66), steps=(1, 2))
    turned = make("reshape", make("transpose", x, perm=(1, 0)), shape=(40, 66))
    return (make("concat", part, turned, axis=1),)


def image_as_output(make: GraphMaker) -> tuple[str, ...]:
    x = make.input(1, 8, 6, 6)
    pool = {"kernel": (2, 2), "stride": (2, 2), "pads": (0, 0, 0, 0), "dilation": (1, 1)}
    pooled = make("max_pool2d", x, **pool)
    return (make("reshape", pooled, shape=(8, 9)), make("relu", pooled), make("concat", pooled, pooled, axis=1))


def padded_output(make: GraphMaker) -> tuple[str, ...]:
    x = make.input(5, 6)
    return (make("pad", x, pads=(1, 0, 0, 2), value=-1.0), make("pad", make("neg", x), pads=(0, 1, 1, 0), value=0.0))


def wide_dimensions(make: GraphMaker) -> tuple[str, ...]:
    """Dimensions beyond what a descriptor holds."""
    x = make.input(3, 20_000)
    part = make("slice", x, starts=(0, 9000), ends=(3, 19_000), steps=(1, 1))
    spread = make("add", make.input(3, 1, 5), make.input(1, 8300, 1))
    return (make("relu", part), spread, make("slice", x, starts=(0, 1), ends=(3, 20_000), steps=(1, 3)))


def wide_products(make: GraphMaker) -> tuple[str, ...]:
    columns = make("add", make("matmul", make.input(3, 16), make.input(16, 8209)), make.input(8209))
    return (columns, make("softmax", make("matmul", make.input(8209, 8), make.input(8, 5)), axis=1))


BUILDS = (
    input_as_output,
    constant_as_output,
    one_value_twice,
    input_and_what_is_made_of_it,
    unused_input,
    intermediate_outputs,
    view_of_input,
    joined_views,
    image_as_output,
    padded_output,
    wide_dimensions,
    wide_products,
)


@pytest.mark.parametrize("target", ["tiny", "br104"])
@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_values_at_the_boundary(build: Build, target: str) -> None:
    make = GraphMaker()
    graph = make.graph(*build(make))
    compiled = compile_graph(graph, target)
    compiled.verify()
    assert [port.name for port in compiled.program.inputs] == [value.name for value in graph.inputs]
    assert [port.name for port in compiled.program.outputs] == list(dict.fromkeys(graph.outputs))
    inputs = random_inputs(graph)
    actual = compiled.step(inputs)
    for name, expected in run_graph(graph, inputs).items():
        np.testing.assert_allclose(actual[name], expected, rtol=2e-3, atol=2e-3)
