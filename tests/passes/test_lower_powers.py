"""Scores of a softmax before and behind what their factor is moved out of: the same shares, in FP64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from macro_values import evaluate

from birc.compiler.ir.plan import Access, Index, View
from birc.compiler.passes.lower.expression import Builder, Expression
from birc.compiler.passes.lower.frame import unit
from birc.compiler.passes.lower.masks import late_mask
from birc.compiler.passes.lower.powers import in_octaves, unscaled

LOWEST = float(np.finfo(np.float32).min)
LOG2_E = math.log2(math.e)


def load(name: str) -> Expression:
    """A value that moves along a dimension."""
    return Expression("vld", access=Access(View(name, 0, (8,), (1,)), (unit(name),)))


def shares(scores: np.ndarray, octaves: float = LOG2_E) -> np.ndarray:
    """Of each row, in FP64."""
    powers = np.exp2((scores.astype(np.float64) - scores.max(axis=-1, keepdims=True)) * octaves)
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("factor", [2.0**-3, 0.3, 1.7, 2.0**-40, 1e15])
@pytest.mark.parametrize("low", [None, LOWEST, -math.inf, -1e4, -3.0])
def test_a_factor_moves_behind_the_difference(factor: float, low: float | None) -> None:
    b, generator = Builder(), np.random.default_rng(1)
    raw, mask = load("m"), load("n")
    scores = b.op("vmul", raw, factor)
    if low is not None:
        scores = b.op("vsel", mask, scores, low)
    rest, found = unscaled(b, scores)
    assert found == factor
    loaded = {
        raw: (generator.normal(size=(6, 40)) * 3 / factor).astype(np.float32),
        mask: np.asarray(generator.integers(0, 2, (6, 40)), np.int32),
    }
    loaded[mask][0] = 0
    with np.errstate(invalid="ignore"):
        wanted, actual = shares(evaluate(scores, loaded)), shares(evaluate(rest, loaded), factor * LOG2_E)
    np.testing.assert_allclose(actual, wanted, rtol=2e-5)


@pytest.mark.parametrize("factor", [-0.5, 0.0, 2.0**-70, 2.0**70, math.inf, math.nan])
def test_factors_that_stay(factor: float) -> None:
    b = Builder()
    scores = b.op("vmul", load("m"), factor)
    assert unscaled(b, scores) == (scores, 1.0)


def test_factors_of_factors_and_choices_of_more() -> None:
    b = Builder()
    raw = load("m")
    assert unscaled(b, b.op("vmul", b.op("vmul", raw, 0.5), 3.0)) == (raw, 1.5)
    both = b.op("vsel", load("n"), b.op("vmul", raw, 0.5), load("k"))
    assert unscaled(b, both) == (both, 1.0)
    square = b.op("vmul", raw, raw)
    assert unscaled(b, square) == (square, 1.0)


def test_a_mask_of_one_row_is_scaled_with_its_scores() -> None:
    b = Builder()
    raw, mask = load("m"), load("n")
    scores = b.op("vadd", b.op("vmul", raw, 0.3), mask)
    scaled = in_octaves(b, scores, ("m",))
    assert scaled is not None
    lows = np.array([[0.0], [-1e4], [LOWEST], [-math.inf], [2.5], [-LOWEST], [-2.2e38]], np.float32)
    rows = np.random.default_rng(2).normal(size=(7, 30)).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for low in lows:
            masks = np.where(np.arange(30) % 3 == 0, low, np.float32(0.0))
            for held in (masks, np.full_like(masks, low)):
                loaded = {raw: rows, mask: held}
                wanted, actual = shares(evaluate(scores, loaded)), shares(evaluate(scaled, loaded), 1.0)
                error = 1e-3 if low == -1e4 and held is not masks else 1e-6
                np.testing.assert_allclose(actual, wanted, rtol=0, atol=error)


def test_sums_that_stay() -> None:
    b = Builder()
    product = b.op("vmul", load("m"), 0.3)
    assert in_octaves(b, b.op("vadd", product, load("m")), ("m",)) is None, "a mask of every score"
    assert in_octaves(b, b.op("vadd", load("m"), load("n")), ("m",)) is None
    assert in_octaves(b, product, ("m",)) is None


@pytest.mark.parametrize("keeps_first", [False, True])
@pytest.mark.parametrize(("covered", "begin"), [(0, 0), (3, 0), (4, 4), (11, 8), (15, 12)])
def test_a_mask_is_loaded_from_the_first_tile_on_that_it_covers(covered: int, begin: int, keeps_first: bool) -> None:
    b = Builder()
    data = np.full((2, 16), keeps_first)
    data[1, covered:] = not keeps_first
    access = Access(View("mask", 5, (2, 16), (16, 1)), (unit("m"), unit("n")))
    whole = b.load(access)
    load = late_mask(b, data, whole, "n", 4, keeps_first=keeps_first)
    if not begin:
        assert load is whole
        return
    late = Access(View("mask", 5 + begin, (2, 16 - begin), (16, 1)), (unit("m"), Index((("n", 1),), -begin)), "zero")
    assert load.access == (Access(late.view, late.index, "highest") if keeps_first else late)
