"""The constants of all dumped texts in one safetensors file that grows: each is written once.

The header of a safetensors file stands before the data; it may end in blanks, so there is room left in it for
the entries of constants that are still to come. After every call the file is complete.

Format: https://github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from birc.runtime.dtypes import dtype, from_numpy
from birc.runtime.errors import BadModelError, BadPackageError, InternalError
from birc.runtime.package_weights import PADDING, STORED_AS_BYTES, as_bytes, read_weights, weights_image

_LENGTH_BYTES: Final = 8
_LEAST_HEADER_BYTES: Final = 1 << 16
_METADATA: Final = "__metadata__"
_MAKER: Final = {"made_by": "birc --dump-ir"}
_TYPES_KEY: Final = "element_types"
"""The metadata key that says which constants have element types that safetensors does not know."""


class ConstantsFile:
    """A file of named arrays to which more can be added."""

    def __init__(self, path: Path) -> None:
        """Begin an empty file at `path`, in place of one that is there."""
        self._path = path
        self._entries: dict[str, Any] = {}
        self._arrays: dict[str, np.ndarray] = {}
        self._types: dict[str, str] = {}
        self._data_bytes = 0
        self._header_bytes = _LEAST_HEADER_BYTES
        path.write_bytes(bytes(_LENGTH_BYTES + self._header_bytes))
        self._write_header()

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write those that are not in the file yet.

        Raises `InternalError` when one is there with other data.
        """
        new = {key: array for key, array in arrays.items() if not self._has(key, array)}
        if not new:
            return
        with self._path.open("ab") as file:
            for key, array in new.items():
                for part in self._placed(key, array):
                    file.write(part)
        self._arrays.update(new)
        self._write_header()

    def _has(self, key: str, array: np.ndarray) -> bool:
        known = self._arrays.get(key)
        if known is None or known is array:
            return known is not None
        if known.dtype != array.dtype or known.shape != array.shape:
            old, new = (f"{data.dtype}{list(data.shape)}" for data in (known, array))
            raise InternalError(f"the constant was {old} in an earlier text and is {new}", where=key)
        if not np.array_equal(as_bytes(known), as_bytes(array)):
            raise InternalError("the constant has other data than in an earlier text", where=key)
        return True

    def _placed(self, key: str, array: np.ndarray) -> list[memoryview]:
        """The bytes of an array and its padding; their entries go into the header."""
        element = from_numpy(array.dtype).name
        if element in STORED_AS_BYTES:
            self._types[key] = element
            array = as_bytes(array).reshape(array.shape)
        header, *parts = weights_image({key: array})
        for name, entry in json.loads(bytes(header[_LENGTH_BYTES:])).items():
            unique = f"{PADDING}{len(self._entries)}" if name.startswith(PADDING) else name
            offsets = [self._data_bytes + offset for offset in entry["data_offsets"]]
            self._entries[unique] = entry | {"data_offsets": offsets}
        self._data_bytes += sum(part.nbytes for part in parts)
        return parts

    def _write_header(self) -> None:
        metadata = _MAKER | ({_TYPES_KEY: json.dumps(self._types)} if self._types else {})
        text = json.dumps({_METADATA: metadata, **self._entries}, separators=(",", ":")).encode()
        if len(text) > self._header_bytes:
            self._move_data(2 * len(text))
        with self._path.open("r+b") as file:
            file.write(self._header_bytes.to_bytes(_LENGTH_BYTES, "little") + text.ljust(self._header_bytes))

    def _move_data(self, header_bytes: int) -> None:
        """Make room for a longer header, a whole number of least headers so that data stay aligned."""
        grown = -(-header_bytes // _LEAST_HEADER_BYTES) * _LEAST_HEADER_BYTES
        moved = self._path.with_name(self._path.name + ".part")
        with self._path.open("rb") as old, moved.open("wb") as new:
            old.seek(_LENGTH_BYTES + self._header_bytes)
            new.write(bytes(_LENGTH_BYTES + grown))
            shutil.copyfileobj(old, new)
        moved.replace(self._path)
        self._header_bytes = grown


def load_constants(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, read when they are used. Raises `BadModelError` for a damaged file."""
    try:
        image = np.memmap(path, np.uint8, "r")
        arrays = read_weights(image, where=str(path))
        types = json.loads(_metadata(path).get(_TYPES_KEY, "{}"))
        restored = {key: arrays[key].view(dtype(name).numpy) for key, name in types.items()}
    except BadPackageError as error:
        raise BadModelError(error.what, where=error.where) from error
    except (OSError, ValueError, KeyError) as error:
        raise BadModelError(f"cannot be read: {error}", where=str(path)) from error
    return arrays | restored


def is_constants_file(path: Path) -> bool:
    """Whether `ConstantsFile` wrote it."""
    try:
        return _metadata(path).items() >= _MAKER.items()
    except (OSError, ValueError):
        return False


def _metadata(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > path.stat().st_size:
            raise ValueError("the header is longer than the file")
        header = json.loads(file.read(length))
    found = header.get(_METADATA) if isinstance(header, dict) else None
    return found if isinstance(found, dict) else {}
