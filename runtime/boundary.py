"""Tensors on their way to the device and back: checks, element types, and the pieces that dies hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from birc.runtime.conversion import Array, memory_type
from birc.runtime.dtypes import dtype, from_numpy
from birc.runtime.errors import UsageError
from birc.runtime.memory import Memory
from birc.runtime.program import Piece, Port, Program
from birc.runtime.variant import BoundaryTensor


def check_inputs(given: Mapping[str, Any], declared: Sequence[BoundaryTensor]) -> dict[str, Any]:
    """The inputs as arrays; what only the host takes (sequences, optionals) stays as it is.

    Raises `UsageError` naming the input, what is expected and what was given.
    """
    check_names(given, declared)
    return {tensor.name: _checked(given[tensor.name], tensor) for tensor in declared}


def check_names(given: Mapping[str, Any], declared: Sequence[BoundaryTensor]) -> None:
    """Raise `UsageError` for an input that is missing or unknown."""
    names = [tensor.name for tensor in declared]
    unknown = sorted(given.keys() - set(names))
    if unknown:
        raise UsageError(f"there is no input {unknown[0]!r}", hint=f"inputs: {', '.join(names)}")
    missing = [name for name in names if name not in given]
    if missing:
        raise UsageError(f"input {missing[0]!r} was not given", hint=f"inputs: {', '.join(names)}")


def _checked(value: Any, tensor: BoundaryTensor) -> Any:
    if "(" in tensor.dtype:
        return value
    array = np.asarray(value)
    found = f"{_type_name(array)}[{_shape_text(array.shape)}]"
    wanted = tensor.dtype if tensor.shape is None else f"{tensor.dtype}[{_shape_text(tensor.shape)}]"
    if _type_name(array) != tensor.dtype or not _agree(array.shape, tensor.shape):
        raise UsageError(f"input {tensor.name!r} must be {wanted}, got {found}")
    return array


def _agree(shape: Sequence[int], declared: Sequence[int | None] | None) -> bool:
    """Whether a shape is the declared one; an unknown dimension may be anything."""
    if declared is None:
        return True
    pairs = zip(shape, declared, strict=False)
    return len(shape) == len(declared) and all(wanted in (None, size) for size, wanted in pairs)


def _type_name(array: Array) -> str:
    if array.dtype.kind in "OUST":
        return "string"
    try:
        return from_numpy(array.dtype).name
    except UsageError:
        return str(array.dtype)


def _shape_text(shape: Sequence[int | None]) -> str:
    return ",".join("?" if size is None else str(size) for size in shape)


def to_device(values: Array, tensor: BoundaryTensor) -> Array:
    """`values` in the element type of device memory: floats rounded to nearest, integers exact.

    Raises `UsageError` for an integer that the device type does not hold.
    """
    if tensor.device_dtype is None or tensor.device_dtype == tensor.dtype:
        return values
    target = dtype(tensor.device_dtype)
    if target.is_integer and values.size and dtype(tensor.dtype).is_integer:
        limits = np.iinfo(target.numpy)
        for value in (int(values.min()), int(values.max())):
            if not limits.min <= value <= limits.max:
                what = f"input {tensor.name!r} holds {value}"
                raise UsageError(what, hint=f"the device keeps it as {target}: {limits.min} to {limits.max}")
    with np.errstate(over="ignore", invalid="ignore"):  # beyond the largest value rounds to infinity
        return values.astype(target.numpy)


def to_host(values: Array, tensor: BoundaryTensor) -> Array:
    """Device values in the model's own element type."""
    target = dtype(tensor.dtype)
    if target.kind == "bool":
        return values != 0
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(target.numpy)


def write_port(program: Program, memory: Memory, port: Port, values: Array) -> None:
    """Put a tensor into all its pieces, on every die that holds one."""
    for piece in port.pieces:
        for die in _dies(piece):
            view = memory.view(program.descriptors[piece.descriptor], die)
            view[...] = values[_part(piece)].reshape(view.shape)


def read_port(program: Program, memory: Memory, port: Port) -> Array:
    """A tensor put together from its pieces; of pieces on several dies the first counts."""
    whole = np.zeros(port.shape, memory_type(port.dtype))
    for piece in port.pieces:
        die = next(_dies(piece))
        whole[_part(piece)] = memory.view(program.descriptors[piece.descriptor], die).reshape(piece.shape)
    return whole


def _dies(piece: Piece) -> Iterator[int]:
    return (die for die in range(piece.dies.bit_length()) if piece.dies >> die & 1)


def _part(piece: Piece) -> tuple[slice, ...]:
    return tuple(slice(low, low + size) for low, size in zip(piece.start, piece.shape, strict=True))
