"""Reduced axes without factors that a descriptor takes: cut or padded, then computed on the device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from networks import relative_error
from pipeline import compile_graph

from birc.compiler.ir.attributes import integer, integers
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.verify import verify_graph
from birc.compiler.passes.cut_long_axes import CutLongAxes
from birc.compiler.passes.lower.views import factorised
from birc.compiler.passes.rules_long_axes import rules
from birc.runtime.dtypes import dtype

LONGEST = 8
LONG = (11, 34, 62)  # with prime factors beyond 8
TOO_LONG = 2 * LONGEST * LONGEST + 1
DEVICE_LONG = 8209  # the first prime beyond what a dimension of a descriptor takes

Body = Callable[[GraphMaker, int], str]


def reduction(op: str, element: str = "f32", *, keepdims: int = 1) -> Body:
    def body(make: GraphMaker, extent: int) -> str:
        return make(op, make.input(3, extent, 2, element=element), axes=(1, 2), keepdims=keepdims)

    return body


def along(op: str, axis: int) -> Body:
    def body(make: GraphMaker, extent: int) -> str:
        return make(op, make.input(*((3, extent) if axis else (extent, 3))), axis=axis)

    return body


def layer_norm(make: GraphMaker, extent: int) -> str:
    x, scale, bias = make.input(3, extent, 2), make.random(extent, 2), make.random(extent, 1)
    return make("layer_norm", x, scale, bias, axis=1, epsilon=1e-3)


def rms_norm(make: GraphMaker, extent: int) -> str:
    return make("rms_norm", make.input(3, extent), make.random(extent), axis=1, epsilon=1e-3)


def product(make: GraphMaker, extent: int) -> str:
    return make("matmul", make.input(2, 3, extent), make.random(extent, 4))


def product_of_inputs(make: GraphMaker, extent: int) -> str:
    return make("matmul", make.input(2, 3, extent), make.input(2, extent, 4))


def convolution(group: int) -> Body:
    def body(make: GraphMaker, extent: int) -> str:
        x, w = make.input(1, group * extent, 3, 3), make.random(2 * group, extent, 2, 2)
        attributes = {"stride": (1, 1), "pads": (0, 0, 1, 1), "dilation": (1, 1), "group": group}
        return make("conv2d", x, w, make.random(2 * group), **attributes)

    return body


def long_window(channels: int, group: int, axis: int) -> Body:
    def body(make: GraphMaker, extent: int) -> str:
        image, window = ([extent + 7 if place == axis else 2 for place in (0, 1)], [1, 1])
        window[axis] = extent
        x, w = make.input(1, channels, *image), make.random(4, channels // group, *window)
        pads = (2, 0, 1, 0) if axis == 0 else (0, 2, 0, 1)
        return make("conv2d", x, w, make.random(4), stride=(1, 2), pads=pads, dilation=(1, 1), group=group)

    return body


def max_pool(element: str = "f32") -> Body:
    def body(make: GraphMaker, extent: int) -> str:
        x = make.input(1, 2, 3, 2 * extent + 5, element=element)
        return make("max_pool2d", x, kernel=(2, extent), stride=(1, 3), pads=(0, 2, 1, 3), dilation=(1, 2))

    return body


CASES: dict[str, Body] = {
    "cut-reduce-sum": reduction("reduce_sum"),
    "cut-reduce-mean": reduction("reduce_mean", keepdims=0),
    "cut-reduce-max": reduction("reduce_max"),
    "cut-reduce-min": reduction("reduce_min", keepdims=0),
    "cut-reduce-prod": reduction("reduce_prod"),
    "pad-softmax": along("softmax", 1),
    "pad-log-softmax": along("log_softmax", 0),
    "layer-norm-in-steps": layer_norm,
    "rms-norm-in-steps": rms_norm,
    "pad-depth": product,
    "pad-channels": convolution(1),
    "cut-long-window": long_window(3, 1, 1),
    "cut-long-max-pool": max_pool(),
}
OTHERS: dict[str, Body] = {
    "sum of f16": reduction("reduce_sum", "f16"),
    "sum of i32": reduction("reduce_sum", "i32"),
    "mean of i32": reduction("reduce_mean", "i32"),
    "maximum of u8": reduction("reduce_max", "u8"),
    "computed operands": product_of_inputs,
    "groups": convolution(2),
    "window of rows": long_window(4, 2, 0),
    "window of one channel each": long_window(4, 4, 1),
    "pool of i32": max_pool("i32"),
}


def built(body: Body, extent: int) -> Graph:
    make = GraphMaker()
    return make.graph(body(make, extent))


def reduced_extents(graph: Graph) -> list[int]:
    """The lengths of the axes over which the nodes of a graph reduce."""
    found = []
    for node in graph.nodes:
        sizes = graph.type_of(node.inputs[0]).sizes
        if node.op.startswith("reduce_"):
            found += [sizes[axis] for axis in integers(node.attributes, "axes")]
        elif node.op in ("layer_norm", "rms_norm"):
            found += sizes[integer(node.attributes, "axis") :]
        elif node.op in ("softmax", "log_softmax"):
            found.append(sizes[integer(node.attributes, "axis")])
        elif node.op == "matmul":
            found.append(sizes[-1])
        elif node.op == "conv2d":
            found += graph.type_of(node.inputs[1]).sizes[1:]
        elif node.op == "max_pool2d":
            found += integers(node.attributes, "kernel")
    return found


def check(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    for name, reference in expected.items():
        assert actual[name].dtype == reference.dtype
        if np.issubdtype(reference.dtype, np.integer):
            np.testing.assert_array_equal(actual[name], reference)
        else:
            assert relative_error(actual[name], reference) <= tolerance


@pytest.mark.parametrize("extent", LONG)
@pytest.mark.parametrize("name", [*CASES, *OTHERS])
def test_means_the_same_and_has_factors(name: str, extent: int) -> None:
    before = built({**CASES, **OTHERS}[name], extent)
    result = CutLongAxes(LONGEST).run(before)
    assert result.changed
    verify_graph(result.graph)
    extents = reduced_extents(result.graph)
    assert extents
    assert all(factorised(extent, LONGEST) for extent in extents)
    inputs = random_inputs(before, low=0.5)
    check(run_graph(result.graph, inputs), run_graph(before, inputs), 1e-3 if name == "sum of f16" else 1e-6)
    assert not CutLongAxes(LONGEST).run(result.graph).changed


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("cut-long")])
def test_lengths_with_factors_stay(name: str) -> None:
    graph = built(CASES[name], 6 * LONGEST)
    assert CutLongAxes(LONGEST).run(graph).graph is graph


@pytest.mark.parametrize("name", CASES)
def test_beyond_all_lengths_with_factors(name: str) -> None:
    """Pieces may be many; what would have to be padded stays, and is refused where it is lowered."""
    graph = built(CASES[name], TOO_LONG)
    result = CutLongAxes(LONGEST).run(graph)
    assert result.changed == (not name.startswith("pad-"))
    inputs = random_inputs(graph, low=0.9, high=1.1)
    check(run_graph(result.graph, inputs), run_graph(graph, inputs), 1e-5)


def test_every_rule_has_a_case_and_says_what_it_does() -> None:
    assert {rule.name for rule in rules(LONGEST)} == set(CASES)
    assert all(rule.rewrite.__doc__ for rule in rules(LONGEST))


def test_pieces_of_a_sum_stay_in_range() -> None:
    """Both halves of the sum are infinite in FP16, all of it is not."""
    make = GraphMaker()
    graph = make.graph(make("reduce_sum", make.input(2, 22, element="f16"), axes=(1,), keepdims=0))
    x = np.array([[3e4] * 11 + [-3e4] * 11, [1.0] * 22], np.float16)
    cut = CutLongAxes(LONGEST).run(graph)
    assert cut.changed
    (actual,) = run_graph(cut.graph, {"x0": x}).values()
    np.testing.assert_array_equal(actual, np.array([0.0, 22.0], np.float16))


@pytest.mark.parametrize("name", ["cut-reduce-sum", "pad-softmax", "layer-norm-in-steps", "pad-depth", "mean of i32"])
def test_on_the_device(name: str) -> None:
    graph = built({**CASES, **OTHERS}[name], DEVICE_LONG)
    inputs = random_inputs(graph)
    compiled = compile_graph(graph, "tiny")
    check(compiled.values(inputs), run_graph(graph, inputs), 2e-3 if name == "pad-depth" else 2e-5)


WINDOWS: dict[str, Body] = {
    "one channel": long_window(1, 1, 1),
    "many channels": long_window(5, 1, 0),
    "one channel each": long_window(4, 4, 1),
    "max pool": max_pool(),
}


@pytest.mark.parametrize("precision", ["model", "fp32"])
@pytest.mark.parametrize(("name", "extent"), [(name, 8200) for name in WINDOWS] + [("one channel", 3000)])
def test_windows_on_the_device(name: str, extent: int, precision: str) -> None:
    """Also of fewer elements, of which three parts are more than a dimension takes."""
    graph = built(WINDOWS[name], extent)
    inputs = random_inputs(graph)
    compiled = compile_graph(graph, "tiny", precision)
    check(compiled.values(inputs), run_graph(graph, inputs), 2e-3 if precision == "model" else 2e-5)


def test_a_masked_row_has_the_softmax_of_what_is_left() -> None:
    """Minus infinity among the operands and in the padding: neither counts."""
    graph = built(along("softmax", 1), DEVICE_LONG)
    x = np.random.default_rng(0).standard_normal((3, DEVICE_LONG)).astype(np.float32)
    x[:, 5:8200] = -np.inf
    expected = np.exp(x.astype(np.float64))
    expected /= expected.sum(1, keepdims=True)
    (actual,) = compile_graph(graph, "tiny").values({"x0": x}).values()
    assert dtype("f32").numpy == actual.dtype
    assert relative_error(actual, expected) < 1e-6
