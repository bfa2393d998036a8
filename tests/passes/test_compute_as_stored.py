"""Element-wise nodes on transposed images: computed channels last, of the same value, where all readers allow it."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline import compile_graph, fusing

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.verify import verify_graph
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.choose_layouts import ChooseLayouts
from birc.compiler.passes.compute_as_stored import TO_FIRST, TO_LAST, ComputeAsStored
from birc.compiler.passes.reduce_images import ReduceImages
from birc.runtime.machine import load_machine

CONV = {"stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1), "group": 1}
POINT = {**CONV, "pads": (0, 0, 0, 0)}
NORM = {"size": 3, "alpha": 0.1, "beta": 0.5, "k": 1.0}
SHAPE = (2, 4, 6, 5)
LAST = tuple(SHAPE[axis] for axis in TO_LAST)


def as_stored(graph: Graph) -> Graph:
    result = run_passes(graph, (ChooseLayouts(), ReduceImages(), ComputeAsStored()))
    verify_graph(result)
    return result


def check_values(graph: Graph, after: Graph) -> None:
    inputs = random_inputs(graph)
    expected, got, compiled = run_graph(graph, inputs), run_graph(after, inputs), compile_graph(graph).values(inputs)
    for name in graph.outputs:
        np.testing.assert_array_equal(got[name], expected[name])
        np.testing.assert_allclose(compiled[name], expected[name], rtol=2e-3, atol=2e-3)


def elementwise(graph: Graph) -> dict[str, tuple[int, ...]]:
    """The shapes of what sums and rectifiers give."""
    return {node.name: node.output.type.sizes for node in graph.nodes if node.op in ("add", "relu")}


def turned(make: GraphMaker, *, of_product: bool = False) -> str:
    """An image whose channels are last, seen with channels first."""
    image = make.input(*LAST)
    image = make("matmul", image, make.random(4, 4)) if of_product else make("neg", image)
    return make("transpose", image, perm=TO_FIRST)


def test_a_chain_of_blocks_is_computed_channels_last() -> None:
    """What a convolution makes lies so, too: with a product's tokens, as in a ConvNeXt, it is added in that order."""
    make = GraphMaker()
    x = make("conv2d", make.input(*SHAPE), make.random(4, 4, 3, 3), **CONV)
    for _ in range(2):
        rows = make("transpose", make("conv2d", x, make.random(4, 1, 3, 3), **{**CONV, "group": 4}), perm=TO_LAST)
        product = make("matmul", make("relu", rows), make.random(4, 4))
        x = make("add", x, make("transpose", product, perm=TO_FIRST))
    graph = make.graph(make("max_pool2d", x, kernel=(2, 2), stride=(2, 2), pads=(0,) * 4, dilation=(1, 1)))
    after = as_stored(graph)
    assert set(elementwise(after).values()) == {LAST}
    check_values(graph, after)
    fused = run_passes(after, fusing(load_machine("tiny"), "model"))
    bodies = [node.body for node in fused.nodes if node.body is not None]
    with_product = [{n.op for n in body.nodes} for body in bodies if any(n.op == "matmul" for n in body.nodes)]
    assert with_product == [{"matmul", "add"}] * 2


def test_readers_that_want_channels_last_take_them() -> None:
    make = GraphMaker()
    x = make("relu", make("add", turned(make), turned(make)))
    back = make("transpose", x, perm=TO_LAST)
    graph = make.graph(make("lrn", x, **NORM), make("softmax", back, axis=3))
    after = as_stored(graph)
    assert set(elementwise(after).values()) == {LAST}
    (softmax,) = (node for node in after.nodes if node.op == "softmax")
    assert softmax.inputs[0] in elementwise(after)
    check_values(graph, after)


@pytest.mark.parametrize("reader", ["output", "reshape", "elsewhere", "rows"])
def test_what_is_read_channels_first_stays(reader: str) -> None:
    """One reader is enough; so it is for the node in front of a node that stays."""
    make = GraphMaker()
    x = make("add", turned(make), turned(make))
    results = [make("lrn", x, **NORM)]
    match reader:
        case "output":
            results.append(x)
        case "reshape":
            results.append(make("neg", make("reshape", x, shape=(2, 4, 30))))
        case "elsewhere":
            results.append(make("neg", make("transpose", x, perm=(1, 0, 2, 3))))
        case "rows":
            results.append(make("softmax", make("relu", x), axis=3))
    graph = make.graph(*results)
    after = as_stored(graph)
    assert set(elementwise(after).values()) == {SHAPE}
    check_values(graph, after)


def test_operands_that_lie_otherwise_keep_the_order() -> None:
    make = GraphMaker()
    plain = make("lrn", make("add", turned(make), make("neg", make.input(*SHAPE))), **NORM)
    channels = make("lrn", make("add", turned(make), make.random(4, 1, 1)), **NORM)
    after = as_stored(make.graph(plain, channels))
    assert set(elementwise(after).values()) == {SHAPE}


def test_images_without_views_stay() -> None:
    make = GraphMaker()
    x = make("conv2d", make.input(*SHAPE), make.random(4, 4, 1, 1), **POINT)
    y = make("conv2d", make.input(*SHAPE), make.random(4, 4, 1, 1), **POINT)
    graph = make.graph(make("lrn", make("relu", make("add", x, y)), **NORM))
    laid_out = run_passes(graph, (ChooseLayouts(),))
    assert run_passes(laid_out, (ComputeAsStored(),)) is laid_out


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_graph_of_images_and_views_keeps_its_values(data: st.DataObject) -> None:
    """A second run finds nothing left to do."""
    make = GraphMaker()
    values = [turned(make), turned(make, of_product=True), make("lrn", make.input(*SHAPE), **NORM), make.input(*SHAPE)]
    for _ in range(data.draw(st.integers(1, 8))):
        x, y = (data.draw(st.sampled_from(values)) for _ in range(2))
        kind = data.draw(st.sampled_from(["add", "add", "mul", "relu", "lrn", "half", "product"]))
        match kind:
            case "add" | "mul":
                values.append(make(kind, x, y))
            case "relu":
                values.append(make("relu", x))
            case "half":
                values.append(make("mul", x, make.constant(np.float32(0.5))))
            case "lrn":
                values.append(make("lrn", x, **NORM))
            case "product":
                rows = make("matmul", make("transpose", x, perm=TO_LAST), make.random(4, 4))
                values.append(make("transpose", rows, perm=TO_FIRST))
    graph = make.graph(*dict.fromkeys([values[-1], data.draw(st.sampled_from(values[4:]))]))
    after = as_stored(graph)
    inputs = random_inputs(graph)
    expected, got = run_graph(graph, inputs), run_graph(after, inputs)
    for name in graph.outputs:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, atol=1e-5)
    assert run_passes(after, (ComputeAsStored(),)) is after
