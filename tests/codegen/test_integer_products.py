"""Products of integers on the device are exact: of every pair of types, of any depth, with extreme operands."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from graph_maker import GraphMaker
from pipeline import Compiled, compile_graph

from birc.compiler.ir.attributes import AttributeValue
from birc.compiler.passes.integer_sums import LARGEST_SUM, exact_pieces
from birc.runtime.dtypes import dtype

NARROW = ("i8", "u8")
CONV: dict[str, AttributeValue] = {"stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1), "group": 1}


def whole(element: str, *shape: int, seed: int = 0) -> np.ndarray:
    """Random integers over the whole range of a type; those of wide ones stay small enough for INT32 sums."""
    limits = np.iinfo(dtype(element).numpy)
    low, high = max(limits.min, -20_000), min(limits.max, 20_000)
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(dtype(element).numpy)


def extreme(element: str, *shape: int) -> np.ndarray:
    """The number of a type that is farthest from the middle of the signed range, everywhere."""
    limits = np.iinfo(dtype(element).numpy)
    return np.full(shape, limits.min if limits.min < 0 else limits.max, dtype(element).numpy)


def convolved(x: np.ndarray, w: np.ndarray, attributes: dict[str, AttributeValue]) -> np.ndarray:
    """The convolution in INT64, window by window."""
    (sy, sx), (top, left, bottom, right) = attributes["stride"], attributes["pads"]  # type: ignore[misc]
    (dy, dx), group = attributes["dilation"], attributes["group"]  # type: ignore[misc]
    padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    out, channels, rows, columns = w.shape
    height = (padded.shape[2] - (rows - 1) * dy - 1) // sy + 1
    width = (padded.shape[3] - (columns - 1) * dx - 1) // sx + 1
    result = np.zeros((x.shape[0], out, height, width), np.int64)
    for o in range(out):
        first = o // (out // group) * channels
        for r, s in itertools.product(range(rows), range(columns)):
            seen = padded[:, first : first + channels, r * dy :: sy, s * dx :: sx][:, :, :height, :width]
            result[:, o] += np.einsum("nchw,c->nhw", seen, w[o, :, r, s].astype(np.int64))
    return result


def run(
    op: str, a: np.ndarray, b: np.ndarray, *, constant: bool, target: str = "tiny", **attributes: AttributeValue
) -> tuple[Compiled, np.ndarray]:
    """The product by the values engine, which the stepping engine agrees with where that is quick."""
    make = GraphMaker()
    element = {np.dtype(dtype(n).numpy): n for n in ("i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64")}
    left = make.input(*a.shape, element=element[a.dtype])
    right = make.constant(b, element[b.dtype]) if constant else make.input(*b.shape, element=element[b.dtype])
    compiled = compile_graph(make.graph(make(op, left, right, **attributes)), target)
    compiled.verify()
    inputs = {left: a} if constant else {left: a, right: b}
    (result,) = compiled.values(inputs).values()
    if a.size * b.size < 1 << 20:
        (stepped,) = compiled.step(inputs).values()
        np.testing.assert_array_equal(stepped, result)
    return compiled, result


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("a", "b"), list(itertools.product(NARROW, NARROW)))
def test_matrix_products(a: str, b: str, constant: bool) -> None:
    for shape_a, shape_b in (((5, 40), (40, 7)), ((2, 3, 70), (70, 4)), ((2, 1, 3, 9), (3, 9, 5))):
        x, w = whole(a, *shape_a), whole(b, *shape_b, seed=1)
        result = run("matmul", x, w, constant=constant)[1]
        assert result.dtype == np.int32
        np.testing.assert_array_equal(result, x.astype(np.int64) @ w.astype(np.int64))


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("a", "b"), list(itertools.product(NARROW, NARROW)))
@pytest.mark.parametrize("depth", [1024, 1025, 5000])
def test_deep_products_of_extreme_numbers(depth: int, a: str, b: str, constant: bool) -> None:
    x, w = extreme(a, 3, depth), extreme(b, depth, 5)
    result = run("matmul", x, w, constant=constant, target="br100")[1]
    np.testing.assert_array_equal(result, x.astype(np.int64) @ w.astype(np.int64))


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, AttributeValue]]] = {
    "padded": ((2, 4, 9, 8), (6, 4, 3, 3), {}),
    "strided": ((1, 5, 11, 10), (3, 5, 3, 2), {"stride": (2, 3), "pads": (0, 1, 2, 0)}),
    "grouped": ((2, 6, 7, 7), (9, 2, 3, 3), {"group": 3, "dilation": (2, 1)}),
    "depthwise": ((1, 6, 7, 7), (6, 1, 3, 3), {"group": 6}),
    "multiplied": ((1, 3, 7, 7), (6, 1, 3, 3), {"group": 3}),
    "few channels": ((1, 3, 12, 12), (8, 3, 5, 5), {"stride": (2, 2)}),
    "pointwise": ((1, 40, 5, 5), (8, 40, 1, 1), {"pads": (0, 0, 0, 0)}),
}


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("a", "b"), list(itertools.product(NARROW, NARROW)))
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str, a: str, b: str, constant: bool) -> None:
    shape_x, shape_w, changed = CONVOLUTIONS[name]
    x, w, attributes = whole(a, *shape_x), whole(b, *shape_w, seed=1), {**CONV, **changed}
    result = run("conv2d", x, w, constant=constant, **attributes)[1]
    np.testing.assert_array_equal(result, convolved(x, w, attributes))


DEEP: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, AttributeValue]]] = {
    "channels": ((1, 300, 5, 5), (4, 300, 3, 3), {}),
    "groups": ((1, 600, 4, 4), (4, 300, 3, 3), {"group": 2}),
    "rows": ((1, 2, 36, 34), (3, 2, 35, 33), {"stride": (2, 1)}),
    "columns": ((1, 1, 2, 2100), (2, 1, 1, 1050), {"pads": (0, 3, 0, 2), "dilation": (1, 2)}),
}


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("a", NARROW)
@pytest.mark.parametrize("name", DEEP)
def test_deep_convolutions_of_extreme_numbers(name: str, a: str, constant: bool) -> None:
    shape_x, shape_w, changed = DEEP[name]
    x, w, attributes = extreme(a, *shape_x), extreme("i8", *shape_w), {**CONV, **changed}
    result = run("conv2d", x, w, constant=constant, target="br100", **attributes)[1]
    np.testing.assert_array_equal(result, convolved(x, w, attributes))


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("element", ["i16", "u16", "i32", "u32", "i64"])
def test_wide_integers(element: str, constant: bool) -> None:
    for shape_a, shape_b in (((3, 20), (20, 5)), ((2, 3, 9), (2, 9, 4)), ((2, 1, 2, 2, 3, 4), (3, 2, 1, 4, 2))):
        x, w = whole(element, *shape_a), whole(element, *shape_b, seed=1)
        if element in ("i16", "u16"):
            x, w = x % 16, w % 16
        result = run("matmul", x, w, constant=constant)[1]
        assert result.dtype == x.dtype
        np.testing.assert_array_equal(result, (x.astype(np.int64) @ w.astype(np.int64)).astype(x.dtype))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_of_wide_integers(name: str) -> None:
    shape_x, shape_w, changed = CONVOLUTIONS[name]
    x, w, attributes = whole("i32", *shape_x), whole("i32", *shape_w, seed=1) % 100, {**CONV, **changed}
    result = run("conv2d", x, w, constant=True, **attributes)[1]
    np.testing.assert_array_equal(result, convolved(x, w, attributes))


def test_small_weights_need_no_cut() -> None:
    """What matters is the largest sum, not the depth: weights of at most 4 leave room for 32 times the depth."""
    x, w = extreme("i8", 2, 8192), whole("i8", 8192, 3) % 5
    compiled, result = run("matmul", x, w, constant=True, target="br100")
    np.testing.assert_array_equal(result, x.astype(np.int64) @ w.astype(np.int64))
    assert len(compiled.graph.nodes) == 1


def test_pieces_are_exact_and_cover_the_depth() -> None:
    costs = np.random.default_rng(3).integers(0, 1 << 14, (5000, 7))
    pieces = exact_pieces(costs)
    assert pieces is not None
    assert [start for start, _ in pieces] == [0, *(end for _, end in pieces[:-1])]
    assert pieces[-1][1] == 5000
    assert all(costs[start:end].sum(0).max() <= LARGEST_SUM for start, end in pieces)
    assert exact_pieces(np.array([[LARGEST_SUM + 1]])) is None
