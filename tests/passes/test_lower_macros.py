"""Element-wise ops as vector instructions: special values, signs, integers, immediates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graph_maker import GraphMaker
from hypothesis import example, given, settings
from hypothesis import strategies as st
from macro_values import evaluate
from pipeline import compile_graph

from birc.compiler.ir.table import row
from birc.compiler.passes.lower.expression import Builder, Expression
from birc.compiler.passes.lower.macros import MACROS
from birc.runtime.dtypes import dtype


def computed(op: str, *arrays: np.ndarray | float, **attributes: float | str) -> np.ndarray:
    """What the vector instructions of an op make of some arrays; numbers are immediates."""
    builder = Builder()
    loaded = {
        Expression("vld", index_axis=i): np.atleast_1d(a) for i, a in enumerate(arrays) if not isinstance(a, float)
    }
    registers = iter(loaded)
    operands = tuple(a if isinstance(a, float) else next(registers) for a in arrays)
    return evaluate(MACROS[op](builder, operands, attributes), loaded)


def expected(op: str, *arrays: np.ndarray | float, **attributes: float | str) -> np.ndarray:
    """What the row of the op says."""
    whole = [np.atleast_1d(np.asarray(a, np.float32) if isinstance(a, float) else a) for a in arrays]
    (result,) = row(op).evaluate(whole, attributes)
    return result


FINITE = np.array([-1e4, -80.0, -2.5, -2.0, -1.0, -0.75, -1e-6, 0.0, 1e-6, 0.5, 1.0, 2.0, 3.5, 80.0, 1e4], np.float32)
UNARY = [op for op in MACROS if row(op).max_inputs == 1 and not row(op).attributes and op != "not"]


@pytest.mark.parametrize("op", UNARY)
def test_unary_at_special_values(op: str) -> None:
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(computed(op, FINITE), expected(op, FINITE), rtol=2e-5, atol=3e-7)


@pytest.mark.parametrize(
    "op", ["exp", "sigmoid", "tanh", "relu", "softplus", "sqrt", "erf", "reciprocal", "abs", "neg"]
)
def test_unary_at_infinities(op: str) -> None:
    edge = np.array([np.inf, -np.inf], np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(computed(op, edge), expected(op, edge))


@pytest.mark.parametrize(
    "exponent", [0.0, 0.5, -0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 12.0, 64.0, -1.0, -2.0, -3.0, 100.0, 2.5]
)
def test_power_by_a_number(exponent: float) -> None:
    base = np.array([-2.0, -1.5, -1.0, -0.5, 0.5, 1.0, 1.25, 2.0], np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(computed("pow", base, exponent), expected("pow", base, exponent), rtol=1e-5)


def test_power_by_a_tensor() -> None:
    base, exponent = (
        array.reshape(-1).astype(np.float32)
        for array in np.meshgrid([-2, -1.5, -1, 0, 0.5, 1, 3], [-3, -2, -1, 0, 0.5, 1, 2, 2.5, 3])
    )
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(computed("pow", base, exponent), expected("pow", base, exponent), rtol=1e-5)


@settings(deadline=None)
@given(st.floats(width=32), st.floats(width=32).filter(lambda y: abs(y) > 2.0**-125))
@example(math.inf, math.inf)
@example(-3.0, math.inf)
@example(3.0, 0.0)
@example(3e38, 1.5e-36)
def test_remainder_is_exact(x: float, y: float) -> None:
    a, b = np.float32([x]), np.float32([y])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(computed("mod", a, b), np.fmod(a.astype(np.float64), b.astype(np.float64)))


@given(st.integers(-1000, 1000), st.integers(1, 100))
def test_remainder_of_whole_numbers_is_exact(x: int, y: int) -> None:
    a, b = np.float32([x]), np.float32([-y])
    np.testing.assert_array_equal(computed("mod", a, b), np.fmod(a, b))


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("leaky_relu", {"alpha": 0.1}),
        ("elu", {"alpha": 0.5}),
        ("hard_sigmoid", {"alpha": 0.2, "beta": 0.5}),
        ("gelu", {"approximate": "none"}),
        ("gelu", {"approximate": "tanh"}),
        ("clip", {"minimum": -1.0, "maximum": math.inf}),
        ("clip", {"minimum": -math.inf, "maximum": 0.3}),
    ],
)
def test_parametric(op: str, attributes: dict[str, float | str]) -> None:
    x = np.linspace(-5, 5, 101, dtype=np.float32)
    np.testing.assert_allclose(computed(op, x, **attributes), expected(op, x, **attributes), rtol=1e-5, atol=5e-7)


def test_quotients_are_rounded_to_nearest() -> None:
    rng = np.random.default_rng(11)
    x = (rng.uniform(1, 2, 50000) * 2.0 ** rng.integers(-20, 20, 50000)).astype(np.float32)
    y = rng.uniform(-2, 2, 50000).astype(np.float32)
    nearest = (x.astype(np.float64) / y.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(computed("div", x, y), nearest)
    for divisor in (3.0, 0.1, 255.0, 1.7e-3, -7.5):
        exact = (x.astype(np.float64) / np.float64(np.float32(divisor))).astype(np.float32)
        np.testing.assert_array_equal(computed("div", x, divisor), exact)
    halves = np.arange(-255.5, 256.5, dtype=np.float32)
    for step in np.float32([0.1, 0.003, 1 / 3, 0.7]):
        exact = (halves.astype(np.float64) * step).astype(np.float32)
        nearest = (exact.astype(np.float64) / step).astype(np.float32)
        np.testing.assert_array_equal(computed("div", exact, np.full_like(halves, step)), nearest)


@pytest.mark.parametrize("op", ["asin", "acos", "atan"])
def test_angles(op: str) -> None:
    x = np.concatenate([np.linspace(-1, 1, 4001), [0.5, -0.5, 1e-20, -1e-8]]).astype(np.float32)
    if op == "atan":
        x = np.concatenate(
            [x, np.float32([3, 40, -1e6, 1e30, np.inf, -np.inf]), np.linspace(-5, 5, 999, dtype=np.float32)]
        )
    else:
        x = np.concatenate([x, np.float32([1.5, -1.01])])
    function = {"asin": np.arcsin, "acos": np.arccos, "atan": np.arctan}[op]
    with np.errstate(all="ignore"):
        exact = function(x.astype(np.float64))
    np.testing.assert_allclose(computed(op, x), exact, rtol=5e-7, atol=1e-7)


def test_division_by_zero_is_infinite_or_nothing() -> None:
    x = np.array([1.0, -1.0, 0.0], np.float32)
    with np.errstate(all="ignore"):
        for zero in (0.0, np.zeros(3, np.float32)):
            np.testing.assert_array_equal(computed("div", x, zero), [np.inf, -np.inf, np.nan])


CASTS = np.array([0, -1.5, 1.5, 300, -300, 1e6, -1e6, np.inf, -np.inf, -0.25], np.float32)


@pytest.mark.parametrize("element", ["i8", "u8", "i16", "u16", "i32", "bool", "f16", "bf16", "f8e4m3", "f8e5m2"])
def test_casts_saturate(element: str) -> None:
    make = GraphMaker()
    graph = make.graph(make("cast", make.input(len(CASTS)), to=dtype(element)))
    (actual,) = compile_graph(graph).step({"x0": CASTS}).values()
    (exact,) = row("cast").evaluate([CASTS], {"to": dtype(element)})
    np.testing.assert_array_equal(actual.astype(np.float64), exact.astype(np.float64))


def test_integers_of_many_digits_are_no_immediates() -> None:
    """An immediate is FP32: 2^24 + 1 would lose its last digit."""
    make = GraphMaker()
    x = make.input(4, element="i64")
    odd = make.constant((1 << 24) + 1, "i64")
    graph = make.graph(make("equal", x, odd), make("add", x, odd))
    values = np.array([1 << 24, (1 << 24) + 1, 0, -5])
    same, total = compile_graph(graph).step({"x0": values}).values()
    np.testing.assert_array_equal(same, [False, True, False, False])
    np.testing.assert_array_equal(total, values + (1 << 24) + 1)


def test_choice_between_whole_immediates_is_whole() -> None:
    make = GraphMaker()
    condition = make.input(4, element="bool")
    whole = make("where", condition, make.constant(7, "i64"), make.constant(-3, "i64"))
    real = make("where", condition, make.constant(1.5), make.constant(-math.inf))
    graph = make.graph(whole, real)
    chosen, numbers_ = compile_graph(graph).step({"x0": np.array([True, False, True, False])}).values()
    np.testing.assert_array_equal(chosen, [7, -3, 7, -3])
    np.testing.assert_array_equal(numbers_, np.float32([1.5, -np.inf, 1.5, -np.inf]))


def test_bounds_of_integers_are_whole() -> None:
    make = GraphMaker()
    graph = make.graph(make("clip", make.input(7, element="i32"), minimum=-1.5, maximum=1.7))
    (actual,) = compile_graph(graph).step({"x0": np.arange(-3, 4, dtype=np.int32)}).values()
    np.testing.assert_array_equal(actual, [-1, -1, -1, 0, 1, 1, 1])


def exact_gelu(x: np.ndarray) -> np.ndarray:
    """x times the normal distribution function, in float64 and without cancellation."""
    wide = x.astype(np.float64)
    return 0.5 * wide * np.vectorize(math.erfc)(-wide / math.sqrt(2.0))


GELU_SIZES = np.concatenate([np.logspace(-37, 38, 151), np.linspace(0.01, 20, 4000)]).astype(np.float32)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gelu_is_within_a_millionth_of_its_operand(sign: float) -> None:
    """7.1.26 of Abramowitz and Stegun is off by at most 1.5e-7; the rest are roundings."""
    x = np.float32(sign) * GELU_SIZES
    found = computed("gelu", x, approximate="none").astype(np.float64)
    assert np.all(np.abs(found - exact_gelu(x)) <= 1e-6 * np.abs(x.astype(np.float64)))
    assert np.all(np.isfinite(found))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_at_its_ends(approximate: str) -> None:
    with np.errstate(all="ignore"):
        ends = computed("gelu", np.float32([0.0, -0.0, np.inf, np.nan, 3.4e38]), approximate=approximate)
    np.testing.assert_array_equal(ends, np.float32([0.0, 0.0, np.inf, np.nan, 3.4e38]))


def test_gelu_ends_at_zero_on_the_left() -> None:
    np.testing.assert_array_equal(computed("gelu", np.float32([-np.inf, -3.4e38, -100.0]), approximate="none"), 0.0)
