"""Blocks in which every layer reads what all before it made: that lies side by side once, and nobody copies it."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from pipeline import compiled_plans

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import Kernel
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.lower.lower import lower_graph
from birc.runtime.machine import load_machine

CONV: dict[str, object] = {"stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1), "group": 1}


def dense_block(layers: int, *, channels: int = 16) -> Graph:
    """Layers of a norm and a convolution over all channels made so far; the result are the channels of all."""
    make = GraphMaker()
    image = make("relu", make.input(2, channels, 5, 6))
    made = [image]
    for _ in range(layers):
        whole = make("concat", *made, axis=1) if len(made) > 1 else image
        count = make.type_of(whole).sizes[1]
        scaled = make("relu", make("mul", whole, make.random(count, 1, 1)))
        made.append(make("conv2d", scaled, make.random(channels, count, 3, 3), **CONV))
    return make.graph(make("relu", make("concat", *made, axis=1)))


def _copies(kernel: Kernel) -> bool:
    return kernel.contraction is None and {s.op for phase in kernel.phases for s in phase.statements} == {"vld", "vst"}


@pytest.mark.parametrize("layers", [2, 5])
def test_nobody_copies(layers: int) -> None:
    kernels = lower_graph(canonicalize(dense_block(layers)), load_machine("tiny"), "model").kernels
    assert not [kernel.name for kernel in kernels if _copies(kernel)]


@pytest.mark.parametrize("target", ["tiny", "br100"])
@pytest.mark.parametrize("precision", ["model", "bf16"])
def test_every_plan_gives_the_values(target: str, precision: str) -> None:
    graph = dense_block(4)
    inputs = random_inputs(graph)
    ((name, expected),) = run_graph(graph, inputs).items()
    for compiled in compiled_plans(graph, target, precision):
        compiled.verify()
        error = np.abs(compiled.values(inputs)[name] - expected).max() / np.abs(expected).max()
        assert error <= {"model": 1e-3, "bf16": 3e-2}[precision]
