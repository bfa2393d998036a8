"""A softmax over the columns of a product, in the kernel of the product."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from pipeline import compile_graph

from birc.compiler.ir.interpreter import run_graph

Build = Callable[[GraphMaker, str, int, int], str]


def plain(make: GraphMaker, scores: str, rows: int, columns: int) -> str:
    return make("softmax", scores, axis=1)


def masked(make: GraphMaker, scores: str, rows: int, columns: int) -> str:
    scaled = make("mul", scores, make.constant(0.125))
    return make("softmax", make("add", scaled, make.input(1, columns)), axis=1)


def masked_before_and_after(make: GraphMaker, scores: str, rows: int, columns: int) -> str:
    """The mask's tiles are read in two phases: they stay in registers beside the sums."""
    mask = make.input(rows, columns)
    return make("mul", make("softmax", make("add", scores, mask), axis=1), mask)


def shut_rows(make: GraphMaker, scores: str, rows: int, columns: int) -> str:
    """Rows of which every element is as low as can be are uniform."""
    mask = np.zeros((rows, 1), np.float32)
    mask[::3] = np.finfo(np.float32).min
    return make("softmax", make("add", scores, make.constant(np.repeat(mask, columns, axis=1))), axis=1)


@pytest.mark.parametrize("target", ["tiny", "br100"])
@pytest.mark.parametrize("columns", [40, 128, 192, 250])
@pytest.mark.parametrize("build", [plain, masked, masked_before_and_after, shut_rows], ids=lambda b: b.__name__)
def test_values(build: Build, columns: int, target: str) -> None:
    rows, depth = 70, 16
    make = GraphMaker()
    scores = make("matmul", make.input(rows, depth), make.input(depth, columns))
    graph = make.graph(build(make, scores, rows, columns))
    compiled = compile_graph(graph, target)
    compiled.verify()
    inputs = random_inputs(graph)
    (expected,), (actual,) = run_graph(graph, inputs).values(), compiled.values(inputs).values()
    np.testing.assert_allclose(actual, expected, rtol=4e-3, atol=1e-5)


def test_one_kernel_computes_both() -> None:
    make = GraphMaker()
    scores = make("matmul", make.input(70, 16), make.input(16, 192))
    compiled = compile_graph(make.graph(make("softmax", scores, axis=1)), "br100")
    assert {len(kernel.phases) for kernel in compiled.kernels} == {5}
