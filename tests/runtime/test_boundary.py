"""Tensors of every element type on their way to device memory and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birc.runtime.boundary import check_inputs, to_device, to_host
from birc.runtime.conversion import from_register, memory_type, to_register
from birc.runtime.dtypes import DTYPES, HOST_DTYPES, DType, dtype
from birc.runtime.errors import UsageError
from birc.runtime.variant import BoundaryTensor

ON_DEVICE = [entry for entry in DTYPES if entry.device is not None]


def tensor(entry: DType, size: int) -> BoundaryTensor:
    return BoundaryTensor("x", entry.name, (size,), entry.device or entry.name)


def patterns(entry: DType, content: bytes) -> np.ndarray:
    """The values of some bytes that the type has."""
    size = entry.numpy.itemsize
    content = content[: len(content) // size * size]
    if entry.bits < 8:
        return (np.frombuffer(content, np.uint8) & (1 << entry.bits) - 1).astype(np.uint8).view(entry.numpy)
    if entry.kind == "bool":
        return np.frombuffer(content, np.uint8) > 127
    return np.frombuffer(content, entry.numpy)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the values are equal, the sign of zero included; NaNs are alike."""
    if a.dtype != b.dtype:
        return False
    if a.dtype.kind in "iub":
        return np.array_equal(a, b)
    with np.errstate(invalid="ignore"):  # numpy warns of signalling NaNs
        x, y = a.astype(np.float64), b.astype(np.float64)
    equal = (x == y) & (np.signbit(x) == np.signbit(y)) | np.isnan(x) & np.isnan(y)
    return bool(equal.all())


@pytest.mark.parametrize("entry", ON_DEVICE, ids=str)
@given(content=st.binary(min_size=8, max_size=64))
def test_device_memory_keeps_every_value(entry: DType, content: bytes) -> None:
    values = patterns(entry, content)
    boundary = tensor(entry, values.size)
    (checked,) = check_inputs({"x": values}, [boundary]).values()
    held = to_device(checked, boundary)
    assert held.dtype == dtype(boundary.device_dtype).numpy
    assert same(to_host(held, boundary), values)


@pytest.mark.parametrize("entry", ON_DEVICE, ids=str)
@given(content=st.binary(min_size=8, max_size=64))
def test_registers_keep_every_value_of_32_bits(entry: DType, content: bytes) -> None:
    values = patterns(entry, content)
    if entry.is_integer and entry.bits >= 32:
        values = values[(values.astype(object) >= -(1 << 31)) & (values.astype(object) < 1 << 31)]
    boundary = tensor(entry, values.size)
    held = to_device(values, boundary).astype(memory_type(boundary.device_dtype))
    lanes = to_register(held, boundary.device_dtype)
    assert same(to_host(from_register(lanes, boundary.device_dtype), boundary), values)


@pytest.mark.parametrize("entry", [entry for entry in ON_DEVICE if entry.bits < 8], ids=str)
def test_other_types_are_refused_by_name(entry: DType) -> None:
    with pytest.raises(UsageError, match=rf"input 'x' must be {entry.name}\[2\], got f32\[2\]"):
        check_inputs({"x": np.zeros(2, np.float32)}, [tensor(entry, 2)])


@pytest.mark.parametrize("entry", HOST_DTYPES, ids=str)
def test_what_exists_on_the_host_alone_has_a_name_at_the_boundary(entry: DType) -> None:
    values = np.array(["a", "bc"]) if entry.name == "string" else np.ones(2, entry.numpy)
    assert check_inputs({"x": values}, [tensor(entry, 2)])["x"] is values
