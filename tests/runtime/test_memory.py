"""Boxes in memory, against loads and stores of one element after the other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birc.runtime.conversion import from_register, immediate_lanes, memory_type, to_register
from birc.runtime.faults import MachineFault
from birc.runtime.machine import load_machine
from birc.runtime.memory import Memory, box_starts, load_box, load_indexed, store_box
from birc.runtime.program import FILLS, Affine, Axis, Box, Descriptor, Program

SIZE = 16384  # either way from the middle, the farthest coordinate of the longest strides in INT64
# Broadcast and overlapping elements may be read; for a store every element needs an address of its own.
ANY_STRIDES = ((0, 1, 3, 7, -2),) * 3
DISTINCT_STRIDES = ((1, 2, -1), (12, -10), (60, -70))
DTYPES = ("f32", "bf16", "f16", "i64", "i32", "i16", "i8", "u8", "bool")


def memory(poison: bool = True) -> Memory:
    program = Program("m", "tiny", "", 2, 1024, 512, SIZE, (), (), (), (), (), ())
    return Memory(program, load_machine("tiny"), poison=poison)


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    step = draw(st.sampled_from((1, 1, 2, 3, -1, -2)))
    return Axis(Affine(draw(st.integers(-9, 9))), draw(st.integers(1, 6)), step)


@st.composite
def tensors_and_boxes(draw: st.DrawFn, strides_of_axes: tuple[tuple[int, ...], ...]) -> tuple[Descriptor, Box]:
    rank = draw(st.integers(1, 3))
    dims = tuple(draw(st.integers(1, 5)) for _ in range(rank))
    strides = tuple(draw(st.sampled_from(strides_of_axes[axis])) for axis in range(rank))
    origin = tuple(draw(st.integers(-3, 3)) for _ in range(rank))
    descriptor = Descriptor("hbm", SIZE // 2, draw(st.sampled_from(DTYPES)), dims, strides, origin)
    return descriptor, Box(0, tuple(draw(axes()) for _ in range(rank)), draw(st.sampled_from(FILLS[:-1])))


def coordinates_of(box: Box) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Position in the box and coordinates, one element after the other."""
    positions = itertools.product(*(range(axis.extent) for axis in box.axes))
    return [
        (at, tuple(axis.start.constant + p * axis.step for axis, p in zip(box.axes, at, strict=True)))
        for at in positions
    ]


def inside(descriptor: Descriptor, at: tuple[int, ...]) -> bool:
    rows = zip(at, descriptor.lower, descriptor.dims, strict=True)
    return all(low <= c < low + dim for c, low, dim in rows)


def element(memory: Memory, descriptor: Descriptor, at: tuple[int, ...]) -> np.ndarray:
    """The element at coordinates, as an array of one that shares memory."""
    dtype = memory_type(descriptor.dtype)
    distance = sum(c * stride for c, stride in zip(at, descriptor.strides, strict=True))
    address = descriptor.address + distance * dtype.itemsize
    return memory.hbm[0][address : address + dtype.itemsize].view(dtype)


def fill_memory(target: Memory, seed: int) -> None:
    """Bytes that are finite in every float type; every second word is 0, so that INT64 fits a lane."""
    target.hbm[0][:] = np.random.default_rng(seed).integers(0, 60, SIZE)
    target.hbm[0].view(np.uint32)[1::2] = 0


@settings(max_examples=200, deadline=None)
@given(tensors_and_boxes(ANY_STRIDES), st.integers(0, 1000))
def test_loads_agree_with_single_elements(case: tuple[Descriptor, Box], seed: int) -> None:
    descriptor, box = case
    source = memory()
    fill_memory(source, seed)
    lanes, count = load_box(source.view(descriptor, 0), descriptor, box, box_starts(box, ()))
    kind = "float" if descriptor.dtype in ("f32", "bf16", "f16") else "int"
    assert lanes.dtype == (np.float32 if kind == "float" else np.int32)
    assert count == sum(inside(descriptor, at) for _, at in coordinates_of(box))
    for position, at in coordinates_of(box):
        if inside(descriptor, at):
            expected = element(source, descriptor, at)[0]
        elif box.fill == "clamp":
            limits = zip(at, descriptor.lower, descriptor.dims, strict=True)
            nearest = tuple(min(max(c, low), low + dim - 1) for c, low, dim in limits)
            expected = element(source, descriptor, nearest)[0]
        else:
            assert lanes[position] == expected_fill(box.fill, descriptor.dtype)
            continue
        expected = expected != 0 if descriptor.dtype == "bool" else expected
        assert lanes[position] == np.float64(expected)


def expected_fill(fill: str, dtype: str) -> float:
    bounds = {"i64": (-(2**31), 2**31 - 1), "bool": (0, 1)}
    if dtype in ("f32", "bf16", "f16"):
        bounds[dtype] = (-np.inf, np.inf)
    elif dtype not in bounds:
        limits = np.iinfo(memory_type(dtype))
        bounds[dtype] = (int(limits.min), int(limits.max))
    return {"zero": 0, "lowest": bounds[dtype][0], "highest": bounds[dtype][1]}[fill]


@settings(max_examples=200, deadline=None)
@given(tensors_and_boxes(DISTINCT_STRIDES), st.integers(0, 1000))
def test_stores_touch_exactly_the_elements_in_bounds(case: tuple[Descriptor, Box], seed: int) -> None:
    descriptor, box = case
    kind = np.float32 if descriptor.dtype in ("f32", "bf16", "f16") else np.int32
    lanes = np.random.default_rng(seed).integers(0, 100, box.shape).astype(kind)
    whole, single = memory(), memory()
    count = store_box(whole.view(descriptor, 0), descriptor, box, box_starts(box, ()), lanes)
    expected = 0
    for position, at in coordinates_of(box):
        if inside(descriptor, at):
            expected += 1
            element(single, descriptor, at)[0] = from_register(lanes[position], descriptor.dtype)
    assert count == expected
    np.testing.assert_array_equal(whole.hbm[0], single.hbm[0])


def test_an_indexed_load_takes_one_row_a_lane() -> None:
    descriptor = Descriptor("hbm", 0, "i32", (6, 3), (3, 1), (2, 0))
    source = memory()
    view = source.view(descriptor, 0)
    view[...] = np.arange(18).reshape(6, 3)
    box = Box(0, (Axis(Affine(1), 1), Axis(Affine(-1), 3)))
    index = np.array([[6], [0], [1]], np.int32)
    lanes, count = load_indexed(view, descriptor, box, (1, -1), index=index, axis=0, count=7)
    # Coordinates 7, 1, 2 of rows 2:8, columns -1, 0, 1 of 0:3.
    np.testing.assert_array_equal(lanes, [[0, 15, 16], [0, 0, 0], [0, 0, 1]])
    assert count == 4
    with pytest.raises(MachineFault, match="index 6, the range is 0 to 6"):
        load_indexed(view, descriptor, box, (1, -1), index=index, axis=0, count=6)
    with pytest.raises(MachineFault, match="FP32"):
        load_indexed(view, descriptor, box, (1, -1), index=index.astype(np.float32), axis=0, count=7)


def test_memory_never_written_reads_as_nan() -> None:
    fresh = memory()
    for dtype in ("f32", "bf16", "f16"):
        assert np.isnan(fresh.view(Descriptor("tb", 0, dtype, (8,), (1,)), 1, 1).astype(np.float64)).all()
    assert not memory(poison=False).hbm[0].any()


def test_a_descriptor_may_not_leave_its_memory() -> None:
    target = memory()
    with pytest.raises(MachineFault, match=f"reaches bytes {SIZE - 4} to {SIZE + 4} of hbm, which has {SIZE}"):
        target.view(Descriptor("hbm", SIZE - 4, "f32", (2,), (1,)), 0)
    with pytest.raises(MachineFault, match="reaches bytes -4 to 4 "):
        target.view(Descriptor("hbm", 0, "f32", (2,), (-1,)), 0)
    with pytest.raises(MachineFault):
        target.view(Descriptor("hbm", 0, "f32", (2,), (1,)), 0, byte_offset=SIZE)
    assert target.l2[1].size == 1024 * load_machine("tiny").spcs_per_die


def test_refused_and_wrong_boxes() -> None:
    descriptor = Descriptor("hbm", 0, "f32", (4,), (1,))
    view = memory().view(descriptor, 0)
    refusing = Box(0, (Axis(Affine(1), 4),), "refuse")
    with pytest.raises(MachineFault, match="leaves its tensor"):
        load_box(view, descriptor, refusing, (1,))
    assert load_box(view, descriptor, refusing, (0,))[1] == 4
    with pytest.raises(MachineFault, match="2 axes on a tensor of 1"):
        load_box(view, descriptor, Box(0, (Axis(Affine(), 1),) * 2), (0, 0))
    with pytest.raises(MachineFault, match=r"shape \(3,\)"):
        store_box(view, descriptor, refusing, (0,), np.zeros(3, np.float32))


def test_conversions() -> None:
    np.testing.assert_array_equal(to_register(np.array([0, 1, 255], np.uint8), "bool"), [0, 1, 1])
    with pytest.raises(MachineFault, match="2147483648"):
        to_register(np.array([2**31], np.int64), "i64")
    assert from_register(np.array([-1], np.int32), "i64")[0] == -1
    assert from_register(np.array([257], np.int32), "u8")[0] == 1
    assert from_register(np.float32([1 + 2**-8, 1 + 3 * 2**-8]), "bf16").astype(float).tolist() == [
        1,
        1 + 2**-6,
    ]
    assert np.isposinf(from_register(np.float32([1e9]), "f16")[0])
    with pytest.raises(MachineFault, match="vtoint"):
        from_register(np.float32([1]), "i32")
    assert immediate_lanes(3.0, "i8").dtype == np.int32
    assert immediate_lanes(3.0, "f16").dtype == np.float32
    for name in ("f64", "i4"):
        with pytest.raises(MachineFault, match=name):
            memory_type(name)
