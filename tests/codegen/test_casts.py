"""Casts between all pairs of types on the device, against onnx's reference, ml_dtypes and ONNX's own tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graph_maker import GraphMaker
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnx.reference.ops.op_cast import cast_to
from pipeline import compile_graph

from birc.compiler.ir.attributes import AttributeValue
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.table import row
from birc.runtime.dtypes import DTYPES, DType, dtype

TYPES = [entry for entry in DTYPES if entry.device is not None]
WORD = 1 << 31
LEAST_POWER = 2.0**-126  # of E8M0, where onnx's reference agrees with the table: it takes subnormals for more
PLAIN_SPECIALS = [0.0, -0.0, 0.5, 1.5, 2.5, -2.5, 3.5, 5.0, 7.0, 6.2, 7.6, 30.0, 0.0625, 0.03125, 127.9, 128.0, 255.0]
BORDERS = [447.0, 448.0, 464.0, 239.9, 240.0, 247.9, 57344.0, 61439.0, 65504.0, 65519.0, 2.0**100 * 1.1, 2.0**97]


def samples(entry: DType, seed: int = 0) -> np.ndarray:
    """Values of a type: around one, around the limits of other types, at ties; integers within 32 bits."""
    random = np.random.default_rng(seed)
    if entry.kind == "bool":
        return random.integers(0, 2, 300).astype(np.bool_)
    if entry.is_float:
        sizes = np.exp2(random.uniform(-18, 17, 250)) * random.choice([-1, 1], 250)
        with np.errstate(over="ignore"):
            return np.float32([*sizes, *PLAIN_SPECIALS, *BORDERS, *np.negative(BORDERS)]).astype(entry.numpy)
    bits = min(entry.bits, 32) - (entry.kind == "int" or entry.bits >= 32)
    low, high = (-(1 << bits) if entry.kind == "int" else 0), (1 << bits) - 1
    near = random.integers(max(low, -300), min(high, 300) + 1, 100)
    return np.concatenate([random.integers(low, high + 1, 200), near, [low, high]]).astype(entry.numpy)


def limits(entry: DType) -> tuple[int, int]:
    """The integers that a type holds, as far as lanes do."""
    bits = min(entry.bits, 32) - (entry.kind == "int")
    return (-(1 << bits) if entry.kind == "int" else 0), (1 << bits) - 1


def wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32).astype(np.float64) if x.dtype.kind == "V" else x.astype(np.float64)


def reference(x: np.ndarray, to: DType, saturate: bool, round_mode: str = "up") -> np.ndarray:
    """What onnx's reference makes of it; it computes from numbers of numpy's own types."""
    source = wide(x).astype(np.float32) if x.dtype.kind == "V" else x
    number = helper.np_dtype_to_tensor_dtype(to.numpy)
    with np.errstate(all="ignore"):
        return cast_to(source, number, saturate, round_mode)


def defined(x: np.ndarray, source: DType, to: DType, saturate: bool) -> np.ndarray:
    """Where ONNX says what a cast gives, and the reference does it."""
    values = wide(x)
    if to.name == "f8e8m0":
        return np.isfinite(values) & (np.abs(values) >= LEAST_POWER)
    if to.name in ("f4e2m1", "f6e2m3", "f6e3m2"):
        return ~np.isnan(values)
    if not (source.is_float and to.is_integer):
        return np.ones(values.shape, np.bool_)
    low, high = limits(to) if saturate or to.bits >= 32 else (-WORD, WORD - 1)
    whole = np.trunc(values)
    return np.isfinite(values) & (whole >= low) & (whole <= high)


def assert_same(actual: np.ndarray, expected: np.ndarray, where: np.ndarray, message: str) -> None:
    assert actual.dtype == expected.dtype
    a, b = wide(actual)[where], wide(expected)[where]
    same = (a == b) & (np.signbit(a) == np.signbit(b)) | np.isnan(a) & np.isnan(b)
    assert same.all(), f"{message}: {a[~same][:5]} instead of {b[~same][:5]}"


def conversions(source: DType, x: np.ndarray) -> tuple[Graph, list[tuple[DType, bool, str]]]:
    """A graph that casts one input to every other type in every way, and the ways in the order of its outputs."""
    make = GraphMaker()
    name = make.input(*x.shape, element=source.name)
    outputs, ways = [], []
    for to in TYPES:
        if to == source:
            continue
        for saturate in (True, False):
            for mode in ("up", "down", "nearest") if to.name == "f8e8m0" else ("up",):
                given: dict[str, AttributeValue] = {"to": to, "saturate": int(saturate), "round_mode": mode}
                outputs.append(make("convert", name, **given))
                ways.append((to, saturate, mode))
    return make.graph(*outputs), ways


@pytest.mark.parametrize("source", TYPES, ids=str)
def test_every_pair_of_types_on_the_device(source: DType) -> None:
    x = samples(source)
    graph, ways = conversions(source, x)
    compiled = compile_graph(graph, "tiny")
    compiled.verify()
    results = compiled.step({graph.inputs[0].name: x})
    for name, (to, saturate, mode) in zip(graph.outputs, ways, strict=True):
        message = f"{source} to {to}, saturate {saturate}, {mode}"
        assert_same(results[name], reference(x, to, saturate, mode), defined(x, source, to, saturate), message)


FLOAT_SOURCES = [entry for entry in TYPES if entry.is_float]


@given(st.sampled_from(FLOAT_SOURCES), st.sampled_from(TYPES), st.booleans(), st.lists(st.floats(width=32), min_size=1))
def test_the_meaning_of_casts_is_that_of_onnx(source: DType, to: DType, saturate: bool, numbers: list[float]) -> None:
    with np.errstate(all="ignore"):
        x = np.float32(numbers).astype(source.numpy)
    (ours,) = row("convert").evaluate((x,), {"to": to, "saturate": int(saturate), "round_mode": "up"})
    assert_same(ours, reference(x, to, saturate), defined(x, source, to, saturate), f"{source} to {to}")


# Infinity and numbers beyond the largest, as the operator reference of Cast has them: saturated, not saturated.
LARGEST = {"f8e4m3": 448.0, "f8e4m3fnuz": 240.0, "f8e5m2": 57344.0, "f8e5m2fnuz": 57344.0}
BEYOND = {"f8e4m3": math.nan, "f8e4m3fnuz": math.nan, "f8e5m2": math.inf, "f8e5m2fnuz": math.nan}


@pytest.mark.parametrize("name", LARGEST)
@pytest.mark.parametrize("saturate", [1, 0])
def test_the_tables_of_8_bit_floats(name: str, saturate: int) -> None:
    beyond = LARGEST[name] if saturate else BEYOND[name]
    x = np.float32([0.0, -0.0, math.nan, math.inf, -math.inf, 1e9, -1e9, LARGEST[name], -LARGEST[name]])
    zero = 0.0 if name.endswith("fnuz") else -0.0
    expected = [0.0, zero, math.nan, beyond, -beyond, beyond, -beyond, LARGEST[name], -LARGEST[name]]
    assert_converts(x, name, saturate, "up", expected)


@pytest.mark.parametrize("name", ["f4e2m1", "f6e2m3", "f6e3m2"])
def test_floats_without_infinity_saturate(name: str) -> None:
    largest = {"f4e2m1": 6.0, "f6e2m3": 7.5, "f6e3m2": 28.0}[name]
    x = np.float32([math.inf, -math.inf, 1e9, -1e9, math.nan, -0.0])
    assert_converts(x, name, 0, "up", [largest, -largest, largest, -largest, -0.0, -0.0])


LEAST, GREATEST = 2.0**-127, 2.0**127


@pytest.mark.parametrize(
    ("saturate", "round_mode", "expected"),
    [
        (1, "up", [LEAST, math.nan, GREATEST, GREATEST, LEAST, 4.0, 4.0]),
        (1, "down", [LEAST, math.nan, GREATEST, GREATEST, LEAST, 2.0, 2.0]),
        (0, "nearest", [math.nan, math.nan, math.nan, math.nan, math.nan, 2.0, 4.0]),
    ],
)
def test_the_table_of_powers_of_two(saturate: int, round_mode: str, expected: list[float]) -> None:
    x = np.float32([0.0, math.nan, math.inf, 1.9 * GREATEST, 2.0**-130, 2.9, 3.0])
    assert_converts(x, "f8e8m0", saturate, round_mode, expected)


def assert_converts(x: np.ndarray, name: str, saturate: int, round_mode: str, expected: list[float]) -> None:
    """On the device, and in the meaning of the row."""
    make = GraphMaker()
    given: dict[str, AttributeValue] = {"to": dtype(name), "saturate": saturate, "round_mode": round_mode}
    graph = make.graph(make("convert", make.input(len(x)), **given))
    compiled = compile_graph(graph, "tiny")
    everywhere = np.ones(len(x), np.bool_)
    wanted = np.array(expected)
    (computed,) = compiled.step({graph.inputs[0].name: x}).values()
    (meant,) = row("convert").evaluate((x,), given)
    for result in (computed, meant):
        assert_same(wide(result), wanted, everywhere, name)


def test_float64_rounds_once() -> None:
    """By way of float32 the value would become a tie, and go to the even neighbour below."""
    x = np.array([1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8 - 2.0**-40, 1 + 2.0**-8, -1e300, 5e-324, math.nan])
    (near,) = row("cast").evaluate((x,), {"to": dtype("bf16")})
    np.testing.assert_array_equal(near.astype(np.float64), [1 + 2.0**-7, 1.0, 1.0, -math.inf, 0.0, math.nan])
