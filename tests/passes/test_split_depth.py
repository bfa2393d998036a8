"""Depths cut in two: every point of the space touches what it touched before, and only even cuts are offered."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from graph_maker import GraphMaker
from hypothesis import given
from hypothesis import strategies as st

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import RED, Contraction, Dimension, Index, Kernel
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.lower import lower_graph
from birc.compiler.passes.split_depth import inner_depths, split_depth
from birc.runtime.machine import load_machine


def product() -> Graph:
    make = GraphMaker()
    return make.graph(make("matmul", make.input(2, 3, 12), make.input(2, 12, 2)))


def deep_product() -> Graph:
    """Its depth is two dimensions already."""
    make = GraphMaker()
    return make.graph(make("matmul", make.input(1, 3 * 5000), make.input(3 * 5000, 1)))


def convolution() -> Graph:
    """Pixels move with the depth too, by a stride and from before the image."""
    make = GraphMaker()
    attributes = {"stride": (2, 1), "pads": (1, 1, 1, 1), "dilation": (1, 2), "group": 1}
    return make.graph(make("conv2d", make.input(1, 12, 5, 6), make.input(2, 12, 3, 2), **attributes))


def contraction_of(graph: Graph) -> tuple[Kernel, Contraction]:
    """The one kernel of a graph, and its contraction."""
    (kernel,) = lower_graph(run_passes(graph, LEGALIZE), load_machine("tiny"), "model").kernels
    assert kernel.contraction is not None
    return kernel, kernel.contraction


def coordinate(index: Index, point: Mapping[str, int]) -> int:
    return index.constant + sum(factor * point[name] for name, factor in index.terms)


@pytest.mark.parametrize("inner", [2, 3, 4, 6])
@pytest.mark.parametrize("build", [product, convolution])
def test_every_point_touches_the_same_elements(build: object, inner: int) -> None:
    kernel, before = contraction_of(build())
    whole = kernel.red_dims[-1]
    assert whole.extent == 12
    cut = split_depth(kernel, inner)
    after = cut.contraction
    assert after is not None
    assert (after.rows, after.depth, after.row_dims, after.column_dims) == (
        *(before.rows, before.depth, before.row_dims, before.column_dims),
    )
    assert (cut.phases, cut.par_dims, cut.macs) == (kernel.phases, kernel.par_dims, kernel.macs)
    *others, outer, last = cut.red_dims
    assert tuple(others) == kernel.red_dims[:-1]
    assert (outer.name, outer.extent, last.extent) == (whole.name, whole.extent // inner, inner)
    seen = set()
    for values in itertools.product(*(range(d.extent) for d in cut.space)):
        point = dict(zip((d.name for d in cut.space), values, strict=True))
        old = {d.name: point[d.name] for d in kernel.space}
        old[whole.name] = point[outer.name] * inner + point[last.name]
        seen.add(tuple(old.items()))
        for one, other in ((before.a, after.a), (before.b, after.b)):
            assert other.view == one.view
            assert [coordinate(i, point) for i in other.index] == [coordinate(i, old) for i in one.index]
    extents = [d.extent for d in kernel.space]
    assert len(seen) == len(set(itertools.product(*map(range, extents))))


def test_the_innermost_of_several_depths_is_cut() -> None:
    kernel, _ = contraction_of(deep_product())
    outer, inner = kernel.red_dims
    assert [(d.name, d.extent) for d in split_depth(kernel, 625).red_dims] == [
        (outer.name, outer.extent),
        (inner.name, inner.extent // 625),
        (f"{inner.name}_in", 625),
    ]


@pytest.mark.parametrize("inner", [5, 7, 24])
def test_uneven_cuts_are_refused(inner: int) -> None:
    with pytest.raises(ValueError, match=f"a depth of 12 has no steps of {inner}"):
        split_depth(contraction_of(product())[0], inner)


@given(extent=st.integers(1, 300), step=st.integers(1, 40))
def test_depths_are_whole_steps_that_divide(extent: int, step: int) -> None:
    kernel = Kernel("product", (Dimension("m", 1), Dimension("k", extent, RED)), ())
    inside = [depth for depth in range(2 * step, extent) if extent % depth == 0 == depth % step]
    assert list(inner_depths(kernel, step)) == inside
