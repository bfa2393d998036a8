"""Reductions over the pixels of images: in two steps where channels are innermost, and of the same value."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from pipeline import compile_graph

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.verify import verify_graph
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.choose_layouts import CHANNELS_LAST, ChooseLayouts
from birc.compiler.passes.reduce_images import ReduceImages

REDUCTIONS = ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min")


def reduced(op: str, side: int, *, keepdims: int = 0, axes: tuple[int, ...] = (2, 3)) -> Graph:
    """The reduction of an image behind an op on images."""
    make = GraphMaker()
    picture = make("lrn", make.input(2, 6, side, side), size=3, alpha=0.1, beta=0.5, k=1.0)
    return make.graph(make("neg", make(op, picture, axes=axes, keepdims=keepdims)))


def in_steps(graph: Graph) -> Graph:
    result = run_passes(graph, (ChooseLayouts(), ReduceImages()))
    verify_graph(result)
    return result


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_large_image_is_reduced_row_by_row(op: str, keepdims: int) -> None:
    graph = reduced(op, 20, keepdims=keepdims)
    after = in_steps(graph)
    first, second = (node for node in after.nodes if node.op == op)
    assert first.output.type.sizes == (2, 6, 20, 1)
    assert first.output.type.layout == CHANNELS_LAST
    assert second.inputs == (first.name,)
    inputs = random_inputs(graph)
    ((name, expected),) = run_graph(graph, inputs).items()
    np.testing.assert_allclose(run_graph(after, inputs)[name], expected, rtol=1e-5)
    np.testing.assert_allclose(compile_graph(graph).values(inputs)[name], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "graph",
    [reduced("reduce_mean", 8), reduced("reduce_prod", 20), reduced("reduce_mean", 20, axes=(1, 2, 3))],
    ids=["small", "product", "channels, too"],
)
def test_other_reductions_stay(graph: Graph) -> None:
    assert len(in_steps(graph).nodes) == len(graph.nodes)


def of_signal(length: tuple[int, int]) -> Graph:
    """The mean of a signal of channels, which lies as the image of one row that it was, seen as one of several rows."""
    make = GraphMaker()
    image = make("lrn", make.input(2, 6, 1, length[0] * length[1]), size=3, alpha=0.1, beta=0.5, k=1.0)
    signal = make("reshape", image, shape=(2, 6, length[0] * length[1]))
    mean = make("reduce_mean", make("reshape", signal, shape=(2, 6, *length)), axes=(2, 3), keepdims=1)
    return make.graph(make("neg", mean))


def test_an_image_that_is_seen_through_views_is_reduced_row_by_row() -> None:
    graph = of_signal((40, 15))
    means = [node for node in in_steps(graph).nodes if node.op == "reduce_mean"]
    assert [node.output.type.sizes for node in means] == [(2, 6, 40, 1), (2, 6, 1, 1)]
    compiled = compile_graph(graph)
    compiled.verify()
    walked = next(kernel for kernel in compiled.kernels if kernel.name == means[0].name)
    assert [dimension.extent for dimension in walked.par_dims][-2:] == [15, 6]
    inputs = random_inputs(graph)
    ((name, expected),) = run_graph(graph, inputs).items()
    np.testing.assert_allclose(compiled.values(inputs)[name], expected, rtol=1e-5, atol=1e-6)


def test_images_that_lie_row_major_stay() -> None:
    make = GraphMaker()
    graph = make.graph(make("reduce_mean", make("neg", make.input(1, 4, 32, 32)), axes=(2, 3), keepdims=1))
    assert in_steps(graph) is graph
