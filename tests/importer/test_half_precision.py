"""Norms of half precision: the squares of large elements are beyond what half precision holds."""

from __future__ import annotations

import numpy as np
import pytest
from lowering_case import Case, case, f32

from birc.compiler.driver import compile_model
from birc.runtime import load

ONES, ZEROS = np.ones(4, np.float16), np.zeros(4, np.float16)
ROWS = (200 * f32(3, 4)).astype(np.float16)
IMAGE = (200 * f32(1, 4, 3, 5)).astype(np.float16)


def standardized(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """(x - mean) / deviation, in double precision."""
    wide = x.astype(np.float64)
    return (wide - wide.mean(axes, keepdims=True)) / wide.std(axes, keepdims=True)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (case("LayerNormalization", ROWS, ONES, ZEROS, known=(1, 2)), standardized(ROWS, (1,))),
        (case("LayerNormalization", ROWS, ONES, ZEROS, outputs=3, known=(1, 2)), standardized(ROWS, (1,))),
        (case("InstanceNormalization", IMAGE, ONES, ZEROS, known=(1, 2)), standardized(IMAGE, (2, 3))),
        (
            case("GroupNormalization", IMAGE, ONES, ZEROS, known=(1, 2), num_groups=2, opset=21),
            standardized(IMAGE.reshape(1, 2, 2, 3, 5), (2, 3, 4)).reshape(IMAGE.shape),
        ),
    ],
    ids=lambda entry: entry.op if isinstance(entry, Case) else "",
)
def test_statistics_do_not_overflow(entry: Case, expected: np.ndarray) -> None:
    model, given = entry.model()
    actual = load(compile_model(model, target="tiny")).run(given)["o0"]
    np.testing.assert_allclose(actual.astype(np.float64), expected, rtol=2e-3, atol=2e-3)
