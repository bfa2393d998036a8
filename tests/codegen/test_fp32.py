"""Precision `fp32`: products of FP32 numbers are as good as FP32's own, everywhere in its range."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from networks import relative_error
from op_cases import OpCase, larger, samples
from pipeline import Compiled, compile_graph, compiled_plans
from small_networks import attention, image_classifier

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.passes.lower.parts import constant_parts
from birc.runtime.dtypes import round_tf32p

Build = Callable[[GraphMaker], str]

FP32_EPSILON = 2.0**-24
CONV = {"stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1), "group": 1}


def _contractions() -> list[object]:
    found = [case for case in (*samples(), *larger()) if case.entry.category == "contraction"]
    return [pytest.param(case, id=case.label) for case in found if case.build() is not None and _is_f32(case)]


def _is_f32(case: OpCase) -> bool:
    return all(type.dtype.name == "f32" for type in case.sample.types)


@pytest.mark.parametrize("case", _contractions())
def test_contractions_on_operands_of_every_kind(case: OpCase) -> None:
    built = case.build()
    if built is None:
        raise ValueError(f"{case.label} does not apply")
    graph, inputs = built
    compiled = compile_graph(graph, "tiny", "fp32")
    compiled.verify()
    for name, expected in run_graph(graph, inputs).items():
        assert relative_error(compiled.step(inputs)[name], expected) <= 16 * FP32_EPSILON


def _product(a: np.ndarray, b: np.ndarray, *, constant: bool, target: str = "br100") -> tuple[Compiled, np.ndarray]:
    make = GraphMaker()
    left = make.input(*a.shape)
    right = make.constant(b) if constant else make.input(*b.shape)
    compiled = compile_graph(make.graph(make("matmul", left, right)), target, "fp32")
    compiled.verify()
    inputs = {left: a} if constant else {left: a, right: b}
    (result,) = compiled.values(inputs).values()
    return compiled, result


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("target", ["br100", "br104", "tiny"])
def test_products_against_float64(target: str, constant: bool) -> None:
    generator = np.random.default_rng(5)
    for rows, depth, columns in ((3, 7, 5), (64, 64, 64), (37, 1000, 51), (8, 4099, 130)):
        a = generator.standard_normal((rows, depth)).astype(np.float32)
        b = generator.standard_normal((depth, columns)).astype(np.float32)
        compiled, result = _product(a, b, constant=constant, target=target)
        wide = a.astype(np.float64) @ b.astype(np.float64)
        own = relative_error(a @ b, wide)
        assert relative_error(result, wide) <= 3 * own
        assert compiled.program.useful_macs == rows * depth * columns


def test_the_extra_products_are_executed() -> None:
    make = GraphMaker()
    graph = make.graph(make("matmul", make.input(64, 64), make.input(64, 64)))
    inputs = random_inputs(graph)
    plain, fine = (compile_graph(graph, "br100", precision) for precision in ("model", "fp32"))
    assert fine.step_counted(inputs)[1].total().macs == 3 * plain.step_counted(inputs)[1].total().macs


@pytest.mark.parametrize("constant", [False, True])
def test_the_whole_range_of_fp32(constant: bool) -> None:
    """One product an element: infinities, NaNs, the largest and small numbers give what FP32 gives."""
    limit = float(np.finfo(np.float32).max)
    numbers = [0.0, 1.0, -1.0, 1 + 2**-16, 1 + 2**-23, limit, -limit, np.inf, -np.inf, np.nan, 2e-30, 1e38, 3.1e38]
    column = np.array(numbers, np.float32)[:, None]
    row = np.array([1.0, 0.5, -1.0, 1 / 3, 0.0, np.inf, 1e-20, 1 + 2**-23], np.float32)[None, :]
    _, result = _product(column, row, constant=constant)
    with np.errstate(all="ignore"):
        expected = column * row
    np.testing.assert_allclose(result, expected, rtol=4 * FP32_EPSILON)


def test_exact_constants_need_two_products() -> None:
    a = np.random.default_rng(1).standard_normal((16, 32)).astype(np.float32)
    ones = np.tile(np.array([1.0, 0.0, -3.0, 0.5], np.float32), (32, 2))
    compiled, result = _product(a, ones, constant=True)
    assert relative_error(result, a.astype(np.float64) @ ones) <= 4 * FP32_EPSILON
    (product,) = [k for k in compiled.kernels if k.contraction is not None][:1]
    assert product.red_dims[-1].extent == 2 * 32


def test_constant_parts_are_tf32p_and_add_up() -> None:
    generator = np.random.default_rng(2)
    bits = generator.integers(0, 1 << 32, 20_000, dtype=np.uint32)
    x = bits.view(np.float32)
    x = x[np.isfinite(x) & (np.abs(x) > 1e-30)]
    low, finite, high = np.split(constant_parts(x, 0, ("low", "finite", "high")), 3)
    assert np.array_equal(high, finite)
    assert np.array_equal(high.astype(np.float64) + low, x.astype(np.float64))
    assert np.array_equal(round_tf32p(high), high)
    assert np.array_equal(round_tf32p(low), low)


def _expanded(make: GraphMaker) -> str:
    """Operands that repeat along a dimension."""
    rows = make("expand", make.input(1, 24), shape=(6, 24))
    return make("matmul", make("expand", rows, shape=(2, 6, 24)), make.input(24, 10))


def _shared(make: GraphMaker) -> str:
    """Two products of one operand."""
    x = make.input(6, 24)
    return make("add", make("matmul", x, make.random(24, 10)), make("matmul", x, make.random(24, 10)))


def _many_channels(make: GraphMaker) -> str:
    """More channels than a descriptor dimension takes three times."""
    return make("conv2d", make.input(1, 3000, 2, 2), make.random(4, 3000, 1, 1), **{**CONV, "pads": (0, 0, 0, 0)})


def _grouped(make: GraphMaker) -> str:
    return make("conv2d", make.input(2, 12, 9, 9), make.input(6, 4, 3, 3), make.random(6), **{**CONV, "group": 3})


@pytest.mark.parametrize("build", [_expanded, _shared, _many_channels, _grouped], ids=lambda build: build.__name__)
def test_shapes(build: Build) -> None:
    make = GraphMaker()
    graph = make.graph(build(make))
    _check(graph, compile_graph(graph, "br100", "fp32"))


def test_an_operand_is_split_once() -> None:
    make = GraphMaker()
    compiled = compile_graph(make.graph(_shared(make)), "br104", "fp32")
    assert sum(kernel.name.endswith(".parts") for kernel in compiled.kernels) == 1


@pytest.mark.parametrize("target", ["br100", "br104", "tiny"])
@pytest.mark.parametrize("build", [image_classifier, attention], ids=lambda build: build.__name__)
def test_every_plan_of_small_networks(build: Build, target: str) -> None:
    make = GraphMaker()
    graph = make.graph(build(make))
    for compiled in compiled_plans(graph, target, "fp32"):
        _check(graph, compiled)


def _check(graph: Graph, compiled: Compiled) -> None:
    inputs = random_inputs(graph)
    compiled.verify()
    by_steps, counts = compiled.step_counted(inputs)
    by_values, counts_of_values = compiled.values_counted(inputs)
    assert counts == counts_of_values
    for name, expected in run_graph(graph, inputs).items():
        assert relative_error(by_steps[name], expected) <= 64 * FP32_EPSILON
        assert relative_error(by_values[name], expected) <= 64 * FP32_EPSILON


def test_equal_columns_have_equal_sums() -> None:
    """A vector times equal columns, none of which is at the end of a BLAS kernel."""
    a = np.random.default_rng(4).uniform(1, 2, (1, 4096)).astype(np.float32)
    _, result = _product(a, np.full((4096, 1000), 0.02, np.float32), constant=True)
    assert len(np.unique(result)) == 1
