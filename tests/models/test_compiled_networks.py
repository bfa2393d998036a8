"""Whole networks: compiled, verified, run by the engines, compared with PyTorch or onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pytest
from bound_checks import check_bounds
from networks import (
    EXPORTED,
    EXPORTED_FOLDER,
    OTHER_OPSETS,
    SHIPPED,
    exported_network,
    onnxruntime_outputs,
    relative_error,
    shipped_network,
)
from pipeline import Compiled, Values, compile_graph

from birc.compiler.driver import compile_model
from birc.compiler.importer.importer import import_model
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.table import row
from birc.compiler.passes.canonicalize import canonicalize
from birc.runtime.session import load
from birc.runtime.timing import simulate
from birc.runtime.verifier.verify import verify_program

TOLERANCE = {"model": 2e-3, "bf16": 2e-2}
ENGINE_TOLERANCE = 1e-4  # the values engine sums in another order
SLOW = {
    ("vgg19", "br100", "bf16"),
    ("vgg19", "br104", "model"),
    ("vgg19", "br104", "bf16"),
    ("densenet121", "br104", "bf16"),
}


FOLDED_MACS = dict.fromkeys(("lstm", "lstm_opset13"), 4 * 4 * 32 * 32)
"""Products of weights with the state before the first step, which is 0: four cells, four gates, 32 by 32."""


class Reference(NamedTuple):
    """A canonical graph, inputs for it, what must come out, and the multiply-adds of the model that are not folded."""

    graph: Graph
    inputs: Values
    outputs: Values
    macs: int


@lru_cache(maxsize=1)
def _reference(name: str, is_shipped: bool) -> Reference:
    if is_shipped:
        network = shipped_network(name)
        outputs = onnxruntime_outputs(network.model, network.inputs)
        imported = import_model(network.model)
        return Reference(canonicalize(imported), network.inputs, outputs, _macs(imported))
    exported = exported_network(name)
    imported = import_model(exported.model)
    macs = _macs(imported) - FOLDED_MACS.get(name, 0)
    return Reference(canonicalize(imported), exported.inputs, exported.outputs, macs)


def _macs(graph: Graph) -> int:
    """The multiply-adds of a graph by the rows' own rule."""
    total = 0
    for node in graph.nodes:
        inputs = [graph.type_of(name) for name in node.present_inputs]
        outputs = [value.type for value in node.outputs]
        total += row(node.op).cost(inputs, outputs, node.attributes).macs
    return total


def _check(reference: Reference, compiled: Compiled, precision: str) -> None:
    compiled.verify()
    assert compiled.program.useful_macs == reference.macs
    actual = compiled.values(reference.inputs)
    assert actual.keys() == reference.outputs.keys()
    for name, expected in reference.outputs.items():
        error = relative_error(actual[name], expected)
        assert error <= TOLERANCE[precision]


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("target", ["br100", "br104", "tiny"])
@pytest.mark.parametrize("name", (*EXPORTED, *OTHER_OPSETS))
def test_exported_network(name: str, target: str, precision: str) -> None:
    reference = _reference(name, False)
    compiled = compile_graph(reference.graph, target, precision, clean=False)
    _check(reference, compiled, precision)
    if precision == "bf16":
        check_bounds(compiled)


def _shipped() -> Iterator[object]:
    for name in SHIPPED:
        for target in ("br100", "br104", "tiny"):
            for precision in TOLERANCE:
                is_slow = target == "tiny" or (name, target, precision) in SLOW
                marks = [pytest.mark.slow] if is_slow else []
                yield pytest.param(name, target, precision, marks=marks, id=f"{name}-{target}-{precision}")


@pytest.mark.parametrize(("name", "target", "precision"), list(_shipped()))
def test_shipped_network(name: str, target: str, precision: str) -> None:
    reference = _reference(name, True)
    _check(reference, compile_graph(reference.graph, target, precision, clean=False), precision)


@pytest.mark.parametrize("target", ["br100", "tiny"])
@pytest.mark.parametrize("name", ["bert_base", "gpt2", "mobilenet_v2"])
def test_engines_count_the_same(name: str, target: str) -> None:
    reference = _reference(name, False)
    compiled = compile_graph(reference.graph, target, clean=False)
    stepped, counts = compiled.step_counted(reference.inputs)
    computed, counts_of_values = compiled.values_counted(reference.inputs)
    assert counts_of_values == counts
    assert simulate(compiled.program, compiled.machine).counts == counts
    for output, expected in stepped.items():
        assert relative_error(computed[output], expected) <= ENGINE_TOLERANCE


@pytest.mark.parametrize("name", (*EXPORTED, *OTHER_OPSETS))
def test_package_of_a_network(name: str) -> None:
    """The way of a user: a file of a model in, a session on the package out."""
    reference = _reference(name, False)
    package = compile_model(EXPORTED_FOLDER / f"{name}.onnx", "br100")
    assert package is not None
    verify_program(package.program, package.machine)
    for output, actual in load(package).run(reference.inputs).items():
        assert actual.dtype == reference.outputs[output].dtype
        assert relative_error(actual, reference.outputs[output]) <= TOLERANCE["model"]


def test_random_order_of_a_network() -> None:
    reference = _reference("gpt2", False)
    compiled = compile_graph(reference.graph, "tiny", clean=False)
    expected = compiled.step(reference.inputs)
    for name, actual in compiled.step(reference.inputs, "random", seed=3).items():
        np.testing.assert_array_equal(actual, expected[name])
