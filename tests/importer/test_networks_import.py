"""Real networks: the imported graph and its canonical form against onnxruntime or PyTorch's own outputs."""

from __future__ import annotations

import onnx
import pytest
from networks import EXPORTED, OTHER_OPSETS, exported_network, onnxruntime_outputs, relative_error, shipped_network

from birc.compiler.importer.importer import import_model
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.passes.canonicalize import canonicalize

DEFAULT_SHIPPED = ("bvlc_alexnet", "densenet121", "shufflenet", "squeezenet")
MOST_RELATIVE_ERROR = 1e-5


def check_names(model: onnx.ModelProto, graph: Graph) -> None:
    alive = {source for node in graph.nodes for source in node.sources}
    gone = {fate.source for fate in graph.fates}
    assert not alive & gone
    assert {node.name for node in model.graph.node if node.name} <= alive | gone


def check(model: onnx.ModelProto, inputs: dict, expected: dict) -> Graph:
    graph = import_model(model)
    canonical = canonicalize(graph)
    for form in (graph, canonical):
        check_names(model, form)
        actual = run_graph(form, inputs)
        assert set(actual) == set(expected)
        for name, reference in expected.items():
            assert relative_error(actual[name], reference) < MOST_RELATIVE_ERROR
    assert canonicalize(canonical) is canonical
    return canonical


@pytest.mark.parametrize("name", DEFAULT_SHIPPED)
def test_shipped(name: str) -> None:
    network = shipped_network(name)
    expected = onnxruntime_outputs(network.model, network.inputs)
    canonical = check(network.model, network.inputs, expected)
    assert not any(node.op == "batch_norm" for node in canonical.nodes)


@pytest.mark.parametrize("name", (*EXPORTED, *OTHER_OPSETS))
def test_exported(name: str) -> None:
    network = exported_network(name)
    expected = onnxruntime_outputs(network.model, network.inputs)
    check(network.model, network.inputs, expected)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("gpt2", {"gelu": 2}), ("bert_base", {"gelu": 2}), ("llama2l", {"rms_norm": 5, "silu": 2})],
)
def test_composites_are_recognised(name: str, wanted: dict[str, int]) -> None:
    canonical = canonicalize(import_model(exported_network(name).model))
    ops = [node.op for node in canonical.nodes]
    assert {op: ops.count(op) for op in wanted} == wanted
    assert not {"erf", "pow", "rsqrt", "sigmoid"} & set(ops)
