"""Views that may have elements in common: what the verifier says of their descriptors, and never too little."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from birc.codegen.kernel_code import descriptor
from birc.compiler.ir.plan import Buffer, View
from birc.compiler.ir.view_overlap import ViewOverlap
from birc.runtime.verifier.boxes import overlaps, whole_view

BUFFERS = [Buffer("t", element, 1 << 12, "scratch", "l2", address=512) for element in ("u8", "bf16", "f32", "i64")]


@st.composite
def views(draw: st.DrawFn) -> View:
    rank = draw(st.integers(0, 3))
    dims = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    strides = tuple(draw(st.sampled_from((0, 1, 2, 3, 4, 8, 12))) for _ in range(rank))
    lower = tuple(draw(st.integers(-1, 1)) for _ in range(rank)) if draw(st.booleans()) else ()
    return View("t", draw(st.integers(12 * 3, 60)), dims, strides, lower)


def elements(view: View) -> set[int]:
    lower = view.lower or (0,) * len(view.dims)
    axes = zip(lower, view.dims, view.strides, strict=True)
    places = product(*([(low + i) * stride for i in range(count)] for low, count, stride in axes))
    return {view.offset + sum(steps) for steps in places}


@settings(max_examples=300, deadline=None)
@given(one=views(), other=views(), same_strides=st.booleans())
def test_it_is_what_the_verifier_says(one: View, other: View, same_strides: bool) -> None:
    if same_strides and len(one.dims) == len(other.dims):
        other = replace(other, strides=one.strides)
    overlap = ViewOverlap()
    found = overlap.may_overlap(one, other)
    assert found or not elements(one) & elements(other)
    for buffer in BUFFERS:
        left, right = descriptor(one, buffer), descriptor(other, buffer)
        assert found == bool(overlaps(left, whole_view(left), right, whole_view(right)).any())
    assert overlap.may_meet(one, other) == (found or one.strides != other.strides)


def test_views_of_the_same_form_are_told_apart_by_their_places() -> None:
    overlap = ViewOverlap()
    left = View("t", 0, (4, 8), (16, 1))
    right, wider = replace(left, offset=8), replace(left, offset=7)
    for _ in range(2):
        assert not overlap.may_overlap(left, right)
        assert overlap.may_overlap(left, wider)
    assert not overlap.may_meet(left, right)
    assert overlap.may_meet(left, replace(right, strides=(8, 1)))
    assert not overlap.may_meet(left, replace(left, buffer="u"))
