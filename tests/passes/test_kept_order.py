"""Images that have to be copied to be seen with other dimensions stay channels last where only images read them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from pipeline import compiled_plans, fusing
from small_networks import CONV

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import Kernel
from birc.compiler.ir.plan_access import accesses, step_alone
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.lower import lower_graph
from birc.runtime.machine import load_machine

Body = Callable[[GraphMaker], str]
TINY = load_machine("tiny")
POINT = CONV | {"pads": (0,) * 4}


def conv(make: GraphMaker, x: str, channels: int) -> str:
    return make("conv2d", x, make.random(channels, make.type_of(x).sizes[1], 1, 1), **POINT)


def repeated(make: GraphMaker, x: str) -> str:
    """An image [1, c, h, w] with each pixel as two by two."""
    _, c, h, w = make.type_of(x).sizes
    apart = make("reshape", x, shape=(1, c, h, 1, w, 1))
    return make("reshape", make("expand", apart, shape=(1, c, h, 2, w, 2)), shape=(1, c, 2 * h, 2 * w))


def shuffled(make: GraphMaker, x: str) -> str:
    """An image with channels of two groups in turn."""
    _, c, h, w = make.type_of(x).sizes
    groups = make("transpose", make("reshape", x, shape=(1, 2, c // 2, h, w)), perm=(0, 2, 1, 3, 4))
    return make("reshape", groups, shape=(1, c, h, w))


def joined(make: GraphMaker) -> str:
    """The neck of a detector: what is repeated and what is finer are one image."""
    coarse, fine = conv(make, make.input(1, 16, 3, 5), 16), conv(make, make.input(1, 16, 6, 10), 16)
    return make("relu", conv(make, make("concat", repeated(make, coarse), fine, axis=1), 16))


def turned(make: GraphMaker) -> str:
    return make("relu", conv(make, shuffled(make, conv(make, make.input(1, 16, 4, 6), 32)), 16))


def as_rows(make: GraphMaker) -> str:
    """A product wants the rows that it reads as they are in the graph."""
    image = repeated(make, conv(make, make.input(1, 16, 3, 5), 16))
    return make("matmul", make("reshape", image, shape=(16, 60)), make.random(60, 8))


def fused(body: Body) -> Graph:
    make = GraphMaker()
    graph = canonicalize(make.graph(body(make)))
    return run_passes(graph, (*LEGALIZE, *fusing(TINY, "model")))


def copies(graph: Graph) -> list[Kernel]:
    return [k for k in lower_graph(graph, TINY, "model").kernels if k.name.endswith(".dense")]


@pytest.mark.parametrize("body", [joined, turned])
def test_channels_stay_inside(body: Body) -> None:
    (copy,) = copies(fused(body))
    *_, last = (d.name for d in copy.par_dims if d.extent > 1)
    read, written = accesses(copy)
    assert step_alone(copy, written, last) == 1
    assert step_alone(copy, read, last) in (1, 16)  # of shuffled channels those of the other group are next


def test_products_read_rows() -> None:
    (copy,) = copies(fused(as_rows))
    _, written = accesses(copy)
    view = written.view
    steps = [stride for stride, extent in zip(view.strides, view.dims, strict=True) if extent > 1]
    assert steps == sorted(steps, reverse=True)


@pytest.mark.parametrize("target", ["tiny", "br100"])
@pytest.mark.parametrize("body", [joined, turned, as_rows])
def test_every_plan_gives_the_values(body: Body, target: str) -> None:
    make = GraphMaker()
    graph = make.graph(body(make))
    inputs = random_inputs(graph)
    ((name, expected),) = run_graph(graph, inputs).items()
    for compiled in compiled_plans(graph, target, "model"):
        compiled.verify()
        np.testing.assert_allclose(compiled.values(inputs)[name], expected, rtol=1e-3, atol=1e-2)
