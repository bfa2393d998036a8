"""Views of a plan's buffer in tests: which elements they are, and random ones."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from birc.compiler.ir.plan import View

NAME = "tokens"


def elements(view: View) -> set[int]:
    """The elements of a view, one by one."""
    starts = view.lower or (0,) * len(view.dims)
    digits = itertools.product(*(range(low, low + extent) for low, extent in zip(starts, view.dims, strict=True)))
    return {view.offset + sum(d * s for d, s in zip(at, view.strides, strict=True)) for at in digits}


@st.composite
def views(draw: st.DrawFn) -> View:
    """Boxes of up to three axes, mostly nested as those of tensors are."""
    strides, extents, stride = [], [], draw(st.integers(1, 3))
    for _ in range(draw(st.integers(1, 3))):
        extent = draw(st.integers(1, 6))
        strides.append(stride)
        extents.append(extent)
        stride *= extent + draw(st.sampled_from([0, 0, 1, 5]))
    return View(NAME, draw(st.integers(0, 40)), tuple(extents[::-1]), tuple(strides[::-1]))
