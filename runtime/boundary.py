"""Tensors on their way to the device and back: checks, element types, and the pieces that dies hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from birc.runtime.conversion import Array, memory_type
from birc.runtime.dtypes import dtype, from_numpy
from birc.runtime.errors import UsageError
from birc.runtime.manifest import BoundaryTensor
from birc.runtime.memory import Memory
from birc.runtime.program import Piece, Port, Program


def check_inputs(given: Mapping[str, npt.ArrayLike], declared: Sequence[BoundaryTensor]) -> dict[str, Array]:
    """The inputs as arrays. Raises `UsageError` naming the input, what is expected and what was given."""
    names = [tensor.name for tensor in declared]
    unknown = sorted(given.keys() - set(names))
    if unknown:
        raise UsageError(f"there is no input {unknown[0]!r}", hint=f"inputs: {', '.join(names)}")
    missing = [name for name in names if name not in given]
    if missing:
        raise UsageError(f"input {missing[0]!r} was not given", hint=f"inputs: {', '.join(names)}")
    arrays = {}
    for tensor in declared:
        array = np.asarray(given[tensor.name])
        found = f"{_type_name(array)}[{_shape_text(array.shape)}]"
        wanted = f"{tensor.dtype}[{_shape_text(tensor.shape)}]"
        if found != wanted:
            raise UsageError(f"input {tensor.name!r} must be {wanted}, got {found}")
        arrays[tensor.name] = array
    return arrays


def _type_name(array: Array) -> str:
    try:
        return from_numpy(array.dtype).name
    except UsageError:
        return str(array.dtype)


def _shape_text(shape: Sequence[int]) -> str:
    return ",".join(map(str, shape))


def to_device(values: Array, tensor: BoundaryTensor) -> Array:
    """`values` in the element type of device memory: floats rounded to nearest, integers exact.

    Raises `UsageError` for an integer that the device type does not hold.
    """
    if tensor.device_dtype == tensor.dtype:
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
