"""Every row of the operator table: its meaning fits its type rule, wrong uses are refused with a message."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from birc.compiler.ir.attributes import Attribute
from birc.compiler.ir.errors import TypeRuleError
from birc.compiler.ir.op import OpRow, Sample
from birc.compiler.ir.table import OPS, row
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import dtype
from birc.runtime.errors import InternalError

SAMPLES = [(entry, sample) for entry in OPS for sample in entry.samples]
SAMPLE_IDS = [f"{entry.name}-{at}" for entry in OPS for at in range(len(entry.samples))]
each_row = pytest.mark.parametrize("entry", OPS, ids=lambda entry: entry.name)
each_sample = pytest.mark.parametrize(("entry", "sample"), SAMPLES, ids=SAMPLE_IDS)


@each_sample
def test_meaning_has_the_inferred_types(entry: OpRow, sample: Sample) -> None:
    results = entry.evaluate(sample.arrays(), sample.attributes)
    types = entry.output_types(sample.types, sample.attributes)
    assert [array.shape for array in results] == [type.shape for type in types]
    assert [array.dtype for array in results] == [type.dtype.numpy for type in types]


@each_sample
def test_meaning_keeps_its_inputs(entry: OpRow, sample: Sample) -> None:
    arrays = sample.arrays()
    copies = [array.copy() for array in arrays]
    entry.evaluate(arrays, sample.attributes)
    for array, copy in zip(arrays, copies, strict=True):
        assert array.tobytes() == copy.tobytes()


@each_sample
def test_float32_is_float64_rounded(entry: OpRow, sample: Sample) -> None:
    """The same meaning works in double precision, and single precision is near it."""
    arrays = sample.arrays()
    if arrays[0].dtype != np.float32 or entry.name in ("cast", "bitcast"):
        pytest.skip("not a sample in single precision")
    wide = [array.astype(np.float64) if array.dtype == np.float32 else array for array in arrays]
    results = entry.evaluate(arrays, sample.attributes)
    exact = entry.evaluate(wide, sample.attributes)
    for narrow, double in zip(results, exact, strict=True):
        assert double.dtype == (np.float64 if narrow.dtype == np.float32 else narrow.dtype)
        np.testing.assert_allclose(narrow, double, rtol=1e-4, atol=1e-5)


@each_sample
def test_cost_counts_something_unless_it_is_free(entry: OpRow, sample: Sample) -> None:
    types = entry.output_types(sample.types, sample.attributes)
    cost = entry.cost(sample.types, types, sample.attributes)
    total = cost.macs + cost.vector_ops + cost.sfu_ops
    elements = sum(type.num_elements for type in types)
    assert (total > 0) == (elements > 0 and entry.name != "reshape")
    assert (cost.macs > 0) == (entry.category == "contraction")


@each_row
def test_each_attribute_is_needed_and_of_its_kind(entry: OpRow) -> None:
    good = dict(entry.samples[0].attributes)
    assert entry.attribute_problems(good) == ()
    for name in entry.attributes:
        without = {key: value for key, value in good.items() if key != name}
        assert entry.attribute_problems(without) == (f"attribute {name} is missing",)
        problems = entry.attribute_problems({**good, name: (object(),)})  # type: ignore[dict-item]
        assert len(problems) == 1
        assert problems[0].startswith(f"attribute {name} is (<object")
    (unknown,) = entry.attribute_problems({**good, "nonsense": 1})
    assert unknown.startswith(f"{entry.name} has no attribute nonsense")


@each_row
def test_wrong_number_of_inputs_is_refused(entry: OpRow) -> None:
    assert entry.input_problem([]) is not None
    assert entry.input_problem([""] * entry.min_inputs) is not None
    if entry.max_inputs is not None:
        problem = entry.input_problem(["x"] * (entry.max_inputs + 1))
        assert problem == f"{entry.name} takes the inputs ({entry.inputs}), not {entry.max_inputs + 1}"


@each_row
def test_output_types_check_before_they_infer(entry: OpRow) -> None:
    sample = entry.samples[0]
    with pytest.raises(TypeRuleError, match="nonsense"):
        entry.output_types(sample.types, {**sample.attributes, "nonsense": 1})
    with pytest.raises(TypeRuleError, match="takes the inputs"):
        entry.output_types((), sample.attributes)


def test_names_are_unique() -> None:
    names = [entry.name for entry in OPS]
    assert len(set(names)) == len(names)


def test_unknown_op_names_the_nearest() -> None:
    assert row("conv2d").name == "conv2d"
    with pytest.raises(TypeRuleError, match=r"there is no op 'conv2' \(did you mean conv2d"):
        row("conv2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"doc": ""}, "lacks a name"),
        ({"samples": ()}, "lacks a name"),
        ({"inputs": "a? b"}, "optional input before"),
        ({"inputs": "a b*"}, "variadic input beside"),
        ({"access": {"a": "i*"}}, "gives access for"),
        ({"category": "other"}, "unknown category"),
        ({"evaluate": None}, "lacks a type rule, a numpy meaning or a cost"),
        ({"cost": None}, "lacks a type rule, a numpy meaning or a cost"),
    ],
)
def test_incomplete_row_does_not_construct(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InternalError, match=message):
        dataclasses.replace(row("add"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("attribute", "value", "problem"),
    [
        (Attribute("int", "d"), True, "is True, not an integer"),
        (Attribute("float", "d"), 1, "is 1, not a float"),
        (Attribute("ints", "d"), (1, 2.0), "not a tuple of integers"),
        (Attribute("ints", "d", length=2), (1,), "has 1 elements, not 2"),
        (Attribute("ints", "d", minimum=1), (1, 0), "below the least allowed 1"),
        (Attribute("string", "d", choices=("a", "b")), "c", "is 'c', not one of a, b"),
        (Attribute("dtype", "d"), "f32", "is 'f32', not an element type"),
    ],
)
def test_attribute_problems_are_named(attribute: Attribute, value: object, problem: str) -> None:
    assert problem in str(attribute.problem(value))  # type: ignore[arg-type]


def _types(*texts: tuple[str, tuple[int | str, ...]]) -> tuple[TensorType, ...]:
    return tuple(TensorType(dtype(name), shape) for name, shape in texts)


CONV = {"stride": (1, 1), "pads": (0, 0, 0, 0), "dilation": (1, 1), "group": 1}
REFUSED = [
    ("add", _types(("f32", (2,)), ("f32", (3,))), {}, "do not broadcast: 2 against 3"),
    ("add", _types(("f32", (2,)), ("i32", (2,))), {}, "differ in element type"),
    ("add", _types(("bool", (2,)), ("bool", (2,))), {}, "takes number elements"),
    ("add", _types(("f32", ("N",)), ("f32", ("M",))), {}, "do not broadcast: N against M"),
    ("exp", _types(("i32", (2,))), {}, "takes float elements"),
    ("and", _types(("f32", (2,)), ("f32", (2,))), {}, "takes bool elements"),
    ("where", _types(("i32", (2,)), ("f32", (2,)), ("f32", (2,))), {}, "takes bool"),
    ("matmul", _types(("f32", (2, 3)), ("f32", (4, 5))), {}, "columns of .* and rows of .* differ: 3 and 4"),
    ("matmul", _types(("f32", (3,)), ("f32", (3, 5))), {}, "takes matrices"),
    ("conv2d", _types(("f32", (1, 3, 8, 8)), ("f32", (4, 2, 3, 3))), CONV, "has 3 channels"),
    (
        "conv2d",
        _types(("f32", (1, 3, 2, 2)), ("f32", (4, 3, 3, 3))),
        CONV,
        r"a window of \[3, 3\] does not fit",
    ),
    (
        "conv2d",
        _types(("f32", (1, 3, 8, 8)), ("f32", (4, 3, 3, 3)), ("f32", (3,))),
        CONV,
        "bias has the shape",
    ),
    ("conv2d", _types(("f32", (1, 4, 8, 8)), ("f32", (3, 2, 3, 3))), {**CONV, "group": 2}, "do not divide"),
    ("conv2d", _types(("f32", (1, 3, "H", 8)), ("f32", (4, 3, 3, 3))), CONV, "--dim H=SIZE"),
    ("reshape", _types(("f32", (2, 3))), {"shape": (4,)}, "has 6 elements"),
    ("transpose", _types(("f32", (2, 3))), {"perm": (0, 0)}, "does not order"),
    ("slice", _types(("f32", (4,))), {"starts": (1,), "ends": (5,), "steps": (1,)}, "not within"),
    ("slice", _types(("f32", (4,))), {"starts": (), "ends": (), "steps": ()}, "one number for each"),
    ("expand", _types(("f32", (2,))), {"shape": (3,)}, "do not broadcast"),
    ("expand", _types(("f32", (2,))), {"shape": (1,)}, "does not broadcast to"),
    ("concat", _types(("f32", (2, 3)), ("f32", (3, 4))), {"axis": 1}, "differ in more than dimension 1"),
    ("pad", _types(("f32", (2, 3))), {"pads": (1, 1), "value": 0.0}, "not 2 for each"),
    ("softmax", _types(("f32", (2, 3))), {"axis": 2}, r"axis 2 is not a dimension of .* \(0 to 1\)"),
    ("layer_norm", _types(("f32", (2, 3)), ("f32", (4,))), {"axis": 1, "epsilon": 1e-5}, "do not broadcast"),
    ("batch_norm", _types(("f32", (2, 3)), *[("f32", (2,))] * 4), {"epsilon": 1e-5}, "scale has the shape"),
    ("reduce_sum", _types(("f32", (2, 3))), {"axes": (1, 0), "keepdims": 0}, "ascending"),
    ("gather", _types(("f32", (2, 3)), ("f32", (2,))), {"axis": 0}, "takes i32 or i64"),
    ("gather_nd", _types(("f32", (2, 3)), ("i64", (2, 3))), {"batch_dims": 0}, "address 3 dimensions"),
]


@pytest.mark.parametrize(("op", "types", "attributes", "message"), REFUSED)
def test_wrong_types_are_refused(
    op: str, types: tuple[TensorType, ...], attributes: dict[str, object], message: str
) -> None:
    with pytest.raises(TypeRuleError, match=message):
        row(op).output_types(types, attributes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("op", "shapes", "attributes", "result"),
    [
        ("add", (("N", 3), (1, 3)), {}, ("N", 3)),
        ("matmul", (("N", 4, 5), (5, 6)), {}, ("N", 4, 6)),
        ("softmax", (("N", "S"),), {"axis": 1}, ("N", "S")),
        ("transpose", (("N", "S"),), {"perm": (1, 0)}, ("S", "N")),
        ("reduce_max", (("N", 3),), {"axes": (1,), "keepdims": 0}, ("N",)),
        ("conv2d", (("N", 3, 8, 8), (4, 3, 3, 3)), CONV, ("N", 4, 6, 6)),
        ("slice", (("N", 9),), {"starts": (0, 1), "ends": ((1 << 63) - 1, 4), "steps": (1, 2)}, ("N", 2)),
        ("concat", (("N", 3), ("N", 4)), {"axis": 1}, ("N", 7)),
        ("pad", (("N", 3),), {"pads": (0, 1, 0, 1), "value": 0.0}, ("N", 5)),
    ],
)
def test_symbols_pass_through(
    op: str,
    shapes: tuple[tuple[int | str, ...], ...],
    attributes: dict[str, object],
    result: tuple[int | str, ...],
) -> None:
    types = tuple(TensorType(dtype("f32"), shape) for shape in shapes)
    (inferred,) = row(op).output_types(types, attributes)  # type: ignore[arg-type]
    assert inferred.shape == result
