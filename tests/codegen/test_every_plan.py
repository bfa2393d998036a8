"""Every plan that the partition phase proposes is a right one: one die or two, samples on SPCs, the batch in chunks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from networks import EXPORTED, exported_network, relative_error
from pipeline import compiled_plans
from small_networks import attention, image_classifier, long_rows, movements, wide_blocks

from birc.compiler.importer.importer import import_model
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph

Build = Callable[[GraphMaker], str]


@pytest.mark.parametrize("target", ["br100", "br104", "tiny"])
@pytest.mark.parametrize("build", [image_classifier, attention, movements, long_rows], ids=lambda build: build.__name__)
def test_small_networks(build: Build, target: str) -> None:
    make = GraphMaker()
    graph = make.graph(build(make))
    _check(graph, target)


def _check(graph: Graph, target: str) -> None:
    inputs = random_inputs(graph)
    expected = run_graph(graph, inputs)
    count = 0
    for compiled in compiled_plans(graph, target):
        compiled.verify()
        by_steps, counts = compiled.step_counted(inputs)
        by_values, counts_of_values = compiled.values_counted(inputs)
        assert counts_of_values == counts
        for name, reference in expected.items():
            assert relative_error(by_steps[name], reference) <= 2e-3
            assert relative_error(by_values[name], reference) <= 2e-3
        count += 1
    assert count >= 1


def test_chunks_that_pass_segments_together() -> None:
    make = GraphMaker()
    _check(make.graph(wide_blocks(make)), "tiny")


@pytest.mark.parametrize("target", ["br100", "tiny"])
@pytest.mark.parametrize("name", EXPORTED)
def test_exported_networks(name: str, target: str) -> None:
    model, inputs, outputs = exported_network(name)
    for compiled in compiled_plans(import_model(model), target):
        compiled.verify()
        for key, actual in compiled.values(inputs).items():
            assert relative_error(actual, outputs[key]) <= 2e-3


def test_kernels_that_differ_in_the_sign_of_a_zero_have_code_of_their_own() -> None:
    """Where the condition does not hold, one result is 0 and the other -0."""
    make = GraphMaker()
    x, unit = make.input(64, 64), make.constant(np.eye(64))
    condition = make.input(64, 64, element="bool")
    chosen = []
    for zero in (0.0, -0.0):
        x = make("where", condition, make("matmul", x, unit), make.splat(zero, 64, 64))
        chosen.append(x)
    graph = make.graph(*chosen)
    inputs = {"x0": np.ones((64, 64), np.float32), "x1": np.zeros((64, 64), np.bool_)}
    for compiled in compiled_plans(graph, "tiny"):
        values = compiled.values(inputs)
        assert [np.signbit(values[name]).all() for name in chosen] == [False, True]
        assert not any(values[name].any() for name in chosen)
