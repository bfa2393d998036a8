"""Outputs that stay where the dies write them: every element in one piece, and the right one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from machines import with_quick_link
from pipeline import Compiled, compiled_plans

from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import (
    PAR,
    Access,
    Boundary,
    Dimension,
    ExchangeStep,
    Index,
    Kernel,
    KernelStep,
    Phase,
    Statement,
    View,
)
from birc.compiler.passes.boundary_parts import written_pieces
from birc.compiler.passes.restrict import restrict

Build = Callable[[GraphMaker], tuple[str, ...]]


def check_pieces(boundary: Boundary) -> None:
    """Every element of a boundary tensor lies in one piece, on one die."""
    seen = np.zeros(boundary.shape, np.int64)
    for mask, start, view in boundary.pieces:
        assert mask.bit_count() == 1
        part = boundary.part(view)
        seen[tuple(slice(first, first + count) for first, count in zip(start, part, strict=True))] += 1
    np.testing.assert_array_equal(seen, 1)


def axes_of(boundary: Boundary) -> tuple[int, ...]:
    """The axes along which a tensor is in pieces."""
    starts = [start for _, start, _ in boundary.pieces]
    return tuple(axis for axis, column in enumerate(zip(*starts, strict=True)) if len(set(column)) > 1)


def check(case: Compiled) -> None:
    case.verify()
    for boundary in case.plan.outputs:
        check_pieces(boundary)
    inputs = random_inputs(case.graph)
    expected = run_graph(case.graph, inputs)
    by_steps = [case.step(inputs, "random", 2)] if case.machine.name == "tiny" else []
    for values in (*by_steps, case.values(inputs)):
        for name, reference in expected.items():
            np.testing.assert_allclose(values[name], reference, rtol=0, atol=2e-3 * max(1.0, np.abs(reference).max()))


def of_rows(make: GraphMaker) -> tuple[str, ...]:
    return (make("matmul", make.input(9, 16), make.input(16, 2)),)


def of_columns(make: GraphMaker) -> tuple[str, ...]:
    return (make("matmul", make.input(1, 16), make.random(16, 33)),)


def of_middle(make: GraphMaker) -> tuple[str, ...]:
    """Heads of one sequence: the second of three dimensions."""
    x = make.input(1, 6, 4, 8)
    return (make("softmax", make("matmul", x, make.input(1, 6, 8, 5)), axis=3),)


def of_images(make: GraphMaker) -> tuple[str, ...]:
    attributes = {"stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1), "group": 1}
    return (make("conv2d", make.input(1, 8, 6, 6), make.random(10, 8, 3, 3), **attributes),)


def of_several_kernels(make: GraphMaker) -> tuple[str, ...]:
    """Each half of the result has a kernel of its own."""
    x = make.input(6, 8)
    return (make("concat", make("matmul", x, make.random(8, 5)), make("exp", x), axis=1),)


def one_after_the_other(make: GraphMaker) -> tuple[str, ...]:
    x = make.input(6, 8)
    return (make("concat", make("matmul", x, make.random(8, 8)), make("exp", x), axis=0),)


def turned(make: GraphMaker) -> tuple[str, ...]:
    """A view of what was computed is copied."""
    x = make("matmul", make.input(6, 16), make.random(16, 10))
    return (make("transpose", x, perm=(1, 0)),)


def reduced(make: GraphMaker) -> tuple[str, ...]:
    x = make("matmul", make.input(5, 16), make.random(16, 12))
    return (make("reduce_sum", x, axes=(0,), keepdims=0), make("reduce_max", x, axes=(1,), keepdims=1))


def read_again(make: GraphMaker) -> tuple[str, ...]:
    """What is given out and what goes on from it; the second may need what the other die has."""
    x = make("tanh", make("matmul", make.input(3, 16), make.random(16, 12)))
    return (x, make("matmul", x, make.random(12, 10)))


def of_six_dimensions(make: GraphMaker) -> tuple[str, ...]:
    x = make.input(2, 2, 3, 2, 2, 3, 4)
    return (make("exp", x),)


BUILDS = (
    *(of_rows, of_columns, of_middle, of_images, of_several_kernels, one_after_the_other, turned, reduced, read_again),
    of_six_dimensions,
)


@pytest.mark.parametrize("target", ["tiny", "br100"])
@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_every_element_is_in_one_piece(build: Build, target: str) -> None:
    make = GraphMaker()
    graph = make.graph(*build(make))
    for case in compiled_plans(graph, with_quick_link(target)):
        check(case)


@pytest.mark.parametrize(
    ("build", "axes"), [(of_rows, (0,)), (of_columns, (1,)), (of_middle, (1,)), (of_images, (1,)), (turned, (0,))]
)
def test_the_dies_divide_an_output_along_any_dimension(build: Build, axes: tuple[int, ...]) -> None:
    """And bring nothing together at the end."""
    make = GraphMaker()
    case = next(compiled_plans(make.graph(*build(make)), with_quick_link("tiny")))
    (output,) = case.plan.outputs
    assert axes_of(output) == axes
    assert not any(isinstance(step, ExchangeStep) for step in case.plan.steps)


SHAPE = (4, 6, 5)
WHOLE = View("y", 0, SHAPE, (30, 5, 1))


def store(view: View = WHOLE) -> Kernel:
    """A kernel that writes all of a view."""
    names = ("a", "b", "c")
    access = Access(view, tuple(Index(((name, 1),)) for name in names))
    space = tuple(Dimension(name, extent, PAR) for name, extent in zip(names, view.dims, strict=True))
    return Kernel("store", space, (Phase((Statement("vst", arguments=(0.0,), access=access),)),))


@pytest.mark.parametrize(("name", "extent"), [("a", 4), ("b", 6), ("c", 5)])
@pytest.mark.parametrize("first", [1, 2])
def test_parts_along_one_dimension_are_pieces(name: str, extent: int, first: int) -> None:
    parts = restrict(store(), name, 0, first), restrict(store(), name, first, extent - first)
    pieces = written_pieces(WHOLE, 3, [KernelStep(parts)], 2)
    assert pieces is not None
    check_pieces(Boundary("y", "f32", SHAPE, pieces))
    axis = "abc".index(name)
    assert [(mask, start[axis], view.dims[axis]) for mask, start, view in pieces] == [
        (1, 0, first),
        (2, first, extent - first),
    ]


def test_parts_of_several_kernels_are_joined() -> None:
    """One die writes rows 0 and 1 with two kernels, the other the rest."""
    one, two = (restrict(store(), "a", row, 1) for row in (0, 1))
    steps = [KernelStep((one, restrict(store(), "a", 2, 1))), KernelStep((two, restrict(store(), "a", 3, 1)))]
    pieces = written_pieces(WHOLE, 3, steps, 2)
    assert pieces is not None
    assert [(mask, start, view.dims) for mask, start, view in pieces] == [
        (1, (0, 0, 0), (2, 6, 5)),
        (2, (2, 0, 0), (2, 6, 5)),
    ]


def test_what_is_no_box_along_one_dimension_has_no_pieces() -> None:
    """A quarter each: the second half of the first rows, and the first half of the others."""
    quarter = restrict(restrict(store(), "a", 0, 2), "b", 3, 3), restrict(restrict(store(), "a", 2, 2), "b", 0, 3)
    assert written_pieces(WHOLE, 3, [KernelStep(quarter)], 2) is None


def test_a_tensor_with_gaps_has_no_pieces() -> None:
    spaced = View("y", 0, SHAPE, (60, 10, 2))
    parts = restrict(store(spaced), "a", 0, 2), restrict(store(spaced), "a", 2, 2)
    assert written_pieces(spaced, 3, [KernelStep(parts)], 2) is None
