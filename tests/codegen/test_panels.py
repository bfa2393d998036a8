"""Products of several panels: the engines compute what the graph and onnxruntime do, on one die and two."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from bound_checks import check_bounds
from graph_maker import GraphMaker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machines import with_quick_link
from onnx import TensorProto, helper, numpy_helper
from pipeline import Compiled, compile_graph, compiled_plans

from birc.compiler import compile_model
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.passes.stack_products import StackProducts
from birc.compiler.prove import new_prover
from birc.runtime import load
from birc.runtime.machine import Machine, load_machine
from birc.runtime.timing import simulate

POINT: dict[str, Any] = {"stride": (1, 1), "pads": (0, 0, 0, 0), "dilation": (1, 1), "group": 1}


@dataclass(frozen=True)
class Block:
    """The end of a residual block: the sum of two pointwise convolutions with ReLU, and one behind it."""

    images: int
    size: tuple[int, int]
    channels: tuple[int, int]
    steps: tuple[int, int]
    columns: int

    def graph(self) -> Graph:
        """Of whole numbers, so that nothing is rounded."""
        make, generator = GraphMaker(), np.random.default_rng(1)

        def weights(*shape: int) -> str:
            return make.constant(generator.integers(-2, 3, shape))

        products = []
        for channels, step in zip(self.channels, self.steps, strict=True):
            x = make.input(self.images, channels, *((extent - 1) * step + 1 for extent in self.size))
            inner = make("relu", x) if step == 1 else x
            point = {**POINT, "stride": (step, step)}
            products.append(
                make("conv2d", inner, weights(self.columns, channels, 1, 1), weights(self.columns), **point)
            )
        y = make("relu", make("add", *products))
        return make.graph(make("conv2d", y, weights(5, self.columns, 1, 1), **POINT))

    def inputs(self, graph: Graph) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(2)
        return {v.name: generator.integers(-2, 3, v.type.sizes).astype(np.float32) for v in graph.inputs}


@cache
def machines() -> dict[str, Machine]:
    tiny = load_machine("tiny")
    return {"tiny": tiny, "one die": tiny.with_dies(1), "quick link": with_quick_link("tiny")}


def has_panels(compiled: Compiled) -> bool:
    return any(k.contraction is not None and k.contraction.further for k in compiled.kernels)


blocks = st.builds(
    Block,
    images=st.sampled_from((1, 2, 4)),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    channels=st.sampled_from(((16, 16), (16, 9), (32, 5), (48, 32), (40, 64), (16, 120))),
    steps=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    columns=st.integers(1, 70),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(block=blocks, target=st.sampled_from(("tiny", "one die", "quick link")), seed=st.integers(0, 9))
def test_every_plan_gives_the_same(block: Block, target: str, seed: int) -> None:
    graph = block.graph()
    inputs = block.inputs(graph)
    (expected,) = run_graph(graph, inputs).values()
    stacked = StackProducts().run(graph).graph
    for compiled in compiled_plans(stacked, machines()[target]):
        assert has_panels(compiled)
        compiled.verify()
        check_bounds(compiled)
        new_prover().prove(compiled.plan, compiled.machine)
        stepped, counts = compiled.step_counted(inputs, "random", seed)
        valued, counts_of_values = compiled.values_counted(inputs)
        assert counts == counts_of_values == simulate(compiled.program, compiled.machine).counts
        for values in (stepped, valued):
            (actual,) = values.values()
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("widths", "has"),
    [((16, 16), True), ((32, 5), True), ((16, 16, 16, 3), True), ((5, 8), False), ((16,) * 5, False)],
)
def test_who_only_products_read_is_never_made(widths: tuple[int, ...], has: bool) -> None:
    """Where operations would take much padding, or there are many pieces, they are put together first."""
    make = GraphMaker()
    together = make("concat", *(make.input(2, width, 3, 3) for width in widths), axis=1)
    graph = make.graph(*(make("conv2d", together, make.random(n, sum(widths), 1, 1), **POINT) for n in (4, 7)))
    compiled = compile_graph(graph, "tiny")
    assert has_panels(compiled) == has
    assert len(compiled.lowered.kernels) == (2 if has else 2 + len(widths))
    inputs = {v.name: np.random.default_rng(3).normal(size=v.type.sizes).astype(np.float32) for v in graph.inputs}
    expected = run_graph(graph, inputs)
    for name, actual in compiled.values(inputs).items():
        np.testing.assert_allclose(actual, expected[name], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("other", ["output", "relu", "3 x 3"])
def test_what_others_read_is_made(other: str) -> None:
    make = GraphMaker()
    together = make("concat", make.input(1, 16, 4, 4), make.input(1, 16, 4, 4), axis=1)
    product = make("conv2d", together, make.random(8, 32, 1, 1), **POINT)
    window = make.random(8, 32, 3, 3)
    more = {
        "output": lambda: together,
        "relu": lambda: make("relu", together),
        "3 x 3": lambda: make("conv2d", together, window, **{**POINT, "pads": (1, 1, 1, 1)}),
    }[other]()
    assert not has_panels(compile_graph(make.graph(product, more), "tiny"))


def residual_network() -> onnx.ModelProto:
    """Two residual blocks whose shortcuts are convolutions, the second one with strides."""
    generator = np.random.default_rng(4)
    nodes, initializers = [], []

    def conv(x: str, name: str, shape: tuple[int, int, int], step: int = 1) -> str:
        out, channels, kernel = shape
        values = generator.normal(size=(out, channels, kernel, kernel)) / np.sqrt(channels * kernel * kernel)
        initializers.append(numpy_helper.from_array(values.astype(np.float32), f"{name}.w"))
        initializers.append(numpy_helper.from_array(generator.normal(size=out).astype(np.float32), f"{name}.b"))
        sizes = {"kernel_shape": [kernel] * 2, "strides": [step] * 2, "pads": [kernel // 2] * 4}
        nodes.append(helper.make_node("Conv", [x, f"{name}.w", f"{name}.b"], [name], name, **sizes))
        return name

    def relu(x: str) -> str:
        nodes.append(helper.make_node("Relu", [x], [f"{x}.relu"], f"{x}.relu"))
        return f"{x}.relu"

    x = "x"
    for name, step, (first, last) in zip("pq", (1, 2), pairwise((32, 64, 128)), strict=True):
        inner = relu(conv(relu(conv(x, f"{name}1", (32, first, 1), step)), f"{name}2", (32, 32, 3)))
        sides = conv(inner, f"{name}3", (last, 32, 1)), conv(x, f"{name}4", (last, first, 1), step)
        nodes.append(helper.make_node("Add", sides, [name], name))
        x = relu(name)
    given_, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", (2, 32, 14, 14)), (x, (2, 128, 7, 7)))
    )
    graph = helper.make_graph(nodes, "residual", [given_], [result], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("precision", "tolerance"), [("model", 2e-3), ("bf16", 6e-2), ("fp32", 1e-4)])
@pytest.mark.parametrize("target", ["br100", "br104"])
def test_shortcuts_are_added_in_the_accumulator(target: str, precision: str, tolerance: float) -> None:
    """With and without: the same values, and two kernels less."""
    model = residual_network()
    x = np.random.default_rng(5).normal(size=(2, 32, 14, 14)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    kernels = []
    for level in (0, 2, 3):
        package = compile_model(model, target, precision, opt_level=level)
        assert package is not None
        (actual,) = load(package).run({"x": x}).values()
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)
        (program,) = package.programs.values()
        kernels.append(len(program.kernels))
    assert kernels[1] - kernels[2] == (0 if precision == "fp32" else 2)
