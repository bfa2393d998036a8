"""Blocks whose layers read what others before them made: that lies side by side once, and nobody copies it."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from pipeline import compiled_plans
from small_networks import CONV

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import Kernel
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.lower.lower import lower_graph
from birc.runtime.machine import load_machine


def dense_block(layers: int, *, channels: int = 16, scaled: bool = True) -> Graph:
    """Layers of a convolution over all channels made so far, `scaled` before; the result are the channels of all."""
    make = GraphMaker()
    image = make("relu", make.input(2, channels, 5, 6))
    made = [image]
    for _ in range(layers):
        whole = make("concat", *made, axis=1) if len(made) > 1 else image
        count = make.type_of(whole).sizes[1]
        if scaled:
            whole = make("relu", make("mul", whole, make.random(count, 1, 1)))
        made.append(make("conv2d", whole, make.random(channels, count, 3, 3), **CONV))
    return make.graph(make("relu", make("concat", *made, axis=1)))


def halved_block(layers: int) -> Graph:
    """Layers that begin with half of the channels of an image; the result are its channels and those of all."""
    make = GraphMaker()
    image = make(
        "relu", make("conv2d", make.input(2, 16, 5, 6), make.random(32, 16, 1, 1), **(CONV | {"pads": (0,) * 4}))
    )
    halves = [
        make("slice", image, starts=(0, first, 0, 0), ends=(2, first + 16, 5, 6), steps=(1,) * 4) for first in (0, 16)
    ]
    for _ in range(layers):
        halves.append(make("relu", make("conv2d", halves[-1], make.random(16, 16, 3, 3), **CONV)))
    return make.graph(make("relu", make("concat", *halves, axis=1)))


GRAPHS = {
    "two layers that read all": dense_block(2),
    "five layers that read all": dense_block(5),
    "layers that read what lies beside": dense_block(2, scaled=False),
    "layers of half the channels": halved_block(2),
}


def _copies(kernel: Kernel) -> bool:
    return kernel.contraction is None and {s.op for phase in kernel.phases for s in phase.statements} == {"vld", "vst"}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_nobody_copies(graph: Graph) -> None:
    kernels = lower_graph(canonicalize(graph), load_machine("tiny"), "model").kernels
    assert not [kernel.name for kernel in kernels if _copies(kernel)]


@pytest.mark.parametrize("target", ["tiny", "br100"])
@pytest.mark.parametrize("precision", ["model", "bf16"])
@pytest.mark.parametrize(
    "graph", [dense_block(4), dense_block(3, scaled=False), halved_block(2)], ids=["all", "beside", "half"]
)
def test_every_plan_gives_the_values(graph: Graph, target: str, precision: str) -> None:
    inputs = random_inputs(graph)
    ((name, expected),) = run_graph(graph, inputs).items()
    for compiled in compiled_plans(graph, target, precision):
        compiled.verify()
        error = np.abs(compiled.values(inputs)[name] - expected).max() / np.abs(expected).max()
        assert error <= {"model": 1e-3, "bf16": 3e-2}[precision]
