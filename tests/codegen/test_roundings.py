"""Values of narrow types inside a fused kernel have the digits of their type, as if memory were between the nodes."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import pytest
from graph_maker import GraphMaker
from pipeline import Compiled, compile_graph

from birc.compiler.ir.graph import Graph, Node
from birc.runtime.dtypes import dtype

X = np.random.default_rng(0).uniform(0.5, 2.0, (5, 40)).astype(np.float32)
NARROW = {"f16": np.float16, "bf16": ml_dtypes.bfloat16}


def cancelling(element: str) -> tuple[Graph, str]:
    """x * 1.1 - x: the difference shows how the product was rounded."""
    make = GraphMaker()
    x = make.input(*X.shape, element=element)
    product = make("mul", x, make.constant(1.1, element))
    return make.graph(make("sub", product, x)), x


def names(compiled: Compiled) -> set[str]:
    """The kernels, those of all dies counted once."""
    return {kernel.name for kernel in compiled.kernels}


def run(compiled: Compiled, name: str, values: np.ndarray) -> np.ndarray:
    assert len(names(compiled)) == 1
    (stepped,) = compiled.step({name: values}).values()
    (found,) = compiled.values({name: values}).values()
    np.testing.assert_array_equal(stepped, found)
    return stepped


def roundings(compiled: Compiled) -> list[str]:
    kernels = {kernel.name: kernel for kernel in compiled.kernels}
    statements = [s for kernel in kernels.values() for phase in kernel.phases for s in phase.statements]
    return [s.op for s in statements if s.op in ("vtof16", "vtobf16", "vtof8e4m3", "vtof8e5m2")]


@pytest.mark.parametrize("element", NARROW)
def test_each_node_rounds_to_its_type(element: str) -> None:
    graph, name = cancelling(element)
    x = X.astype(NARROW[element])
    factor = np.asarray(1.1, NARROW[element])
    assert roundings(compile_graph(graph)) == [f"vto{element}"]
    np.testing.assert_array_equal(run(compile_graph(graph), name, x), x * factor - x)


@pytest.mark.parametrize("element", NARROW)
def test_within_one_onnx_node_all_digits_are_kept(element: str) -> None:
    graph, name = cancelling(element)
    one = Graph(graph.name, graph.inputs, graph.outputs, _of_one_source(graph.nodes), dict(graph.constants))
    x = X.astype(NARROW[element])
    wide, factor = x.astype(np.float32), np.asarray(1.1, NARROW[element]).astype(np.float32)
    assert not roundings(compile_graph(one))
    np.testing.assert_array_equal(run(compile_graph(one), name, x), (wide * factor - wide).astype(NARROW[element]))


def _of_one_source(nodes: Sequence[Node]) -> tuple[Node, ...]:
    return tuple(node.replace(sources=("n",)) for node in nodes)


@pytest.mark.parametrize(("element", "holder"), [*NARROW.items(), ("f8e4m3", ml_dtypes.float8_e4m3fn)])
def test_a_cast_there_and_back_rounds(element: str, holder: type) -> None:
    make = GraphMaker()
    name = make.input(*X.shape)
    there = make("cast", name, to=dtype(element))
    graph = make.graph(make("neg", make("cast", there, to=dtype("f32"))))
    np.testing.assert_array_equal(run(compile_graph(graph), name, X), -X.astype(holder).astype(np.float32))


def test_what_has_no_more_digits_is_not_rounded_again() -> None:
    make = GraphMaker()
    x, y = make.input(*X.shape, element="f16"), make.input(*X.shape, element="f16")
    graph = make.graph(make("abs", make("relu", make("maximum", make("neg", x), y))))
    assert not roundings(compile_graph(graph))


def test_a_bf16_package_has_its_own_roundings() -> None:
    graph, _ = cancelling("f16")
    assert not roundings(compile_graph(graph, "tiny", "bf16"))


def test_unsigned_words_are_not_passed_on_in_lanes() -> None:
    """A lane holds the upper half of their range as negative numbers."""
    make = GraphMaker()
    x = make.input(4)
    count = make("cast", x, to=dtype("u32"))
    graph = make.graph(make("greater", count, make.constant(5, "u32")))
    values = np.float32([0, 7, 2.0**30, 3])
    (actual,) = compile_graph(graph).step({x: values}).values()
    np.testing.assert_array_equal(actual, [False, True, True, False])
    assert len(names(compile_graph(graph))) == 2
