"""The access relations of every row say exactly what the numpy meaning reads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birc.compiler.ir.access import Box, Loop, Relations, footprint, index_range, resolve
from birc.compiler.ir.op import OpRow, Sample
from birc.compiler.ir.polyhedra import exact_footprint
from birc.compiler.ir.table import OPS, row
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import dtype
from birc.runtime.errors import InternalError

CASES = [
    pytest.param(entry, sample, id=f"{entry.name}-{at}") for entry in OPS for at, sample in enumerate(entry.samples)
]
BOXES_A_SAMPLE = 3

# Where a NaN that is read need not be seen: it is compared, converted, or the data says whether it is chosen.
HIDES_NAN = {
    "quantize",
    "bitcast",
    "where",
    "cast",
    "convert",
    "equal",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
    "gather",
    "gather_nd",
}


def relations_of(entry: OpRow, sample: Sample) -> tuple[Relations, TensorType]:
    (output,) = entry.output_types(sample.types, sample.attributes)
    return entry.relations(sample.types, output, sample.attributes), output


def boxes(output: TensorType) -> list[Box]:
    """A few random boxes of output elements, the whole one first; none of an empty output."""
    if not output.num_elements:
        return []
    random = np.random.default_rng(output.num_elements)
    found: list[Box] = [tuple((0, size) for size in output.sizes)]
    for _ in range(BOXES_A_SAMPLE - 1):
        starts = [int(random.integers(0, size)) for size in output.sizes]
        stops = [int(random.integers(start + 1, size + 1)) for start, size in zip(starts, output.sizes, strict=True)]
        found.append(tuple(zip(starts, stops, strict=True)))
    return found


def as_index(box: Box) -> tuple[slice, ...]:
    return tuple(slice(*limits) for limits in box)


def poisoned(array: np.ndarray) -> np.ndarray:
    """An array of the same type whose elements betray that they were read; for indices, 0 is in range."""
    if array.dtype == np.bool_:
        return np.array(~array)
    if array.dtype.kind in "iu":
        return np.where(array == 0, 1, 0).astype(array.dtype)
    return np.full_like(array, np.nan)


def keep_only(array: np.ndarray, box: Box | None) -> np.ndarray:
    """`array` with everything outside the box poisoned."""
    result = poisoned(array)
    if box is not None:
        result[as_index(box)] = array[as_index(box)]
    return result


@pytest.mark.parametrize(("entry", "sample"), CASES)
def test_nothing_outside_the_footprint_is_read(entry: OpRow, sample: Sample) -> None:
    """A relation that is too narrow lets poison through."""
    relations, output = relations_of(entry, sample)
    arrays = sample.arrays()
    (whole,) = entry.evaluate(arrays, sample.attributes)
    # Where a window has one element in the picture, that is its extreme whatever it is; all windows have others.
    for box in boxes(output)[: None if output.dtype.is_float else 1]:
        needed = exact_footprint(relations, box, sample.types)
        kept = [keep_only(array, part) for array, part in zip(arrays, needed, strict=True)]
        (result,) = entry.evaluate(kept, sample.attributes)
        np.testing.assert_array_equal(result[as_index(box)], whole[as_index(box)])


@pytest.mark.parametrize(("entry", "sample"), CASES)
def test_each_face_of_the_footprint_is_read(entry: OpRow, sample: Sample) -> None:
    """A relation that is too wide has a face that no element of the box needs."""
    if entry.name in HIDES_NAN or any(type.dtype.kind != "float" for type in sample.types):
        pytest.skip("a NaN is not seen in the result")
    relations, output = relations_of(entry, sample)
    arrays = sample.arrays()
    (whole,) = entry.evaluate(arrays, sample.attributes)
    # Where a window has one element in the picture, that is its extreme whatever it is; all windows have others.
    for box in boxes(output)[: None if output.dtype.is_float else 1]:
        for at, part in enumerate(exact_footprint(relations, box, sample.types)):
            for dim, (start, stop) in enumerate(part or ()):
                for edge in (start, stop - 1):
                    face = [slice(*limits) for limits in part or ()]
                    face[dim] = slice(edge, edge + 1)
                    assert any(
                        seen(entry, sample, arrays, at, face, poison, whole)[as_index(box)].any()
                        for poison in ((np.nan,) if output.dtype.is_float else (np.inf, -np.inf))
                    )


def seen(
    entry: OpRow,
    sample: Sample,
    arrays: tuple[np.ndarray, ...],
    at: int,
    face: list[slice],
    poison: float,
    whole: np.ndarray,
) -> np.ndarray:
    """Where the result shows that the face of operand `at` is poisoned: a NaN, or another place of an extreme."""
    operand = arrays[at].copy()
    operand[tuple(face)] = poison
    (result,) = entry.evaluate((*arrays[:at], operand, *arrays[at + 1 :]), sample.attributes)
    return np.isnan(result.astype(np.float64)) if np.isnan(poison) else result != whole


@pytest.mark.parametrize(("entry", "sample"), CASES)
def test_intervals_contain_the_exact_footprint(entry: OpRow, sample: Sample) -> None:
    """The fast boxes are never too small, and exact where no index wraps, strides or leaves the operand."""
    relations, output = relations_of(entry, sample)
    for box in boxes(output):
        exact = exact_footprint(relations, box, sample.types)
        fast = footprint(relations, box, sample.types)
        if entry.category in ("elementwise", "normalization", "reduction", "index") or entry.name == "matmul":
            assert fast == exact
        for inner, outer in zip(exact, fast, strict=True):
            if inner is None:
                continue
            assert outer is not None
            for (first, last), (start, stop) in zip(inner, outer, strict=True):
                assert start <= first
                assert last <= stop


@pytest.mark.parametrize("entry", OPS, ids=lambda entry: entry.name)
def test_parallel_loops_are_the_output(entry: OpRow) -> None:
    for sample in entry.samples:
        relations, output = relations_of(entry, sample)
        assert tuple(loop.extent for loop in relations.parallel) == output.sizes
        assert relations.loops == (*relations.parallel, *relations.reductions)
        assert len(relations.reads) == len(sample.types)


def test_relations_of_a_convolution_read_as_one_writes_them() -> None:
    entry = row("conv2d")
    x, w = (TensorType(dtype("f32"), shape) for shape in ((1, 4, 9, 9), (6, 2, 3, 3)))
    attributes = {"stride": (2, 1), "pads": (1, 0, 1, 0), "dilation": (1, 2), "group": 2}
    (output,) = entry.output_types((x, w), attributes)
    relations = entry.relations((x, w), output, attributes)
    assert relations.reads == (("n", "c + 2 * (o // 3)", "2 * y + r - 1", "x + 2 * s"), ("o", "c", "r", "s"))
    assert relations.reductions == (Loop("c", 2, True), Loop("r", 3, True), Loop("s", 3, True))
    box = ((0, 1), (3, 6), (0, 2), (1, 3))
    assert footprint(relations, box, (x, w)) == (
        ((0, 1), (2, 4), (0, 4), (1, 7)),
        ((3, 6), (0, 2), (0, 3), (0, 3)),
    )


def test_piece_of_a_concatenation_that_is_not_needed() -> None:
    entry = row("concat")
    types = tuple(TensorType(dtype("f32"), (size,)) for size in (2, 3, 4))
    relations = entry.relations(types, TensorType(dtype("f32"), (9,)), {"axis": 0})
    assert footprint(relations, ((3, 7),), types) == (None, ((1, 3),), ((0, 2),))


def test_reshape_keeps_equal_runs_apart() -> None:
    x, y = (TensorType(dtype("f32"), shape) for shape in ((2, 3, 20), (6, 4, 5)))
    relations = row("reshape").relations((x,), y, {"shape": (6, 4, 5)})
    assert relations.reads == (("(i0) // 3", "(i0) % 3", "5 * i1 + i2"),)


@pytest.mark.parametrize(
    ("loops", "access", "message"),
    [
        ("i*", "i0, i1, i0", "does not fit"),
        ("i* | k", "i*", "no operand is indexed by the loop k alone"),
        ("n i", "n, i + size[0]", "not an element of an attribute"),
        ("n i", "n, i + other", "neither a loop nor an integer attribute"),
        ("n i", "n, i + f(n)", r"is not size\(loop\)"),
        ("n i", "n, i // n", "divides by a positive number"),
        ("n i", "n, i / 2", "not an affine index"),
    ],
)
def test_wrong_texts_are_refused(loops: str, access: str, message: str) -> None:
    type = TensorType(dtype("f32"), (2, 3))
    with pytest.raises(InternalError, match=message):
        resolve(loops, {"x": access}, ("x",), (type,), type, {})


small = st.integers(-9, 9)


@given(low=small, length=st.integers(1, 9), scale=small, offset=small, divisor=st.integers(1, 5))
def test_index_ranges_contain_every_value(low: int, length: int, scale: int, offset: int, divisor: int) -> None:
    ranges = {"i": (low, low + length - 1), "j": (0, 2)}
    for text in (
        f"{scale} * i + {offset}",
        f"({scale} * i - j) // {divisor}",
        f"(i + {offset}) % {divisor}",
        f"-(i // {divisor}) + j",
    ):
        values = [
            eval(text, {"i": i, "j": j})  # the index texts are Python expressions
            for i in range(low, low + length)
            for j in range(3)
        ]
        least, most = index_range(text, ranges)
        assert least <= min(values)
        assert max(values) <= most
        if "%" not in text:
            assert (least, most) == (min(values), max(values))
