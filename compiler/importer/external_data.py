"""Tensors whose data lies in a file beside the model: which files may be read, and which bytes of them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import onnx

from birc.runtime.dtypes import DType
from birc.runtime.errors import BadModelError

_LARGEST_NUMBER_TEXT: Final = 20
_OPEN_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True)
class ExternalData:
    """What a tensor states of its data: the file, seen from the model's folder, and the bytes in it."""

    location: str
    offset_bytes: int
    length_bytes: int | None


def external_data(tensor: onnx.TensorProto, where: str) -> ExternalData:
    """What `tensor` states. Raises `BadModelError` for a location outside the folder and for numbers that are none."""
    found: dict[str, str] = {}
    for entry in tensor.external_data:
        if found.setdefault(entry.key, entry.value) != entry.value:
            raise BadModelError(f"states {entry.key!r} of its external data twice", where=where)
    location = found.get("location", "")
    if not location or "\0" in location:
        raise BadModelError(f"external data {location!r} is no file name", where=where)
    parts = Path(location).parts
    if Path(location).is_absolute() or ".." in parts:
        raise BadModelError(f"external data {location!r} lies outside the model's folder", where=where)
    offset, length = (_number(found, key, where) for key in ("offset", "length"))
    return ExternalData(location, offset or 0, length)


def external_array(tensor: onnx.TensorProto, element: DType, folder: Path | None, where: str) -> np.ndarray:
    """The values of `tensor`, of elements of type `element`; mapped, not read, where they have whole bytes.

    Raises `BadModelError` when the file is not a regular one of the model's own `folder`, or too short.
    """
    stated = external_data(tensor, where)
    shape = tuple(tensor.dims)
    size_bytes = element.bytes_for(_elements(shape))
    if stated.length_bytes is not None and stated.length_bytes != size_bytes:
        raise BadModelError(
            f"states {stated.length_bytes} bytes of external data, its shape needs {size_bytes}", where=where
        )
    with _opened(stated.location, folder, where) as file:
        end, there = stated.offset_bytes + size_bytes, os.fstat(file.fileno()).st_size
        if end > there:
            what = f"needs bytes {stated.offset_bytes} to {end} of {stated.location}, which has {there}"
            raise BadModelError(what, where=where)
        if size_bytes == 0:
            return np.zeros(shape, element.numpy)
        if element.bits < 8:  # numpy holds one a byte
            file.seek(stated.offset_bytes)
            content = file.read(size_bytes)
            packed = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=content)
            return onnx.numpy_helper.to_array(packed)
        return np.memmap(file, element.numpy, "r", stated.offset_bytes, shape)


def _elements(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _number(found: dict[str, str], key: str, where: str) -> int | None:
    text = found.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > _LARGEST_NUMBER_TEXT:
        raise BadModelError(f"the {key} of its external data is {text[:40]!r}, no number of bytes", where=where)
    return int(text)


def _opened(location: str, folder: Path | None, where: str) -> BinaryIO:
    """The open file. What is opened is what is checked: no other file can take its place in between."""
    if folder is None:
        raise BadModelError("its data lies in another file", where=where, hint="import the model by its path")
    try:
        path = (folder / location).resolve()
        if not path.is_relative_to(folder):
            raise BadModelError(f"external data {location!r} lies outside the model's folder", where=where)
        file = os.fdopen(os.open(path, _OPEN_FLAGS), "rb")
    except FileNotFoundError as error:
        raise BadModelError(f"external data {location!r} is not there", where=where) from error
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError
        reason = getattr(error, "strerror", None) or "its links go round in circles"
        raise BadModelError(f"external data {location!r} cannot be read: {reason}", where=where) from error
    state = os.fstat(file.fileno())
    problem = ""
    if not stat.S_ISREG(state.st_mode):
        problem = f"external data {location!r} is not a regular file"
    elif state.st_nlink != 1:
        problem = f"external data {location!r} is known by {state.st_nlink} names, of which others may lie outside"
    if problem:
        file.close()
        raise BadModelError(problem, where=where, hint="put a copy beside the model" if state.st_nlink > 1 else None)
    return file
