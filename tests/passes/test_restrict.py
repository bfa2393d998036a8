"""Cut kernels: the parts together compute what the whole computes, whichever dimension is cut."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import relative_error
from op_cases import LARGE, Large, OpCase
from pipeline import plans_of

from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import Kernel
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.choose_layouts import ChooseLayouts
from birc.compiler.passes.lower.lower import lower_graph
from birc.compiler.passes.restrict import pieces, restrict
from birc.runtime.machine import load_machine

CUT_OPS = (
    "matmul",
    "conv2d",
    "max_pool2d",
    "max_pool2d_position",
    "avg_pool2d",
    "lrn",
    "softmax",
    "layer_norm",
    "reduce_sum",
    "pad",
    "gather",
)
LARGEST_EXTENT = 1000


def _uses() -> Iterator[object]:
    """The first few uses of every op."""
    for op in CUT_OPS:
        handy = [large for large in LARGE if large.op == op and _is_handy(large)]
        for place, large in enumerate(handy[:3]):
            yield pytest.param(large, id=f"{op}-{place}")


def _is_handy(large: Large) -> bool:
    shapes = [item.shape if isinstance(item, np.ndarray) else item for item in large.inputs]
    return all(shape and max(shape) <= LARGEST_EXTENT for shape in shapes)


def cuttable(kernel: Kernel) -> Iterator[str]:
    """Par dimensions that nothing reduces and no phase loops over."""
    fixed = {name for phase in kernel.phases for name in phase.loops}
    fixed |= {name for phase in kernel.phases for s in phase.statements for name in s.dims}
    yield from (d.name for d in kernel.par_dims if d.extent > 1 and d.name not in fixed)


def cut(kernel: Kernel, name: str) -> list[Kernel]:
    """Three parts of unequal extents, two when there are no more."""
    extent = kernel.dimension(name).extent
    ends = sorted({0, max(1, extent // 5), extent // 2, extent})
    return [restrict(kernel, name, start, end - start, f".{start}") for start, end in itertools.pairwise(ends)]


@pytest.mark.parametrize("large", list(_uses()))
def test_parts_compute_the_whole(large: Large) -> None:
    built = OpCase(large.op, large.sample()).build()
    if built is None:
        raise ValueError(f"{large.op} does not apply")
    graph, inputs = built
    (expected,) = run_graph(graph, inputs).values()
    machine = load_machine("br104")
    laid_out = run_passes(graph, (ChooseLayouts(),))
    lowered = lower_graph(laid_out, machine, "model")
    for number, kernel in enumerate(lowered.kernels):
        for name in cuttable(kernel):
            parts = cut(kernel, name)
            assert sum(part.macs for part in parts) == pytest.approx(kernel.macs, abs=len(parts))
            kernels = (*lowered.kernels[:number], *parts, *lowered.kernels[number + 1 :])
            compiled = next(plans_of(laid_out, replace(lowered, kernels=kernels), machine))
            compiled.verify()
            (actual,) = compiled.values(inputs).values()
            assert relative_error(actual, expected) <= 2e-3


@settings(deadline=None)
@given(st.integers(1, 2000), st.integers(1, 500), st.integers(1, 99))
def test_pieces_are_few_and_nearly_equal(extent: int, largest: int, unit: int) -> None:
    parts = pieces(extent, largest, unit)
    sizes = [size for _, size in parts]
    assert [start for start, _ in parts] == [0, *itertools.accumulate(sizes[:-1])]
    assert sum(sizes) == extent
    assert max(sizes) <= largest
    assert min(sizes) >= 1
    assert len(parts) <= -(-extent // largest)
    assert len(set(sizes[:-1])) <= 1
    assert sizes[0] % unit == 0 or len(parts) == 1 or unit * -(-sizes[0] // unit) > largest
