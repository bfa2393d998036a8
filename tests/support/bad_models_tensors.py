"""Bad models whose fault is a tensor: what it claims, and where its data lies."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
from bad_model import BOOL, FLOAT, HUGE, INT64, BadModel, Make, claim, model_of, node, one, value, with_tensor, written
from onnx import helper

EXTERNAL = onnx.TensorProto.EXTERNAL
SECRET = b"\0" * 24


def external(location: str = "w.bin", *, prepare: str = "file", inner: bool = False, **entries: str) -> Make:
    """A tensor of 24 bytes in a file; `prepare` says what stands there, `inner` puts the tensor into an attribute."""
    tensor = claim(data_location=EXTERNAL)
    stated = {"location": location, **entries}
    for key, text in stated.items():
        tensor.external_data.add(key=key, value=text)

    def make(folder: Path) -> None:
        outside = folder.parent / f"{folder.name}.secret"
        outside.write_bytes(SECRET)
        there = folder / "w.bin"
        match prepare:
            case "file":
                there.write_bytes(SECRET)
            case "short":
                there.write_bytes(SECRET[:20])
            case "symlink":
                there.symlink_to(outside)
            case "hardlink":
                os.link(outside, there)
            case "folder":
                there.mkdir()
            case "pipe":
                os.mkfifo(there)
            case "device":
                there.symlink_to("/dev/zero")
            case "linked_folder":
                (folder / "sub").symlink_to(folder.parent)
        place = location.replace("OUTSIDE", outside.name)
        entry = tensor.external_data[0]
        entry.value = str(outside) if location == "ABSOLUTE" else place
        model = _in_attribute(tensor) if inner else model_of([node("Add", ("x", "w"))], outputs=[value("y")],
                                                             known={"w": tensor})  # fmt: skip
        (folder / "model.onnx").write_bytes(model.SerializeToString())

    return make


def _in_attribute(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return model_of([node("Constant", (), ("w",), value=tensor), node("Add", ("x", "w"))], outputs=[value("y")])


def sparse(dims: list[int], indices: list[int], count: int = 2) -> Make:
    model = model_of([node("Add", ("x", "w"))])
    entry = model.graph.sparse_initializer.add(dims=dims)
    entry.values.CopyFrom(helper.make_tensor("w", FLOAT, [count], [1.0] * count))
    entry.indices.CopyFrom(helper.make_tensor("", INT64, [len(indices)], indices))
    return written(model)


def constant(tensor: onnx.TensorProto) -> Make:
    return written(_in_attribute(tensor))


RAW = bytes(24)
TENSORS: tuple[BadModel, ...] = (
    BadModel("tensor_raw_too_short", with_tensor(claim(raw_data=RAW[:20])), ("'w'", "20", "24")),
    BadModel("tensor_raw_too_long", with_tensor(claim(raw_data=RAW + RAW)), ("'w'", "48", "24")),
    BadModel("tensor_without_data", with_tensor(claim()), ("'w'", "float_data has 0")),
    BadModel("tensor_floats_too_few", with_tensor(claim(float_data=[1.0])), ("'w'", "1 entries", "needs 6")),
    BadModel("tensor_in_other_field", with_tensor(claim(int64_data=[1] * 6)), ("'w'", "float_data", "int64_data")),
    BadModel("tensor_in_two_fields", with_tensor(claim(raw_data=RAW, float_data=[0.0] * 6)), ("'w'", "raw_data")),
    BadModel("tensor_negative_size", with_tensor(claim(dims=[2, -3], raw_data=RAW)), ("'w'", "-3")),
    BadModel("tensor_size_minimum", with_tensor(claim(dims=[-(2**63)], raw_data=RAW)), ("'w'", str(-(2**63)))),
    BadModel("tensor_beyond_int64", with_tensor(claim(dims=[HUGE, HUGE], raw_data=RAW)), ("'w'", "2^63")),
    BadModel("tensor_wraps_to_six", with_tensor(claim(dims=[2**32 + 1, 2**32], raw_data=RAW)), ("'w'",)),
    BadModel("tensor_wraps_to_zero", with_tensor(claim(dims=[2**32, 2**32], raw_data=b"")), ("'w'", "2^63")),
    BadModel("tensor_zero_times_huge", with_tensor(claim(dims=[0, HUGE, HUGE])), ("'w'", "2^63")),
    BadModel("tensor_terabyte", with_tensor(claim(dims=[10**12], raw_data=RAW)), ("'w'", "4000000000000"), (3,)),
    BadModel("tensor_ten_gigabytes", with_tensor(claim(dims=[2_500_000_000], raw_data=RAW)), ("'w'", "10000000000")),
    BadModel("tensor_of_1000_dimensions", with_tensor(claim(dims=[1] * 1000, raw_data=RAW[:4])), ("'w'", "1000", "64")),
    BadModel("tensor_type_undefined", with_tensor(claim(data_type=0, raw_data=RAW)), ("'w'", "element type")),
    BadModel("tensor_type_unknown", with_tensor(claim(data_type=77, raw_data=RAW)), ("'w'", "77")),
    BadModel("tensor_type_negative", with_tensor(claim(data_type=-1, raw_data=RAW)), ("'w'", "-1")),
    BadModel("tensor_strings_in_arithmetic", with_tensor(claim(data_type=8, string_data=[b"a"] * 6)), ("the_Add",)),
    BadModel("tensor_strings_as_raw", with_tensor(claim(data_type=8, raw_data=RAW)), ("'w'", "raw_data")),
    BadModel("tensor_segment", with_tensor(claim(raw_data=RAW, segment=onnx.TensorProto.Segment(begin=0, end=3))),
             ("'w'", "segment")),
    BadModel("tensor_other_type_than_used", with_tensor(claim(data_type=INT64, raw_data=RAW + RAW)), ("the_Add",)),
    BadModel("tensor_nibbles_too_few", with_tensor(claim(data_type=22, dims=[5], raw_data=b"ab")), ("'w'", "2", "3")),
    BadModel("sparse_index_outside", sparse([2, 3], [0, 6]), ("'w'", "[2, 3]")),
    BadModel("sparse_index_negative", sparse([2, 3], [-1, 2]), ("'w'",)),
    BadModel("sparse_index_overflows", sparse([2, 3], [HUGE, 2]), ("'w'",)),
    BadModel("sparse_too_few_indices", sparse([2, 3], [1]), ("'w'",)),
    BadModel("sparse_negative_size", sparse([2, -3], [0, 1]), ("'w'", "-3")),
    BadModel("sparse_terabyte", sparse([2**20, 2**20], [0, 1]), ("'w'", "limit")),
    BadModel("sparse_beyond_int64", sparse([2**40, 2**40], [0, 1]), ("'w'", "2^63")),
    BadModel("constant_terabyte", constant(claim(dims=[10**12], raw_data=RAW)), ("the_Constant", "'value'")),
    BadModel("constant_negative", constant(claim(dims=[-1], raw_data=RAW)), ("the_Constant", "-1")),
    BadModel("constant_without_value", one("Constant", ()), ("the_Constant",)),
    BadModel("constant_two_values", one("Constant", (), value_int=1, value_float=1.0), ("the_Constant",)),
    BadModel("splat_terabytes", one("ConstantOfShape", ("n",), known={"n": [10**6, 10**6, 10]}),
             ("the_ConstantOfShape", "limit")),
    BadModel("splat_negative", one("ConstantOfShape", ("n",), known={"n": [-5]}), ("the_ConstantOfShape", "-5")),
    BadModel("splat_beyond_int64", one("ConstantOfShape", ("n",), known={"n": [HUGE, HUGE]}), ("the_ConstantOfShape",)),
    BadModel("splat_two_values", one("ConstantOfShape", ("n",), known={"n": [2]},
             value=helper.make_tensor("v", FLOAT, [2], [1.0, 2.0])), ("the_ConstantOfShape",)),
    BadModel("splat_of_floats", one("ConstantOfShape", ("n",), known={"n": np.float32([2])}), ("the_ConstantOfShape",)),
    BadModel("condition_of_floats", one("Where", ("x", "x", "x")), ("the_Where",)),
    BadModel("condition_of_two", written(model_of(
        [node("If", ("c",), then_branch=model_of([node("Relu", outputs=["t"])], outputs=["t"]).graph)],
        [value("x"), value("c", (), BOOL)])), ("the_If",)),
)  # fmt: skip

EXTERNALS: tuple[BadModel, ...] = (
    BadModel("external_parent", external("../OUTSIDE"), ("'w'", "outside")),
    BadModel("external_parent_inside", external("sub/../../OUTSIDE"), ("'w'", "outside")),
    BadModel("external_absolute", external("ABSOLUTE"), ("'w'", "outside")),
    BadModel("external_symlink", external(prepare="symlink"), ("'w'", "outside")),
    BadModel("external_hardlink", external(prepare="hardlink"), ("'w'", "2 names")),
    BadModel("external_linked_folder", external("sub/OUTSIDE", prepare="linked_folder"), ("'w'", "outside")),
    BadModel("external_folder", external(prepare="folder"), ("'w'", "w.bin")),
    BadModel("external_pipe", external(prepare="pipe"), ("'w'", "regular")),
    BadModel("external_device", external(prepare="device"), ("'w'", "outside")),
    BadModel("external_missing", external(prepare="nothing"), ("'w'", "not there")),
    BadModel("external_model_itself", external("model.onnx", offset="999999"), ("'w'", "999999")),
    BadModel("external_empty_name", external(""), ("'w'", "file name")),
    BadModel("external_zero_byte", external("w.bin\0x"), ("'w'", "file name")),
    BadModel("external_long_name", external("w" * 5000), ("'w'", "cannot be read")),
    BadModel("external_short", external(prepare="short"), ("'w'", "20")),
    BadModel("external_offset_beyond", external(offset="8"), ("'w'", "bytes 8 to 32")),
    BadModel("external_offset_negative", external(offset="-8"), ("'w'", "offset", "-8")),
    BadModel("external_offset_text", external(offset="8k"), ("'w'", "offset", "8k")),
    BadModel("external_offset_absurd", external(offset="9" * 19), ("'w'", "9" * 19)),
    BadModel("external_offset_of_digits", external(offset="9" * 5000), ("'w'", "offset")),
    BadModel("external_length_other", external(length="23"), ("'w'", "23", "24")),
    BadModel("external_length_negative", external(length="-1"), ("'w'", "length")),
    BadModel("external_attribute_parent", external("../OUTSIDE", inner=True), ("the_Constant", "outside")),
    BadModel("external_attribute_symlink", external(prepare="symlink", inner=True), ("'w'", "another file")),
)
