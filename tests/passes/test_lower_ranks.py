"""Tensors of more dimensions than an instruction addresses: merged where they lie together, else index by index."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from pipeline import compile_graph, compiled_plans

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.runtime.errors import UnsupportedError
from birc.runtime.program import MAX_BOX_RANK

SHAPE = (4, 2, 3, 2, 2, 1, 2, 3)


def elementwise(make: GraphMaker) -> str:
    return make("relu", make.input(*SHAPE))


def row_of_eight(make: GraphMaker) -> str:
    return make("softmax", make.input(*SHAPE), axis=1)


def sums(make: GraphMaker) -> str:
    return make("reduce_sum", make.input(*SHAPE), axes=(1, 4), keepdims=1)


def rotated(make: GraphMaker) -> str:
    return make("transpose", make.input(*SHAPE), perm=(7, 0, 1, 2, 3, 4, 5, 6))


def swapped_everywhere(make: GraphMaker) -> str:
    return make("transpose", make.input(2, 2, 3, 2, 2, 2, 2, 3), perm=(1, 0, 3, 2, 5, 4, 7, 6))


def broadcast(make: GraphMaker) -> str:
    return make("add", make.input(*SHAPE), make.input(1, 2, 1, 2, 1, 1, 2, 1))


def padded(make: GraphMaker) -> str:
    return make("pad", make.input(*SHAPE), pads=(0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2), value=0.0)


CASES = (elementwise, row_of_eight, sums, rotated, swapped_everywhere, broadcast, padded)


def graph_of(case: object) -> Graph:
    make = GraphMaker()
    return make.graph(case(make))  # type: ignore[operator]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_eight_dimensions(case: object) -> None:
    graph = graph_of(case)
    inputs = random_inputs(graph, 3)
    expected = run_graph(graph, inputs)
    for compiled in compiled_plans(graph):
        compiled.verify()
        assert [port.shape for port in compiled.program.inputs] == [value.type.sizes for value in graph.inputs]
        assert all(len(kernel.par_dims) <= MAX_BOX_RANK for kernel in compiled.kernels)
        for name, array in compiled.step(inputs).items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", ["tiny", "br100"])
def test_gather_along_one_of_eight(target: str) -> None:
    make = GraphMaker()
    x, picked = make.input(*SHAPE), make.constant([2, 0], "i64")
    graph = make.graph(make("gather", x, picked, axis=2))
    inputs = random_inputs(graph, 4)
    (actual,) = compile_graph(graph, target).values(inputs).values()
    np.testing.assert_array_equal(actual, np.take(inputs[x], [2, 0], 2))


def test_too_many_indices_are_refused_with_the_node() -> None:
    make = GraphMaker()
    large = (9, 9, 9, 9, 9, 9, 9, 9)
    graph = make.graph(make("transpose", make.input(*large), perm=(1, 0, 3, 2, 5, 4, 7, 6)))
    with pytest.raises(UnsupportedError, match="walks 8 dimensions") as caught:
        compile_graph(graph)
    assert caught.value.where == "node n0"
