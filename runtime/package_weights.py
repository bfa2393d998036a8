"""The constants of a package as a safetensors image whose tensors begin at whole device blocks.

The safetensors format allows no holes between tensors, so the space up to the next block is itself a tensor,
of zeros, called `padding/N`. Any reader of safetensors can open the image; here it is read in place, without
copying.

Format: https://github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from birc.runtime.dtypes import DTYPES, DType, dtype, from_numpy
from birc.runtime.errors import BadPackageError, InternalError

Array = npt.NDArray[Any]

BLOCK_BYTES: Final = 512
PADDING: Final = "padding/"

_LENGTH_BYTES: Final = 8
_MAX_HEADER_BYTES: Final = 100_000_000  # the format's own limit

# The words of the safetensors format for the element types that it has.
_WORDS: Final[Mapping[str, str]] = {
    **{name: name.upper() for name in ("f64", "f32", "f16", "bf16", "bool")},
    **{f"{kind}{bits}": f"{kind.upper()}{bits}" for kind in "iu" for bits in (8, 16, 32, 64)},
    "f8e4m3": "F8_E4M3",
    "f8e5m2": "F8_E5M2",
}
_NAMES: Final = {word: name for name, word in _WORDS.items()}
STORED_AS_BYTES: Final = frozenset(entry.name for entry in DTYPES) - _WORDS.keys()
"""The element types that the format does not know."""


class _Tensor(NamedTuple):
    """One entry of the header."""

    key: str
    dtype: DType
    shape: tuple[int, ...]
    begin: int
    end: int


def as_bytes(array: Array) -> Array:
    """The elements of an array in row-major order as bytes; a view where the array is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def share_equal(weights: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, str]]:
    """The weights without repetitions, and for each key the key that keeps its tensor.

    Tensors are equal when type, shape and every byte are. The first of several keeps its key.
    """
    kept: dict[str, Array] = {}
    keeper: dict[str, str] = {}
    alike: dict[tuple[str, tuple[int, ...], int], list[str]] = {}
    for key, array in weights.items():
        content = as_bytes(array)
        candidates = alike.setdefault((from_numpy(array.dtype).name, array.shape, zlib.crc32(content.data)), [])
        equal = (other for other in candidates if np.array_equal(as_bytes(kept[other]), content))
        keeper[key] = next(equal, key)
        if keeper[key] == key:
            kept[key] = array
            candidates.append(key)
    return kept, keeper


def weights_image(weights: Mapping[str, Array]) -> list[memoryview]:
    """The parts of the image, in order: the header, then each tensor and what fills its last block.

    The header too is a whole number of blocks. Tensors stand in the order of their keys.
    """
    header: dict[str, Any] = {}
    parts: list[memoryview] = []
    offset = 0
    for key in sorted(weights):
        if key.startswith(PADDING) or key == "__metadata__":
            raise InternalError(f"the weight key {key!r} is kept for the package itself")
        content = as_bytes(weights[key])
        header[key] = _entry(_word(weights[key], key), weights[key].shape, offset, content.size)
        parts.append(content.data)
        offset += content.size
        missing = -offset % BLOCK_BYTES
        if missing:
            header[f"{PADDING}{len(header)}"] = _entry("U8", (missing,), offset, missing)
            parts.append(memoryview(bytes(missing)))
            offset += missing
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + _LENGTH_BYTES) % BLOCK_BYTES)
    return [memoryview(len(text).to_bytes(_LENGTH_BYTES, "little") + text), *parts]


def _entry(word: str, shape: Sequence[int], offset: int, num_bytes: int) -> dict[str, Any]:
    return {"dtype": word, "shape": list(shape), "data_offsets": [offset, offset + num_bytes]}


def _word(array: Array, key: str) -> str:
    name = from_numpy(array.dtype).name
    if name not in _WORDS:
        raise InternalError(f"the weight {key!r} has type {name}, which packages store as bytes")
    return _WORDS[name]


def read_weights(image: Array, *, where: str) -> dict[str, Array]:
    """The tensors of an image (an array of bytes) by key, as read-only views of it.

    Raises `BadPackageError` when the header is not exactly what the format asks for.
    """
    length = int.from_bytes(image[:_LENGTH_BYTES].tobytes(), "little")
    if image.size < _LENGTH_BYTES or length > min(image.size - _LENGTH_BYTES, _MAX_HEADER_BYTES):
        raise BadPackageError(f"the header claims {length} bytes, there are {image.size}", where=where)
    data = image[_LENGTH_BYTES + length :]
    try:
        header = json.loads(image[_LENGTH_BYTES : _LENGTH_BYTES + length].tobytes())
    except (ValueError, RecursionError) as error:
        raise BadPackageError("the header is not JSON", where=where) from error
    if not isinstance(header, dict):
        raise BadPackageError("the header is not a JSON object", where=where)
    tensors = [_read_entry(key, entry, where) for key, entry in header.items() if key != "__metadata__"]
    _check_no_holes(tensors, data.size, where)
    return {
        tensor.key: data[tensor.begin : tensor.end].view(tensor.dtype.numpy).reshape(tensor.shape)
        for tensor in tensors
        if not tensor.key.startswith(PADDING)
    }


def _read_entry(key: str, entry: object, where: str) -> _Tensor:
    place = f"{where}: tensor {key!r}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise BadPackageError("the entry must have dtype, shape and data_offsets", where=place)
    word, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(word, str) or word not in _NAMES:
        raise BadPackageError(f"unknown element type {word!r}", where=place)
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise BadPackageError("shape and data_offsets must be lists of sizes", where=place)
    element = dtype(_NAMES[word])
    begin, end = offsets
    if end - begin != element.bytes_for(math.prod(shape)):
        raise BadPackageError(f"{end - begin} bytes do not hold {word} {shape}", where=place)
    return _Tensor(key, element, tuple(shape), begin, end)


def _are_sizes(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def _check_no_holes(tensors: Iterable[_Tensor], num_bytes: int, where: str) -> None:
    """Every byte belongs to exactly one tensor, as the format asks."""
    offset = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != offset:
            raise BadPackageError(f"begins at {tensor.begin}, not at {offset}", where=f"{where}: tensor {tensor.key!r}")
        offset = tensor.end
    if offset != num_bytes:
        raise BadPackageError(f"the tensors end at {offset}, the data at {num_bytes}", where=where)
