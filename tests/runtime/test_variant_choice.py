"""Which variant is chosen for which shapes, and which variants make no package."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from birc.runtime.errors import BadPackageError, UsageError
from birc.runtime.variant import SAFE, BoundaryTensor, HostNode, Step, Variant
from birc.runtime.variant_check import check_variants
from birc.runtime.variant_choice import RunInfo, choose, cropped_output, padded_inputs


def variant(batch: int, length: int, *, batch_is: str = SAFE, length_is: str = "node 'a' (softmax) mixes") -> Variant:
    """Takes x[batch, length, 3], gives y[2 * batch, length]."""
    return Variant(
        {"batch": batch, "length": length},
        (BoundaryTensor("x", "f32", (batch, length, 3), "f32"),),
        (BoundaryTensor("y", "f32", (2 * batch, length), "f32"),),
        (),
        {},
        {"x": ("batch", "length", None), "y": ("batch", None if length_is != SAFE else "length")},
        {"batch": batch_is, "length": length_is},
    )


VARIANTS = (variant(8, 16), variant(4, 16), variant(4, 8), variant(1, 64))


@pytest.mark.parametrize(
    ("shape", "number", "padded"),
    [
        ((8, 16, 3), 0, {}),
        ((1, 64, 3), 3, {}),
        ((3, 16, 3), 1, {"batch": (3, 4)}),
        ((1, 8, 3), 2, {"batch": (1, 4)}),
        ((5, 16, 3), 0, {"batch": (5, 8)}),
    ],
)
def test_exact_first_then_the_smallest_that_may_be_padded(shape, number, padded) -> None:
    assert choose(VARIANTS, {"x": shape}) == RunInfo(number, VARIANTS[number].dimensions, padded)


def test_the_first_of_equally_large_ones_is_taken() -> None:
    equal = (variant(4, 8, length_is=SAFE), variant(8, 4, length_is=SAFE))
    info = choose(equal, {"x": (2, 3, 3)})
    assert info == RunInfo(0, equal[0].dimensions, {"batch": (2, 4), "length": (3, 8)})


@pytest.mark.parametrize("shape", [(8, 16, 4), (8, 16), (8, 16, 3, 1)])
def test_other_shapes_are_wrong_for_all(shape) -> None:
    assert choose(VARIANTS, {"x": shape}) is None


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 32, 3), r"'x' has the shape \[2,32,3\], there are batch=8, length=16; .*none holds batch=2, length=32"),
        ((9, 8, 3), "none holds batch=9"),
        (
            (4, 7, 3),
            r"length cannot be padded: node 'a' \(softmax\) mixes \(compile the model for batch=4, length=7 too\)",
        ),
    ],
)
def test_no_variant_fits(shape, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose(VARIANTS, {"x": shape})


def test_what_is_added_repeats_the_last_and_goes_again() -> None:
    whole = variant(4, 3, length_is=SAFE)
    info = RunInfo(0, whole.dimensions, {"batch": (2, 4), "length": (2, 3)})
    x = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    padded = padded_inputs({"x": x}, whole, info)["x"]
    assert padded.shape == (4, 3, 3)
    np.testing.assert_array_equal(padded[:2, :2], x)
    np.testing.assert_array_equal(padded[3, 2], x[1, 1])
    y = np.arange(24).reshape(8, 3)
    np.testing.assert_array_equal(cropped_output("y", y, whole, info), y[:4, :2])


def on_host(entry: Variant) -> Variant:
    return replace(entry, steps=(Step("host/0.onnx", (), (), (HostNode("n", "NonZero", "its shape is open"),)),))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (variant(8, 16), "comes twice"),
        (replace(variant(4, 16), dimensions={"batch": 4}), "has other dimensions"),
        (replace(variant(4, 16), outputs=()), "fit no input or output"),
        (replace(variant(4, 16), outputs=(BoundaryTensor("y", "i32", (8, 16), "i32"),)), "has other outputs"),
        (replace(variant(4, 16), axes={"x": ("batch", None, None)}), "has other axes"),
        (
            replace(variant(4, 16), inputs=(BoundaryTensor("x", "f32", (4, 16, 2), "f32"),)),
            "'x' differs from the first",
        ),
        (replace(variant(4, 16), inputs=(BoundaryTensor("x", "f32", (8, 16, 3), "f32"),)), "is not dimension 'batch'"),
        (replace(variant(4, 16), outputs=(BoundaryTensor("y", "f32", (7, 16), "f32"),)), "is not dimension 'batch'"),
        (replace(variant(4, 16), outputs=(BoundaryTensor("y", "f32", None, None),)), "fit no input or output"),
        (on_host(variant(4, 16)), "steps on the host"),
    ],
)
def test_variants_that_do_not_belong_together(second: Variant, message: str) -> None:
    check_variants([variant(8, 16), variant(4, 16)], where="net.birc")
    with pytest.raises(BadPackageError, match=message) as caught:
        check_variants([variant(8, 16), second], where="net.birc")
    assert "\n" not in str(caught.value)
