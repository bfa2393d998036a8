"""Sessions: values in the model's types, checks of inputs, repeated calls, a runtime that stands alone."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import ml_dtypes
import numpy as np
import packages
import programs
import pytest

from birc.runtime import load
from birc.runtime.boundary import to_device, to_host
from birc.runtime.errors import BadPackageError, UsageError
from birc.runtime.package import Package
from birc.runtime.variant import BoundaryTensor


@pytest.fixture(scope="module")
def case():
    return packages.gemm_package()


@pytest.fixture(scope="module")
def saved(case, tmp_path_factory):
    path = tmp_path_factory.mktemp("session") / "gemm.birc"
    case.package.save(path)
    return path


def assert_outputs(found, expected) -> None:
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def build_case(name: str) -> programs.Case:
    # As it stands this one adds more elements than a tensor's dimension may have.
    return programs.vector_add(8_000) if name == "vector_add" else getattr(programs, name)()


@pytest.mark.parametrize("name", [build.__name__ for build in programs.BUILDERS])
def test_every_program_gives_its_values(name):
    packed = packages.package_of(build_case(name))
    assert_outputs(load(packed.package).run(packed.inputs), packed.expected)


def test_a_saved_package_gives_the_same_values(case, saved):
    assert_outputs(load(saved).run(case.inputs), case.expected)
    assert_outputs(load(str(saved)).run(case.inputs), case.expected)


def test_a_session_is_called_many_times(case, saved):
    session = load(saved)
    first = session.run(case.inputs)
    other = session.run({name: 0 * array for name, array in case.inputs.items()})
    assert_outputs(first, case.expected)  # a result is not touched by the next call
    bias = case.package.weights["bias"].astype(np.float32)
    np.testing.assert_array_equal(other["out"], np.broadcast_to(np.maximum(bias, 0), (150, 70)))
    assert_outputs(session.run(case.inputs), case.expected)


def test_the_boundary_is_described(case):
    session = load(case.package)
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in session.inputs] == [
        ("a", "f32", (150, 200)),
        ("residual", "f32", (150, 70)),
    ]
    assert [tensor.name for tensor in session.outputs] == ["out"]


def test_inputs_are_rounded_to_what_the_device_holds(case):
    """1 + 2^-8 lies halfway between two BF16 numbers: the even one is 1."""
    tie = np.float32(1 + 2**-8)
    inputs = {name: np.full_like(array, tie) for name, array in case.inputs.items()}
    ones = {name: np.ones_like(array) for name, array in case.inputs.items()}
    session = load(case.package)
    np.testing.assert_array_equal(session.run(inputs)["out"], session.run(ones)["out"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": None}, r"input 'a' was not given \(inputs: a, residual\)"),
        ({"z": np.zeros(1)}, r"there is no input 'z' \(inputs: a, residual\)"),
        ({"a": np.zeros((200, 150), np.float32)}, r"input 'a' must be f32\[150,200\], got f32\[200,150\]"),
        ({"a": np.zeros((150, 200), np.float64)}, r"input 'a' must be f32\[150,200\], got f64\[150,200\]"),
        ({"a": np.zeros((150, 200), np.int32)}, r"input 'a' must be f32\[150,200\], got i32\[150,200\]"),
        ({"a": np.float32(1)}, r"input 'a' must be f32\[150,200\], got f32\[\]"),
        ({"a": np.full((150, 200), "x")}, r"input 'a' must be f32\[150,200\], got string\[150,200\]"),
        ({"a": "text"}, r"input 'a' must be f32\[150,200\], got string\[\]"),
    ],
)
def test_wrong_inputs_are_named(case, change, message):
    inputs = {name: array for name, array in {**case.inputs, **change}.items() if array is not None}
    with pytest.raises(UsageError, match=message):
        load(case.package).run(inputs)


def test_byte_order_does_not_matter(case):
    swapped = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in case.inputs.items()}
    assert_outputs(load(case.package).run(swapped), case.expected)


@pytest.mark.parametrize(
    ("logical", "device", "values", "expected"),
    [
        ("f32", "bf16", [1.0, 3.0e38, 3.4e38, -np.inf], [1.0, 3.0e38, np.inf, -np.inf]),
        ("f64", "f32", [1e300, 0.1], [np.inf, np.float32(0.1)]),
        ("i64", "i32", [-(2**31), 2**31 - 1], [-(2**31), 2**31 - 1]),
        ("bool", "u8", [True, False], [1, 0]),
    ],
)
def test_conversion_to_the_device(logical, device, values, expected):
    tensor = BoundaryTensor("x", logical, (len(values),), device)
    array = np.asarray(values, {"f64": np.float64, "i64": np.int64, "bool": np.bool_}.get(logical, np.float32))
    converted = to_device(array, tensor)
    wanted = np.asarray(expected, np.float64)
    if device == "bf16":
        assert converted.dtype == ml_dtypes.bfloat16
        wanted = wanted.astype(ml_dtypes.bfloat16).astype(np.float64)
    np.testing.assert_array_equal(converted.astype(np.float64), wanted)
    back = to_host(converted, tensor)
    assert back.dtype == array.dtype


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_integers_that_the_device_cannot_hold_are_refused(value):
    tensor = BoundaryTensor("ids", "i64", (2,), "i32")
    with pytest.raises(UsageError, match=rf"'ids' holds {value} \(the device keeps it as i32: -2147483648 to"):
        to_device(np.asarray([0, value]), tensor)


def test_a_missing_file_is_a_bad_package(tmp_path):
    with pytest.raises(BadPackageError, match="cannot be read"):
        load(tmp_path / "no.birc")


def test_a_profile_needs_no_inputs(case):
    report = load(case.package).profile().to_json()
    assert report["target"] == "tiny"
    assert report["latency_us"] > 0


def test_debug_changes_no_value_and_no_figure(case, saved, tmp_path):
    path = tmp_path / "bare.birc"
    Package.open(saved).without_debug().save(path)
    bare, whole = load(path), load(saved)
    assert_outputs(bare.run(case.inputs), whole.run(case.inputs))
    assert _without_names(bare.profile().to_json()) == _without_names(whole.profile().to_json())


def _without_names(value):
    """The report without the names of ops and ONNX nodes."""
    if isinstance(value, dict):
        return {key: _without_names(item) for key, item in value.items() if key not in ("name", "onnx_nodes")}
    return [_without_names(item) for item in value] if isinstance(value, list) else value


ALONE = """
    import sys

    ALLOWED = {"birc", "numpy", "ml_dtypes", "safetensors", *sys.stdlib_module_names}

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            outside = name.startswith("birc.") and not name.startswith("birc.runtime")
            if outside or name.split(".")[0] not in ALLOWED:
                raise ImportError(f"the runtime imports {name}")

    sys.meta_path.insert(0, Refuse())
    import numpy as np
    from birc.runtime import load

    session = load(sys.argv[1])
    inputs = {tensor.name: np.ones(tensor.shape, np.float32) for tensor in session.inputs}
    outputs = session.run(inputs)
    report = session.profile().to_json()
    print(float(outputs["out"].sum()), report["latency_us"] > 0)
"""


def test_a_package_runs_without_the_compiler(case, saved, tmp_path):
    """In a fresh process that may import numpy, ml_dtypes, safetensors and the standard library alone."""
    command = [sys.executable, "-c", textwrap.dedent(ALONE), str(saved)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    ones = {name: np.ones_like(array) for name, array in case.inputs.items()}
    assert done.stdout.split() == [str(float(load(saved).run(ones)["out"].sum())), "True"]
