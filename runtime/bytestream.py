"""Reading and writing of the primitive values of a byte stream, with the name of the field in every error.

Integers are little-endian groups of seven bits (LEB128) in their shortest form, signed ones in zigzag order.
A reader takes hostile bytes: it raises nothing but `BadPackageError`, with offset and field.
"""

from __future__ import annotations

import math
import struct
from typing import Final, NoReturn

from birc.runtime.errors import BadPackageError, InternalError
from birc.runtime.field_ranges import I64, U64, Range

_MAX_VARINT_BYTES: Final = 10
_NAN: Final = struct.pack("<I", 0x7FC00000)


class FieldPath:
    """The names of the fields around the present one."""

    __slots__ = ("_names", "counts")

    def __init__(self) -> None:
        self._names: list[str] = []
        # How many entries the tables have that an index may refer to, by the index's kind.
        self.counts: dict[str, int] = {}

    def enter(self, name: str) -> None:
        """What follows, until `leave`, belongs to the field `name`."""
        self._names.append(name)

    def leave(self) -> None:
        self._names.pop()

    @property
    def text(self) -> str:
        return ".".join(self._names) or "program"


class ByteWriter(FieldPath):
    """Collects bytes. Raises `InternalError` for a value that a field does not hold."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        super().__init__()
        self.data = bytearray()

    def fail(self, complaint: str) -> NoReturn:
        raise InternalError(complaint, where=self.text)

    def byte(self, value: int) -> None:
        self.data.append(value)

    def unsigned(self, value: int, limits: Range = U64) -> None:
        self._check(value, limits)
        while value >= 0x80:
            self.data.append(value & 0x7F | 0x80)
            value >>= 7
        self.data.append(value)

    def signed(self, value: int, limits: Range = I64) -> None:
        self._check(value, limits)
        self.unsigned(value << 1 if value >= 0 else (-value << 1) - 1)

    def float32(self, value: float) -> None:
        try:
            self.data += _NAN if math.isnan(value) else struct.pack("<f", value)
        except (struct.error, OverflowError, TypeError):
            self.fail(f"{value!r} is no 32-bit float")

    def text_value(self, value: str) -> None:
        try:
            encoded = value.encode()
        except UnicodeEncodeError:
            self.fail("a text has no UTF-8 form")
        self.unsigned(len(encoded))
        self.data += encoded

    def _check(self, value: int, limits: Range) -> None:
        if not isinstance(value, int) or not limits[0] <= value < limits[1]:
            self.fail(f"{value!r} is outside {limits[0]}:{limits[1]}")


class ByteReader(FieldPath):
    """Takes bytes apart."""

    __slots__ = ("_data", "offset")

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data
        self.offset = 0

    @property
    def remaining(self) -> int:
        return len(self._data) - self.offset

    def fail(self, complaint: str, offset: int | None = None) -> NoReturn:
        place = self.offset if offset is None else offset
        raise BadPackageError(complaint, where=f"byte {place}, {self.text}")

    def take(self, num_bytes: int) -> bytes:
        if num_bytes > self.remaining:
            self.fail(f"the program ends, {num_bytes} bytes are expected and {self.remaining} left")
        self.offset += num_bytes
        return self._data[self.offset - num_bytes : self.offset]

    def byte(self) -> int:
        if self.offset == len(self._data):
            self.fail("the program ends, a byte is expected")
        self.offset += 1
        return self._data[self.offset - 1]

    def unsigned(self, limits: Range = U64) -> int:
        start = self.offset
        value = 0
        for position in range(_MAX_VARINT_BYTES):
            group = self.byte()
            value |= (group & 0x7F) << 7 * position
            if group < 0x80:
                if group == 0 and position:
                    self.fail("a number is not in its shortest form", start)
                self._check(value, limits, start)
                return value
        self.fail("a number has more than 64 bits", start)

    def signed(self, limits: Range = I64) -> int:
        start = self.offset
        zigzag = self.unsigned()
        value = -(zigzag >> 1) - 1 if zigzag & 1 else zigzag >> 1
        self._check(value, limits, start)
        return value

    def float32(self) -> float:
        encoded = self.take(4)
        value: float = struct.unpack("<f", encoded)[0]
        if math.isnan(value) and encoded != _NAN:
            self.fail("a NaN is not the plain one", self.offset - 4)
        return value

    def text_value(self) -> str:
        start = self.offset
        encoded = self.take(self.count())
        try:
            return encoded.decode()
        except UnicodeDecodeError:
            self.fail("a text is not UTF-8", start)

    def count(self, limit: int | None = None) -> int:
        """The length of what follows, each entry of which takes at least a byte."""
        start = self.offset
        length = self.unsigned()
        if limit is not None and length > limit:
            self.fail(f"{length} entries, at most {limit}", start)
        if length > self.remaining:
            self.fail(f"{length} entries are claimed, {self.remaining} bytes are left", start)
        return length

    def _check(self, value: int, limits: Range, start: int) -> None:
        if not limits[0] <= value < limits[1]:
            self.fail(f"{value} is outside {limits[0]}:{limits[1]}", start)
