"""The file of a model: only a regular one of a bounded size is read, and only a plausible one decoded."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.descriptor import Descriptor, FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from birc.runtime.errors import BadModelError

MOST_FILE_BYTES: Final = 2**31 - 1
"""What protobuf can decode at once."""

MOST_DECODED_BYTES: Final = 256 * 2**20
"""What the messages of a file of at most `_COUNTED_BYTES` may take once they are decoded."""

# A message takes about this much when it is decoded, so that files of many tiny ones grow a hundredfold.
_MESSAGE_BYTES: Final = 256
_LEAF_BYTES: Final = 96
_TEXT_BYTES: Final = 24
_SURELY_SMALL_BYTES: Final = 2 * MOST_DECODED_BYTES // _MESSAGE_BYTES
_COUNTED_BYTES: Final = 16 * 2**20

_KINDS: Final = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
                 stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}  # fmt: skip

_SHORT: Final = 8  # what is in so short a message is counted by its length
_LENGTH_DELIMITED: Final = 2
_EMPTY_FIELDS: Final = re.compile(rb"(?>[\x02-\x7a]\x00|[\x80-\xff][\x01-\x0f]\x00)*+")
_SCALARS: Final = re.compile(
    rb"(?>[\x08\x10\x18\x20\x28\x30\x38\x40\x48\x50\x58\x60\x68\x70\x78][\x80-\xff]{0,9}+[\x00-\x7f]"
    rb"|[\x0d\x15\x1d\x25\x2d\x35\x3d\x45\x4d\x55\x5d\x65\x6d\x75\x7d].{4})*+",
    re.DOTALL,
)


def read_bytes(path: Path) -> bytes:
    """The content of a model's file. Raises `BadModelError` for what is no regular file, empty or too large."""
    where = str(path)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
            raise BadModelError(f"this is {kind}, not an ONNX file", where=where)
        if found.st_size > MOST_FILE_BYTES:
            raise _too_large(found.st_size, where)
        with path.open("rb") as file:
            content = file.read(found.st_size)  # as many bytes are allocated before the first is read
    except FileNotFoundError as error:
        raise BadModelError("there is no such file", where=where) from error
    except OSError as error:
        raise BadModelError(f"cannot be read: {error.strerror}", where=where) from error
    except ValueError as error:  # a zero byte in the name
        raise BadModelError(f"cannot be read: {error}", where=repr(where)) from error
    if not content:
        raise BadModelError("the file is empty", where=where)
    return content


def decode_model(content: bytes, where: str) -> onnx.ModelProto:
    """The protobuf of a model. Raises `BadModelError` for what does not decode, or would grow beyond measure."""
    if _SURELY_SMALL_BYTES < len(content) <= _COUNTED_BYTES:
        _check_density(content, where)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise BadModelError(
            f"not an ONNX model, or cut short: its {len(content)} bytes do not decode",
            where=where,
            hint="export it again, and compare the file's size with the original's",
        ) from error
    return proto


def _too_large(size: int, where: str) -> BadModelError:
    hint = "keep the weights in files beside it, as external data"
    return BadModelError(f"has {size} bytes, an ONNX file at most {MOST_FILE_BYTES}", where=where, hint=hint)


def _check_density(content: bytes, where: str) -> None:
    """Walk over the fields of the file, as far as decoding them takes memory out of proportion."""
    taken = 0
    pending: list[tuple[int, int, Descriptor]] = [(0, len(content), onnx.ModelProto.DESCRIPTOR)]
    while pending:
        position, end, message = pending.pop()
        fields = message.fields_by_number
        while position < end:
            run = _EMPTY_FIELDS.match(content, position, end)
            skipped = run.end() if run else position
            taken += (skipped - position) // 2 * _MESSAGE_BYTES
            run = _SCALARS.match(content, skipped, end)
            position = run.end() if run else skipped
            if taken > MOST_DECODED_BYTES:
                raise BadModelError(
                    f"its {len(content)} bytes hold so many fields that they take more than {MOST_DECODED_BYTES} "
                    "bytes of memory, the limit",
                    where=where,
                )
            if position + 2 <= end and content[position] < 0x80 and content[position + 1] < 0x80:
                key, position = content[position], position + 1
            else:
                key, position = _varint(content, position, end)
            if position >= end or key & 7 != _LENGTH_DELIMITED:
                break  # a form that only the decoder judges, which will
            if content[position] < 0x80:
                length, position = content[position], position + 1
            else:
                length, position = _varint(content, position, end)
            field: FieldDescriptor | None = fields.get(key >> 3)
            inner = None if field is None else field.message_type
            taken += _TEXT_BYTES if inner is None else _LEAF_BYTES if inner.name in _LEAVES else _MESSAGE_BYTES
            taken += _TEXT_BYTES * min(length, _SHORT) // 2
            if inner is not None and length > _SHORT and inner.name not in _LEAVES and position + length <= end:
                pending.append((position, position + length, inner))
            position += length


_LEAVES: Final = frozenset({"StringStringEntryProto", "TensorProto", "OperatorSetIdProto", "Segment"})
"""Messages whose own fields take little beside what the file spends on them."""


def _varint(content: bytes, position: int, end: int) -> tuple[int, int]:
    """The number at `position`, and where it ends; at the end of the message nothing."""
    value = shift = 0
    while position < end and shift < 70:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    return 0, end
