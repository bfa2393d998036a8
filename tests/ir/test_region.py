"""The elements that views reach."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from birc.compiler.ir.plan import View
from birc.compiler.ir.region import num_elements, region

EXTENTS = st.integers(1, 4)


@st.composite
def apart(draw: st.DrawFn) -> View:
    """A view of which no two points are one element but along axes without a stride, in any order of its axes."""
    axes, stride = [], 1
    for extent in draw(st.lists(EXTENTS, max_size=4)):
        step = draw(st.sampled_from((0, stride, -stride)))
        axes.append((extent, step))
        if step:
            stride *= extent * draw(st.integers(1, 3))
    axes = draw(st.permutations(axes))
    return View("b", 1000, tuple(extent for extent, _ in axes), tuple(step for _, step in axes))


@given(apart())
def test_a_view_reaches_as_many_elements_as_its_points_are(view: View) -> None:
    points = itertools.product(*map(range, view.dims))
    reached = {
        view.offset + sum(at * stride for at, stride in zip(point, view.strides, strict=True)) for point in points
    }
    assert num_elements(view) == region(view).num_elements == len(reached)
    assert (region(view).offset, region(view).end) == (min(reached), max(reached) + 1)
