"""Precision `int8`: products of quantised operands run on integers and give what their floats give."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from graph_maker import GraphMaker
from networks import relative_error
from pipeline import Compiled, compile_graph

from birc.compiler.ir.attributes import AttributeValue
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.passes.base import run_pass
from birc.compiler.passes.quantized_products import QuantizedProducts
from birc.runtime.dtypes import dtype

CONV: dict[str, AttributeValue] = {"stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1), "group": 1}


class QuantisedMaker(GraphMaker):
    """Writes quantised models as onnxruntime's quantiser does."""

    def number(self, value: float, element: str = "f32") -> str:
        return self.constant(value, element)

    def through(self, x: str, scale: float, zero: int = 0, element: str = "i8") -> str:
        """A value quantised and dequantised again."""
        parameters = (self.number(scale), self.number(zero, element))
        return self("dequantize", self("quantize", x, *parameters, to=dtype(element)), *parameters)

    def weights(self, *shape: int, axis: int, zero: int | None = None, element: str = "i8") -> str:
        """Constant weights with a scale for each channel on an axis."""
        generator = np.random.default_rng([len(self._constants), *shape])
        limits = np.iinfo(dtype(element).numpy)
        data = generator.integers(limits.min, limits.max, shape, endpoint=True)
        scales = generator.uniform(0.001, 0.01, [n if i == axis else 1 for i, n in enumerate(shape)])
        zeros = [self.constant(np.full(scales.shape, zero), element)] if zero is not None else []
        return self("dequantize", self.constant(data, element), self.constant(scales), *zeros)


def check(graph: Graph, inputs: dict[str, np.ndarray], target: str = "tiny") -> Compiled:
    """The integer graph, on the device, against the float graph in numpy; quantised results may differ by one."""
    changed = run_pass(QuantizedProducts(), graph).graph
    for node in changed.nodes:
        if node.op in ("matmul", "conv2d"):
            assert all(changed.type_of(name).dtype.name == "i8" for name in node.inputs[:2])
    compiled = compile_graph(changed, target)
    compiled.verify()
    by_values = compiled.values(inputs)
    for name, actual in compiled.step(inputs).items():
        np.testing.assert_array_equal(actual, by_values[name])
    for name, expected in run_graph(graph, inputs).items():
        actual = by_values[name]
        assert actual.dtype == expected.dtype
        if graph.type_of(name).dtype.is_float:
            assert relative_error(actual, expected) <= 2e-6
        else:
            difference = np.abs(actual.astype(int) - expected.astype(int))
            assert difference.max() <= 1
            assert (difference > 0).mean() <= 0.01
    return compiled


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("a", "b"), list(itertools.product((("i8", 0), ("i8", -7), ("u8", 128), ("u8", 30)), repeat=2))
)
def test_products_of_two_computed_matrices(a: tuple[str, int], b: tuple[str, int]) -> None:
    make = QuantisedMaker()
    x, y = make.input(2, 5, 40), make.input(40, 6)
    left, right = (make.through(v, 0.02, zero, element) for v, (element, zero) in ((x, a), (y, b)))
    check(make.graph(make("matmul", left, right)), {x: random(2, 5, 40), y: random(40, 6, seed=1)})


@pytest.mark.parametrize(("element", "zero"), [("i8", None), ("i8", 3), ("u8", 128), ("u8", 9)])
def test_products_with_constant_weights(element: str, zero: int | None) -> None:
    make = QuantisedMaker()
    x = make.input(7, 40)
    left = make.through(x, 0.02, 17, "u8")
    product = make("matmul", left, make.weights(40, 6, axis=1, zero=zero, element=element))
    check(make.graph(make("add", product, make.random(6))), {x: random(7, 40)})


def test_turned_weights() -> None:
    make = QuantisedMaker()
    x = make.input(7, 40)
    weights = make("transpose", make.weights(6, 40, axis=0), perm=(1, 0))
    check(make.graph(make("matmul", make.through(x, 0.02), weights)), {x: random(7, 40)})


def test_an_integer_input_of_the_model() -> None:
    make = QuantisedMaker()
    x = make.input(7, 40, element="u8")
    left = make("dequantize", x, make.number(0.02), make.number(5, "u8"))
    data = np.random.default_rng(0).integers(0, 256, (7, 40), np.uint8)
    check(make.graph(make("matmul", left, make.weights(40, 6, axis=1))), {x: data})


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, AttributeValue]]] = {
    "padded": ((2, 4, 9, 8), (6, 4, 3, 3), {}),
    "grouped": ((2, 6, 7, 7), (9, 2, 3, 3), {"group": 3, "stride": (2, 1)}),
    "depthwise": ((1, 6, 7, 7), (6, 1, 3, 3), {"group": 6}),
    "pointwise": ((1, 40, 5, 5), (8, 40, 1, 1), {"pads": (0, 0, 0, 0)}),
}


@pytest.mark.parametrize("bias", ["none", "quantised", "float"])
@pytest.mark.parametrize("zero", [None, 3, 100])
@pytest.mark.parametrize(("element", "zero_of_x"), [("i8", 0), ("u8", 30)])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str, element: str, zero_of_x: int, zero: int | None, bias: str) -> None:
    shape, kernel, changed = CONVOLUTIONS[name]
    make = QuantisedMaker()
    x = make.input(*shape)
    image = make.through(x, 0.02, zero_of_x, element)
    weights = make.weights(*kernel, axis=0, zero=zero)
    biases = []
    if bias == "float":
        biases = [make.random(kernel[0])]
    elif bias == "quantised":
        scales = next(node for node in make._nodes if node.name == weights).inputs[1]
        own = np.asarray(make._constants[scales].data).reshape(-1) * np.float32(0.02)
        whole = make.constant(np.arange(kernel[0]) * 100 - 250, "i32")
        biases = [make("dequantize", whole, make.constant(own))]
    convolution = make("conv2d", image, weights, *biases, **{**CONV, **changed})
    compiled = check(make.graph(convolution), {x: random(*shape)})
    if bias == "quantised" and zero_of_x and element == "u8":
        assert not _float_additions(compiled.graph)


def _float_additions(graph: Graph) -> int:
    """Additions of floats: beside a zero point, a bias that was quantised is added to the sums."""
    nodes = [inner for node in graph.nodes for inner in (node.body.nodes if node.body is not None else (node,))]
    return sum(node.op == "add" and node.output.type.dtype.is_float for node in nodes)


def test_computed_weights() -> None:
    make = QuantisedMaker()
    x, w = make.input(2, 4, 9, 8), make.input(6, 4, 3, 3)
    image, weights = make.through(x, 0.02, 30, "u8"), make.through(w, 0.01, 3)
    graph = make.graph(make("conv2d", image, weights, **CONV))
    check(graph, {x: random(2, 4, 9, 8), w: random(6, 4, 3, 3)})


def _block(make: QuantisedMaker, x: str, element: str, zero: int) -> str:
    """A residual block: every value between its operators is quantised."""
    image = make.through(x, 0.02, zero, element)
    pooled = make("max_pool2d", image, kernel=(2, 2), stride=(1, 1), pads=(0, 0, 1, 1), dilation=(1, 1))
    again = make.through(pooled, 0.02, zero, element)
    first = make("relu", make("conv2d", again, make.weights(8, 8, 3, 3, axis=0), **CONV))
    inner = make.through(first, 0.05, zero, element)
    second = make.through(make("conv2d", inner, make.weights(8, 8, 3, 3, axis=0), **CONV), 0.1, zero, element)
    total = make("relu", make("add", second, again))
    least = np.iinfo(dtype(element).numpy).min
    return make("quantize", total, make.number(0.1), make.number(least, element), to=dtype(element))


@pytest.mark.parametrize("target", ["br100", "br104", "tiny"])
@pytest.mark.parametrize(("element", "zero"), [("i8", 0), ("i8", -128), ("u8", 0), ("u8", 128)])
def test_a_residual_block(element: str, zero: int, target: str) -> None:
    make = QuantisedMaker()
    x = make.input(2, 8, 10, 10)
    compiled = check(make.graph(_block(make, x, element, zero)), {x: random(2, 8, 10, 10)}, target)
    assert all(k.contraction is None or k.contraction.format == "s8" for k in compiled.kernels)


def test_operands_that_vary_along_the_sum_stay_floats() -> None:
    make = QuantisedMaker()
    x = make.input(7, 40)
    product = make("matmul", make.through(x, 0.02), make.weights(40, 6, axis=0))
    graph = make.graph(product)
    changed = run_pass(QuantizedProducts(), graph)
    assert all(
        changed.graph.type_of(node.inputs[0]).dtype.is_float for node in changed.graph.nodes if node.op == "matmul"
    )


def test_little_is_left_between_the_sums_and_the_next_integers() -> None:
    make = QuantisedMaker()
    x = make.input(2, 8, 10, 10)
    image = make("conv2d", make.through(x, 0.02), make.weights(8, 8, 3, 3, axis=0), make.random(8), **CONV)
    compiled = check(make.graph(make.through(make("relu", image), 0.05)), {x: random(2, 8, 10, 10)})
    (product,) = [k for k in compiled.kernels if k.contraction is not None][:1]
    moves = ("vld", "vst", "vacc")
    ops = [s.op for phase in product.phases for s in phase.statements if s.op not in moves]
    assert ops[:7] == ["vmul", "vadd", "vmax", "vround", "vmin", "vtoint", "vtofloat"]
