"""Weights in the tensor buffers: however SPCs divide a product, its values stay, and the plan is proved."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from graph_maker import GraphMaker
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import with_quick_link
from near import Planned, behind_others, fills, planned, whole_numbers
from pipeline import Compiled, Values

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import OWN_DIMENSIONS, Kernel, KernelStep
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.divide_depth import DivideDepth
from birc.compiler.passes.lifetimes import instances
from birc.compiler.prove import new_prover
from birc.runtime.machine import load_machine

CONV = {"stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1), "group": 1}
POINT = {**CONV, "pads": (0, 0, 0, 0)}
FOUR = load_machine("tiny").with_values({"spcs_per_die": 4})
"""An SPC alone, two by two, or four in a row have a part."""

Build = Callable[[GraphMaker], str]


def plain(make: GraphMaker) -> str:
    return make("matmul", behind_others(make, make.input(16, 16)), make.constant(whole_numbers(16, 32)))


def biased(make: GraphMaker) -> str:
    return make("relu", make("add", plain(make), make.constant(whole_numbers(1, 32, seed=1))))


def transposed(make: GraphMaker) -> str:
    """The weights are stored by columns."""
    weights = make("transpose", make.constant(whole_numbers(32, 16)), perm=(1, 0))
    return make("matmul", behind_others(make, make.input(16, 16)), weights)


def samples(make: GraphMaker) -> str:
    """Samples with the same weights."""
    return make("matmul", behind_others(make, make.input(4, 6, 16)), make.constant(whole_numbers(16, 32)))


def apart(make: GraphMaker) -> str:
    """Products with weights of their own."""
    return make("matmul", behind_others(make, make.input(4, 8, 16)), make.constant(whole_numbers(4, 16, 32)))


def sums_of_rows(make: GraphMaker) -> str:
    """An SPC sees rows as a whole."""
    return make("row_moments", plain(make), parts=1, centred=0)


def parts_of_rows(make: GraphMaker) -> str:
    """Columns are two dimensions: sums are of parts of a row."""
    return make("row_moments", plain(make), parts=2, centred=0)


def deep(make: GraphMaker) -> str:
    """So deep that two dimensions count the depth where descriptors are small."""
    x = less_their_largest(make, make.input(8, 96))
    return make("matmul", x, make.constant(whole_numbers(96, 16)))


def image(make: GraphMaker, count: int = 2) -> str:
    x = make.input(count, 16, 6, 6)
    for seed in range(2):
        x = make("relu", make("conv2d", x, make.constant(np.sign(whole_numbers(16, 16, 1, 1, seed=seed))), **POINT))
    return x


def points(make: GraphMaker) -> str:
    return make("conv2d", image(make), make.constant(whole_numbers(32, 16, 1, 1)), **POINT)


def windows(make: GraphMaker) -> str:
    return make("relu", make("conv2d", image(make, 1), make.constant(whole_numbers(32, 16, 3, 3)), **CONV))


def groups(make: GraphMaker) -> str:
    return make("conv2d", image(make), make.constant(whole_numbers(32, 8, 3, 3)), **{**CONV, "group": 2})


BUILDS: tuple[Build, ...] = (
    plain,
    biased,
    transposed,
    samples,
    apart,
    sums_of_rows,
    parts_of_rows,
    deep,
    points,
    windows,
    groups,
)


def graph_of(build: Build) -> Graph:
    make = GraphMaker()
    return make.graph(build(make))


def inputs_of(graph: Graph) -> Values:
    return {value.name: whole_numbers(*value.type.sizes, seed=7) for value in graph.inputs}


def grid_of(kernel: Kernel) -> tuple[int, ...]:
    return tuple(d.extent for d in kernel.space if d.name in OWN_DIMENSIONS)


def check(found: Compiled, inputs: Values, expected: Values, *, steps: bool = True) -> None:
    """Proved, verified, and with the values of the graph, whoever is faster than whom."""
    found.verify()
    assert not list(new_prover().flaws(found.plan, found.machine))
    for outputs in (found.values(inputs), *((found.step(inputs, "random", 3),) if steps else ())):
        for name, value in expected.items():
            np.testing.assert_array_equal(outputs[name], value)


def check_ways(one: Planned, graph: Graph, *, steps: bool = True) -> list[tuple[int, ...]]:
    """Every way of a plan gives the values of the graph, as the plan itself does; the grids of these ways."""
    inputs = inputs_of(graph)
    expected = run_graph(graph, inputs)
    grids = []
    for kernel, offers in one.ways():
        found = one.near(offers)
        assert {step.dies for step in fills(found.plan)} <= {1, 2, 3}
        assert kernel.contraction is not None
        assert math.prod(grid_of(kernel)) == one.machine.spcs_per_die
        check(found, inputs, expected, steps=steps)
        grids.append(grid_of(kernel))
    if grids:
        check(one.compiled(), inputs, expected, steps=False)
    return grids


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_every_grid_computes_what_the_plan_without_computes(build: Build) -> None:
    """On one die and two, by all engines."""
    graph = graph_of(build)
    grids = [check_ways(one, graph) for one in planned(graph, FOUR)]
    assert any(grids)


def test_a_depth_of_two_dimensions_stays_whole() -> None:
    graph = graph_of(deep)
    found = planned(graph, FOUR.with_values({"max_dim": 64}))
    assert any(len(kernel.red_dims) == 2 for one in found for kernel, _ in one.ways())
    for one in found:
        check_ways(one, graph)


def test_columns_of_two_dimensions_stay_together() -> None:
    """No SPC gets a part of what is summed up."""
    kernels = [kernel for one in planned(graph_of(parts_of_rows), FOUR) for kernel, _ in one.ways()]
    assert kernels
    for kernel in kernels:
        assert kernel.contraction is not None
        assert len(kernel.contraction.column_dims) == 2
        assert kernel.dimension(kernel.contraction.column_dims[1]).extent == 16


def test_spcs_divide_rows_and_columns_and_both() -> None:
    graph = graph_of(plain)
    found = [check_ways(one, graph, steps=False) for one in planned(graph, FOUR) if one.plan.repeat == 1]
    assert found
    for grids in found:
        assert sorted(grids) == [(2, 2), (4,), (4,)]


def test_an_spc_that_has_all_columns_gets_the_weights_of_all() -> None:
    """By rows every SPC gets the same, by columns its own part."""
    (one, *_) = (one for one in planned(graph_of(plain), FOUR) if one.plan.repeat == 1)
    sizes = {}
    for kernel, offers in one.ways():
        for step in fills(one.near(offers).plan):
            assert step.spcs == 4
            strides = step.source.strides[: len(step.source.dims) - len(step.target.dims)]
            sizes[kernel.dimension("m").extent] = strides, math.prod(step.target.dims)
    assert len(sizes) == 3
    by_rows, both, by_columns = (sizes[rows] for rows in sorted(sizes))
    assert by_rows[0] == (0,)
    assert both[0][0] == 0
    assert both[0][1] > 0
    assert by_columns[0][0] > 0
    assert by_rows[1] == 2 * both[1] == 4 * by_columns[1]


@pytest.mark.parametrize("build", [plain, transposed, apart, points, windows], ids=lambda build: build.__name__)
def test_what_is_near_is_dense_and_in_the_order_that_it_had(build: Build) -> None:
    """Runs of what is copied are as long as they can be; and it comes from L2 if kernels find it there."""
    for one in planned(graph_of(build), FOUR):
        for _, offers in one.ways():
            found = one.near(offers)
            for step in fills(found.plan):
                dims, strides = step.target.dims, step.target.strides
                source = step.source.strides[-len(dims) :]
                assert sum((n - 1) * stride for n, stride in zip(dims, strides, strict=True)) + 1 == math.prod(dims)
                order = sorted((a for a, n in enumerate(dims) if n > 1), key=lambda axis: source[axis])
                assert [strides[axis] for axis in order] == sorted(strides[axis] for axis in order)
                assert found.plan.buffer(step.source.buffer).space == "l2"


def test_kernels_read_near_weights_and_no_others() -> None:
    for one in planned(graph_of(plain), FOUR):
        for _, offers in one.ways():
            found = one.near(offers)
            spaces = {b.name: b.space for b in found.plan.buffers}
            targets = {step.target.buffer for step in fills(found.plan)}
            near = [k.contraction.b.view.buffer for k in found.kernels if k.contraction and k.has_own_parts]
            assert near
            assert set(near) == targets
            assert {spaces[name] for name in targets} == {"tb"}
            assert found.plan.tensor_buffer_bytes >= sum(
                b.num_bytes for b in found.plan.buffers if b.name in targets and b.first >= 0
            )


@settings(max_examples=12, deadline=None)
@given(
    rows=st.sampled_from([3, 4, 8, 10, 20]),
    depth=st.sampled_from([8, 24, 40]),
    columns=st.sampled_from([4, 12, 32, 36, 72]),
    spcs=st.sampled_from([2, 4]),
    is_by_columns=st.booleans(),
)
def test_products_of_any_shape(rows: int, depth: int, columns: int, spcs: int, is_by_columns: bool) -> None:
    make = GraphMaker()
    x = behind_others(make, make.input(rows, depth))
    weights = make.constant(whole_numbers(*((columns, depth) if is_by_columns else (depth, columns))))
    graph = make.graph(make("matmul", x, make("transpose", weights, perm=(1, 0)) if is_by_columns else weights))
    machine = load_machine("tiny").with_values({"spcs_per_die": spcs})
    for one in planned(graph, machine):
        check_ways(one, graph, steps=False)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_several_products_have_their_weights_near(count: int) -> None:
    """Each has a place of its own in the tensor buffer, or that of one which is over."""
    make = GraphMaker()
    x = behind_others(make, make.input(8, 16))
    for number in range(3):
        weights = np.roll(np.eye(16), number + 1, axis=1) * (2 - number % 2)
        x = make("relu", make("matmul", x, make.constant(weights)))
    graph = make.graph(x)
    inputs = inputs_of(graph)
    for one in (one for one in planned(graph, FOUR) if one.plan.repeat == 1):
        offers = one.offers()
        assert len(offers) == 3
        found = one.near(offers[:count])
        assert len({step.target.buffer for step in fills(found.plan)}) == count
        check(found, inputs, run_graph(graph, inputs))


def less_their_largest(make: GraphMaker, x: str) -> str:
    """Two kernels of whole rows."""
    for _ in range(2):
        x = make("sub", x, make("reduce_max", x, axes=(1,), keepdims=1))
    return x


def divided(parts: int) -> tuple[Graph, Graph]:
    """A deep product, and the same in parts of the depth: whole rows before, so that the dies have a part each."""
    make = GraphMaker()
    x = less_their_largest(make, make.input(64, 128))
    graph = make.graph(make("matmul", x, make.constant(whole_numbers(128, 32))))
    return graph, run_passes(graph, [DivideDepth(parts)])


def test_dies_with_a_part_of_the_depth_each_get_their_own_weights() -> None:
    """Their memories hold a part of the weights each, so one copy is for both."""
    graph, in_parts = divided(2)
    inputs = inputs_of(graph)
    (one, *_) = planned(in_parts, with_quick_link("tiny").with_values({"spcs_per_die": 4}))
    ways = [*one.ways()]
    assert len(ways) == 3
    for _, offers in ways:
        found = one.near(offers)
        (step,) = fills(found.plan)
        assert step.dies == 3
        home = next(b.home or b.name for b in found.plan.buffers if b.name == step.source.buffer)
        assert len(set(found.plan.buffer(home).part_offsets)) == 2
        check(found, inputs, run_graph(graph, inputs))


def test_dies_with_columns_of_their_own_get_these() -> None:
    """Both have the weights of all, so each has a copy of its own."""
    graph = graph_of(plain)
    plans = [one for one in planned(graph, FOUR) if one.plan.repeat == 1 and is_on_two_dies(one)]
    assert plans
    for one in plans:
        for _, offers in one.ways():
            first, second = fills(one.near(offers).plan)
            assert (first.dies, second.dies) == (1, 2)
            assert first.target == second.target
            assert second.source == replace(first.source, offset=first.source.offset + 16)


def test_one_die_at_work_is_the_only_one_that_is_filled() -> None:
    plans = [one for one in planned(graph_of(plain), FOUR) if one.plan.repeat == 1 and not is_on_two_dies(one)]
    assert plans
    for one in plans:
        for _, offers in one.ways():
            assert [step.dies for step in fills(one.near(offers).plan)] == [1]


def is_on_two_dies(one: Planned) -> bool:
    return all(len([*instances(step)]) == 2 for step in one.plan.steps if isinstance(step, KernelStep))
