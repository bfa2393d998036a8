"""Views of buffers against numpy's views: property tests."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from birc.compiler.ir.plan import View
from birc.compiler.passes.lower.frame import Frame
from birc.compiler.passes.lower.views import (
    broadcast,
    channel_view,
    dense_view,
    factorised,
    narrow,
    order_for_reshape,
    reshape,
    transpose,
)

ELEMENTS = 4096
MEMORY = np.arange(ELEMENTS)

shapes = st.lists(st.integers(1, 4), min_size=0, max_size=4).map(tuple)


def seen(view: View) -> np.ndarray:
    """The element numbers that a view shows."""
    strides = tuple(stride * MEMORY.itemsize for stride in view.strides)
    return as_strided(MEMORY[view.offset :], view.dims, strides, writeable=False)


@st.composite
def views(draw: st.DrawFn) -> tuple[View, np.ndarray]:
    """A view and the numpy array that shows the same elements, after some random steps."""
    shape = draw(shapes)
    order = tuple(draw(st.permutations(range(len(shape)))))
    view = dense_view("b", shape, order)
    physical = np.arange(math.prod(shape)).reshape([shape[axis] for axis in order])
    array = physical.transpose(np.argsort(order))
    for _ in range(draw(st.integers(0, 3))):
        view, array = draw(st.sampled_from((_transposed, _narrowed, _broadcast)))(draw, view, array)
    return view, array


def _transposed(draw: st.DrawFn, view: View, array: np.ndarray) -> tuple[View, np.ndarray]:
    order = tuple(draw(st.permutations(range(array.ndim))))
    return transpose(view, order), array.transpose(order)


def _narrowed(draw: st.DrawFn, view: View, array: np.ndarray) -> tuple[View, np.ndarray]:
    starts = [draw(st.integers(0, extent - 1)) for extent in array.shape]
    steps = [draw(st.integers(1, 3)) for _ in array.shape]
    part = np.asarray(array[tuple(slice(a, None, step) for a, step in zip(starts, steps, strict=True))])
    return narrow(view, starts, part.shape, steps), part


def _broadcast(draw: st.DrawFn, view: View, array: np.ndarray) -> tuple[View, np.ndarray]:
    dims = [draw(st.integers(1, 3)) if extent == 1 else extent for extent in array.shape]
    if array.ndim < 4:
        dims = [draw(st.integers(1, 3)), *dims]
    return broadcast(view, dims), np.broadcast_to(array, dims)


@settings(deadline=None)
@given(views())
def test_steps_show_what_numpy_shows(pair: tuple[View, np.ndarray]) -> None:
    view, array = pair
    np.testing.assert_array_equal(seen(view), array)


@st.composite
def factorisations(draw: st.DrawFn, product: int) -> tuple[int, ...]:
    """Dimensions with a given product, ones among them: its prime factors, some of them together."""
    dims = [1] * draw(st.integers(0, 2))
    for prime in _primes(product):
        place = draw(st.integers(0, len(dims)))
        if place < len(dims) and draw(st.booleans()):
            dims[place] *= prime
        else:
            dims.insert(place, prime)
    return tuple(dims)


def _primes(number: int) -> list[int]:
    divisor = next((d for d in range(2, math.isqrt(number) + 1) if number % d == 0), number)
    return [] if number == 1 else [divisor, *_primes(number // divisor)]


@settings(deadline=None)
@given(st.data())
def test_reshape_is_numpys_view_or_none(data: st.DataObject) -> None:
    view, array = data.draw(views())
    dims = data.draw(factorisations(array.size))
    result = reshape(view, dims)
    try:
        expected = array.view()
        expected.shape = dims
    except AttributeError:  # numpy would have to copy
        assert result is None
        return
    assert result is not None
    np.testing.assert_array_equal(seen(result), expected)


@settings(deadline=None)
@given(st.data())
def test_a_copy_in_that_order_can_be_reshaped(data: st.DataObject) -> None:
    """Whatever the view and the new dimensions are, and what is innermost stays so if nothing forbids it."""
    view, array = data.draw(views())
    dims = data.draw(factorisations(array.size))
    order = order_for_reshape(view, dims)
    assert sorted(order) == list(range(array.ndim))
    dense = dense_view("copy", view.dims, order)
    result = reshape(dense, dims)
    assert result is not None
    copied = np.empty(array.size, array.dtype)
    copied[seen(dense).ravel()] = array.ravel()
    np.testing.assert_array_equal(copied[seen(result).ravel()], array.ravel())


def test_pixels_that_are_repeated_stay_channels_last() -> None:
    """An image [1, 8, 3, 5] with channels last, each pixel seen as two by two."""
    image = dense_view("image", (1, 8, 3, 1, 5, 1), (0, 2, 3, 4, 5, 1))
    repeated = broadcast(image, (1, 8, 3, 2, 5, 2))
    assert reshape(repeated, (1, 8, 6, 10)) is None
    assert order_for_reshape(repeated, (1, 8, 6, 10)) == (0, 2, 3, 4, 5, 1)
    assert order_for_reshape(repeated, (8, 60)) == (2, 3, 4, 5, 0, 1)
    assert order_for_reshape(repeated, (480,)) == (0, 1, 2, 3, 4, 5)


@settings(deadline=None)
@given(st.data())
def test_frame_shows_the_operand_in_the_order_of_the_space(data: st.DataObject) -> None:
    shape = data.draw(shapes.filter(len))
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    frame = Frame.of(shape, order)
    axis = data.draw(st.integers(0, len(shape) - 1))
    factors = data.draw(st.sampled_from([(d, shape[axis] // d) for d in range(1, 5) if shape[axis] % d == 0]))
    split = frame.split(axis, factors)
    operand = np.arange(math.prod(shape)).reshape(shape)
    view = dense_view("b", shape)
    assert [d.extent for d in split.dimensions] == list(split.view(view).dims)
    np.testing.assert_array_equal(seen(frame.view(view)), operand.transpose(order))
    expected = operand.reshape(*shape[:axis], *factors, *shape[axis + 1 :])
    assert seen(split.view(view)).size == expected.size
    whole = [name for number in range(len(shape)) for name in split.names_of_axis(number)]
    back = [split.names.index(name) for name in whole]
    np.testing.assert_array_equal(seen(split.view(view)).transpose(back), expected)


def test_channel_view() -> None:
    view = channel_view(narrow(dense_view("b", (10,)), (1,), (4,), (2,)), 4)
    np.testing.assert_array_equal(seen(view), np.array([1, 3, 5, 7]).reshape(1, 4, 1, 1))


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(2, 200))
def test_factors_are_small_and_multiply_up(extent: int, limit: int) -> None:
    factors = factorised(extent, limit)
    if factors is None:
        assert not any(extent % d == 0 and extent // d <= limit for d in range(1, limit + 1))
    else:
        assert math.prod(factors) == extent
        assert max(factors) <= limit
        assert len(factors) == (1 if extent <= limit else 2)
