"""The verifier's parts against plain definitions: unrolling, byte sets, boxes, SPC classes, kinds of lanes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from forms import Blocking, blocked_gemm
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import cases

from birc.runtime import alu
from birc.runtime.faults import MachineFault
from birc.runtime.isa import VECTOR
from birc.runtime.program import Descriptor, Instruction
from birc.runtime.stepping.walk import KernelWalk
from birc.runtime.verifier.boxes import Boxes, byte_hulls, clip, overlaps, unique, whole_view
from birc.runtime.verifier.byteset import ByteSet, bytes_of
from birc.runtime.verifier.layout import ELEMENT_BYTES, byte_span
from birc.runtime.verifier.unroll import spc_classes, spc_coordinates, unroll
from birc.runtime.verifier.values import Content, ContentError, computed

KERNELS = [kernel for case in cases() for kernel in case.program.kernels]
KERNELS.append(blocked_gemm(Blocking(2, 2, 1, 2, 2, 2, 2, 2, 2)))

# --- unrolling


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_unrolled_kernels_are_what_the_stepping_engine_walks(kernel):
    for spc, coordinates in enumerate(spc_coordinates(kernel)):
        unrolled = unroll(kernel, coordinates)
        mine = [None] * unrolled.events
        for number, instances in enumerate(unrolled.instances):
            rows = zip(instances.position, instances.variables, instances.first, instances.last, strict=True)
            for position, variables, first, last in rows:
                mine[position] = (number, tuple(variables), first, last)
        steps = KernelWalk(kernel).steps(spc)
        assert mine == [(step.index, step.variables, step.first, step.last) for step in steps]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_spcs_of_a_class_execute_the_same(kernel):
    coordinates = spc_coordinates(kernel)
    for first, members in spc_classes(kernel, coordinates):
        expected = unroll(kernel, coordinates[first])
        depth = coordinates.shape[1]
        for member in members:
            found = unroll(kernel, coordinates[member])
            for one, other in zip(expected.instances, found.instances, strict=True):
                np.testing.assert_array_equal(one.variables[:, depth:], other.variables[:, depth:])
                np.testing.assert_array_equal(one.position, other.position)


# --- byte sets

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=8)


def byte_set(ranges):
    starts = np.array([start for start, _ in ranges], np.int64)
    return ByteSet(starts, starts + np.array([length for _, length in ranges], np.int64))


def members(ranges):
    return {byte for start, length in ranges for byte in range(start, start + length)}


@given(RANGES, RANGES)
def test_byte_sets_are_sets(left, right):
    one, other = byte_set(left), byte_set(right)
    both = one.union(other)
    spread = {byte for a, b in zip(both.starts, both.ends, strict=True) for byte in range(a, b)}
    assert spread == members(left) | members(right)
    assert all(both.ends[:-1] < both.starts[1:])
    assert one.covers(other) == (members(right) <= members(left))
    missing = one.first_missing(other)
    assert missing is None or not set(range(*missing)) <= members(left)


# --- boxes

EXTENTS = st.integers(1, 4)


@st.composite
def views(draw, rank=None):
    """A small view: row major with gaps, transposed, broadcast or overlapping itself."""
    rank = rank or draw(st.integers(1, 3))
    dims = tuple(draw(EXTENTS) for _ in range(rank))
    strides = tuple(draw(st.sampled_from((0, 1, 2, 3, 4, 6, 8, 12, 24))) for _ in range(rank))
    origin = tuple(draw(st.integers(-1, 1)) for _ in range(rank))
    dtype = draw(st.sampled_from(("i8", "bf16", "f32")))
    return Descriptor("hbm", draw(st.integers(0, 12)) * 4 + 200, dtype, dims, strides, origin)


def nested_view(address, dims, order):
    """A view of a row-major tensor [4, 6, 8] of bf16, axes in some order."""
    strides = (48, 8, 1)
    return Descriptor("l2", address, "bf16", tuple(dims[a] for a in order), tuple(strides[a] for a in order))


def element_bytes(view, box_low, box_high):
    """The bytes of a box, one by one."""
    size = ELEMENT_BYTES[view.dtype]
    found = set()
    for point in itertools.product(*(range(a, b) for a, b in zip(box_low, box_high, strict=True))):
        start = view.address + size * sum(c * s for c, s in zip(point, view.strides, strict=True))
        found |= set(range(start, start + size))
    return found


@st.composite
def boxes_in(draw, view, most=3):
    """Boxes of a view, in bounds, some of them empty."""
    rows = []
    for _ in range(draw(st.integers(1, most))):
        ends = [lower + dim for lower, dim in zip(view.lower, view.dims, strict=True)]
        lows = [draw(st.integers(lower, end)) for lower, end in zip(view.lower, ends, strict=True)]
        rows.append((lows, [draw(st.integers(low, end)) for low, end in zip(lows, ends, strict=True)]))
    return Boxes(np.array([low for low, _ in rows], np.int64), np.array([high for _, high in rows], np.int64))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_boxes_that_share_a_byte_are_found(data):
    left, right = data.draw(views()), data.draw(views())
    these, those = data.draw(boxes_in(left)), data.draw(boxes_in(right))
    found = overlaps(left, these, right, those)
    for a, b in np.ndindex(found.shape):
        shared = element_bytes(left, these.low[a], these.high[a]) & element_bytes(right, those.low[b], those.high[b])
        assert found[a, b] or not shared


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_boxes_of_views_of_one_tensor_are_compared_exactly(data):
    orders = st.permutations(range(3))
    first = [data.draw(st.integers(0, n - 1)) for n in (4, 6, 8)]
    dims = [data.draw(st.integers(1, n - at)) for n, at in zip((4, 6, 8), first, strict=True)]
    left = nested_view(64, (4, 6, 8), data.draw(orders))
    right = nested_view(64 + 2 * (48 * first[0] + 8 * first[1] + first[2]), dims, data.draw(orders))
    these, those = data.draw(boxes_in(left)), data.draw(boxes_in(right))
    found = overlaps(left, these, right, those)
    for a, b in np.ndindex(found.shape):
        mine = element_bytes(left, these.low[a], these.high[a])
        assert found[a, b] == bool(mine & element_bytes(right, those.low[b], those.high[b]))


SHAPE = (4, 6, 8)


@st.composite
def runs(draw):
    """A dense tensor [4, 6, 8] of bf16 as it is or as 24 rows, and a box of some of its columns: of rows of one of the
    four matrices, or of whole ones, which are one run of the 24 rows."""
    columns = sorted(draw(st.lists(st.integers(0, 8), min_size=2, max_size=2, unique=True)))
    first, last = sorted(draw(st.lists(st.integers(0, 4), min_size=2, max_size=2, unique=True)))
    if draw(st.booleans()):
        box, dims, strides = [(6 * first, 6 * last), columns], (24, 8), (8, 1)
    else:
        rows = (0, 6)
        if last - first == 1:
            rows = sorted(draw(st.lists(st.integers(0, 6), min_size=2, max_size=2, unique=True)))
        box, dims, strides = [(first, last), rows, columns], (4, 6, 8), (48, 8, 1)
    order = draw(st.permutations(range(len(dims))))
    view = Descriptor("l2", 640, "bf16", *(tuple(values[axis] for axis in order) for values in (dims, strides)))
    ends = [[box[axis][end] for axis in order] for end in (0, 1)]
    return view, Boxes(*(np.array([end], np.int64) for end in ends))


@settings(max_examples=300, deadline=None)
@given(runs(), runs())
def test_runs_of_joined_and_of_cut_views_are_compared_exactly(one, other):
    (left, these), (right, those) = one, other
    mine = element_bytes(left, these.low[0], these.high[0])
    shared = mine & element_bytes(right, those.low[0], those.high[0])
    assert overlaps(left, these, right, those)[0, 0] == bool(shared)


@pytest.mark.parametrize(("rows", "meets"), [((0, 8), False), ((8, 16), True), ((16, 24), False), ((0, 24), True)])
def test_columns_of_a_joined_view_lie_beside_those_of_a_cut_one(rows, meets):
    """Half of the columns of whole matrices: no byte range around them tells them from the other half."""
    cut = Descriptor("l2", 0, "bf16", (3, 8, 8), (64, 8, 1))
    joined = Descriptor("l2", 0, "bf16", (24, 8), (8, 1))
    part = Boxes(np.array([[1, 0, 0]]), np.array([[2, 8, 4]]))
    for first, found in ((0, meets), (4, False)):
        run = Boxes(np.array([[rows[0], first]]), np.array([[rows[1], first + 4]]))
        assert overlaps(cut, part, joined, run)[0, 0] == found
        assert overlaps(joined, run, cut, part)[0, 0] == found


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_boxes_of_joined_and_of_cut_views_that_share_a_byte_are_found(data):
    """Any boxes, with gaps between rows and other element types."""
    gap = data.draw(st.integers(0, 2))
    strides = (6 * (8 + gap), 8 + gap, 1)
    sides = []
    for _ in range(2):
        dims, steps = list(SHAPE), list(strides)
        if data.draw(st.booleans()):  # the outer two as one
            dims[0:2], steps[0:2] = [24], [steps[1]]
        if data.draw(st.booleans()):  # a row in two
            dims[-1:], steps[-1:] = [2, 4], [4, 1]
        elif not gap and data.draw(st.booleans()):
            dims[-2:], steps[-2:] = [dims[-2] * 8], [1]
        order = data.draw(st.permutations(range(len(dims))))
        dtype = data.draw(st.sampled_from(("bf16", "f32")))
        moved = data.draw(st.sampled_from((0, 0, 2, 16, 96)))
        view = Descriptor("l2", 64 + moved, dtype, tuple(dims[a] for a in order), tuple(steps[a] for a in order))
        sides += [view, data.draw(boxes_in(view))]
    left, these, right, those = sides
    found = overlaps(left, these, right, those)
    for a, b in np.ndindex(found.shape):
        shared = element_bytes(left, these.low[a], these.high[a]) & element_bytes(right, those.low[b], those.high[b])
        assert found[a, b] or not shared


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_bytes_of_boxes_are_those_of_their_elements(data):
    view = data.draw(views())
    boxes = data.draw(boxes_in(view))
    found = bytes_of(view, boxes).moved(view.address)
    spread = {byte for a, b in zip(found.starts, found.ends, strict=True) for byte in range(a, b)}
    each = [element_bytes(view, low, high) for low, high in zip(boxes.low, boxes.high, strict=True)]
    assert spread == set().union(*each)
    low, high = byte_hulls(view, boxes)
    for start, end, mine in zip(low, high, each, strict=True):
        assert (start, end) == (min(mine), max(mine) + 1) if mine else start == end


@given(views())
def test_the_span_of_a_view_reaches_from_its_first_to_its_last_byte(view):
    box = whole_view(view)
    mine = element_bytes(view, box.low[0], box.high[0])
    assert byte_span(view) == (min(mine), max(mine) + 1)


def test_clipping_keeps_what_is_in_bounds():
    view = Descriptor("hbm", 0, "f32", (4, 5), (5, 1), (1, 0))
    boxes = Boxes(np.array([[0, -3], [4, 4], [7, 7]]), np.array([[2, 2], [9, 6], [9, 9]]))
    inside = clip(boxes, view)
    assert inside.present.tolist() == [True, True, False]
    assert inside.low[:2].tolist() == [[1, 0], [4, 4]]
    assert inside.high[:2].tolist() == [[2, 2], [5, 5]]
    nearest = clip(boxes, view, nearest=True)
    assert nearest.present.all()
    assert (nearest.low[2].tolist(), nearest.high[2].tolist()) == ([4, 4], [5, 5])


def test_unique_drops_repeated_and_empty_boxes():
    boxes = Boxes(np.array([[0], [0], [3], [5]]), np.array([[2], [2], [3], [6]]))
    assert unique(boxes).low.ravel().tolist() == [0, 5]


# --- kinds of lanes

IMMEDIATES = (0.0, 0.5, -0.0, 2.0**31, -(2.0**31), math.inf, -math.inf, math.nan)
SOURCES = (*IMMEDIATES, np.ones((1, 1), np.float32), np.ones((1, 1), np.int32))
COMPUTING = [row for row in VECTOR if row.mnemonic in alu.ELEMENTWISE and row.mnemonic not in alu.FOLDS]


@pytest.mark.parametrize("row", COMPUTING, ids=lambda row: row.mnemonic)
def test_lanes_are_of_the_kind_that_the_arithmetic_gives(row):
    for operands in itertools.product(SOURCES, repeat=len(row.reads)):
        arrays = [operand for operand in operands if isinstance(operand, np.ndarray)]
        if not arrays:
            continue
        contents = tuple(Content((1, 1), x.dtype == np.int32) if isinstance(x, np.ndarray) else x for x in operands)
        try:
            lanes = alu.elementwise(row.mnemonic, operands)
        except MachineFault:
            with pytest.raises(ContentError):
                computed(Instruction(row.mnemonic, ()), contents)
            continue
        assert computed(Instruction(row.mnemonic, ()), contents).integer == (lanes.dtype == np.int32), operands
