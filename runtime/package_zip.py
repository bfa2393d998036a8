"""A zip of stored members: written with fixed bytes, read without trust.

Every field of the format has one right value here, or has to agree with its copy elsewhere in the file. So
any single changed byte outside the members' data is found, while an archive whose members were taken out or
put back by another tool (stored, without comments) can still be read.

Format: PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import BinaryIO, Final, NoReturn, TypeAlias

from birc.runtime.errors import BadPackageError, InternalError

Buffer: TypeAlias = bytes | bytearray | memoryview | mmap

MAX_MEMBERS: Final = 10_000
ALIGNMENT_BYTES: Final = 512

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_END_64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64: Final = struct.Struct("<4sIQI")
_EXTRA: Final = struct.Struct("<2H")

_LOCAL_SIGNATURE: Final = b"PK\x03\x04"
_CENTRAL_SIGNATURE: Final = b"PK\x01\x02"
_END_SIGNATURE: Final = b"PK\x05\x06"
_END_64_SIGNATURE: Final = b"PK\x06\x06"
_LOCATOR_64_SIGNATURE: Final = b"PK\x06\x07"

_VERSION: Final = 20  # 2.0: stored members in folders
_VERSION_64: Final = 45  # 4.5: sizes and offsets of 64 bits
_MADE_BY: Final = 3 << 8 | _VERSION_64  # by Unix
_FILE_MODE: Final = 0o100644 << 16
_DATE: Final = 1 << 5 | 1  # 1 January 1980, the first day that the format knows
_TIME: Final = 0
_BEYOND_32_BITS: Final = 0xFFFFFFFF
_BEYOND_16_BITS: Final = 0xFFFF

_EXTRA_64: Final = 0x0001
_EXTRA_ALIGNMENT: Final = 0xD935  # as the Android tools pad: the alignment, then zeros

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)*")
_MAX_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class NewMember:
    """A member to write: its data in parts, their total size and CRC-32, and whether the data is aligned."""

    name: str
    parts: Sequence[Buffer]
    num_bytes: int
    crc32: int
    is_aligned: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """A member found: its data are the bytes `offset .. offset + num_bytes` of the file.

    `crc32` is what the archive says; nobody has compared it with the data yet.
    """

    name: str
    offset: int
    num_bytes: int
    crc32: int


def is_member_name(name: str) -> bool:
    """Whether a member may be called so: plain relative paths, no `..`, no hidden files."""
    return len(name) <= _MAX_NAME and _NAME.fullmatch(name) is not None


def write_archive(file: BinaryIO, members: Iterable[NewMember]) -> None:
    """Write the members in the order given. The same members give the same bytes."""
    offset = 0
    directory: list[bytes] = []
    for member in members:
        if not is_member_name(member.name):
            raise InternalError(f"{member.name!r} cannot be the name of a package's member")
        header = _local_header(member, offset)
        file.write(header)
        for part in member.parts:
            file.write(part)
        directory.append(_central_header(member, offset))
        offset += len(header) + member.num_bytes
    listing = b"".join(directory)
    file.write(listing)
    file.write(_end_records(len(directory), len(listing), offset))


def _local_header(member: NewMember, offset: int) -> bytes:
    """The header before a member's data, padded by an extra field where the data is to be aligned."""
    name = member.name.encode()
    is_large = member.num_bytes >= _BEYOND_32_BITS
    size = _BEYOND_32_BITS if is_large else member.num_bytes
    extra = _extra(_EXTRA_64, struct.pack("<2Q", member.num_bytes, member.num_bytes)) if is_large else b""
    if member.is_aligned:
        extra += _alignment_extra(offset + _LOCAL.size + len(name) + len(extra))
    version = _VERSION_64 if is_large else _VERSION
    fields = (version, 0, 0, _TIME, _DATE, member.crc32, size, size, len(name), len(extra))
    return _LOCAL.pack(_LOCAL_SIGNATURE, *fields) + name + extra


def _alignment_extra(offset: int) -> bytes:
    """An extra field which, put at `offset`, ends at an aligned place."""
    smallest = _EXTRA.size + 2
    padding = -(offset + smallest) % ALIGNMENT_BYTES
    return _extra(_EXTRA_ALIGNMENT, struct.pack("<H", ALIGNMENT_BYTES) + bytes(padding))


def _extra(kind: int, data: bytes) -> bytes:
    return _EXTRA.pack(kind, len(data)) + data


def _central_header(member: NewMember, offset: int) -> bytes:
    """The member's entry in the directory; `offset` is where its local header begins."""
    name = member.name.encode()
    is_large = member.num_bytes >= _BEYOND_32_BITS
    is_far = offset >= _BEYOND_32_BITS
    wide = [member.num_bytes] * (2 * is_large) + [offset] * is_far
    extra = _extra(_EXTRA_64, struct.pack(f"<{len(wide)}Q", *wide)) if wide else b""
    size = _BEYOND_32_BITS if is_large else member.num_bytes
    version = _VERSION_64 if is_large else _VERSION
    fields = (_MADE_BY, version, 0, 0, _TIME, _DATE, member.crc32, size, size, len(name), len(extra), 0, 0, 0)
    place = _BEYOND_32_BITS if is_far else offset
    return _CENTRAL.pack(_CENTRAL_SIGNATURE, *fields, _FILE_MODE, place) + name + extra


def _end_records(count: int, directory_bytes: int, offset: int) -> bytes:
    """What follows a directory of `count` entries that begins at `offset`."""
    is_large = offset >= _BEYOND_32_BITS or directory_bytes >= _BEYOND_32_BITS or count >= _BEYOND_16_BITS
    counts = (min(count, _BEYOND_16_BITS),) * 2
    sizes = (min(directory_bytes, _BEYOND_32_BITS), min(offset, _BEYOND_32_BITS))
    end = _END.pack(_END_SIGNATURE, 0, 0, *counts, *sizes, 0)
    if not is_large:
        return end
    body = (_END_64.size - 12, _MADE_BY, _VERSION_64, 0, 0, count, count, directory_bytes, offset)
    locator = _LOCATOR_64.pack(_LOCATOR_64_SIGNATURE, 0, offset + directory_bytes, 1)
    return _END_64.pack(_END_64_SIGNATURE, *body) + locator + end


def read_archive(data: Buffer, *, where: str) -> dict[str, Member]:
    """The members of the archive that `data` holds, by name, in file order.

    Raises `BadPackageError` with the offset for anything that `write_archive` (or a tool that stores members
    plainly) would not have written. Reads the headers alone, never a member's data.
    """
    return _Reader(memoryview(data), where).members()


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of the directory, with the fields that its local header must repeat."""

    name: str
    repeated: tuple[int, ...]  # version, flags, method, time, date, CRC-32
    ours: tuple[int, ...]  # fields of which every entry must have the same: made by, internal and external attributes
    num_bytes: int
    header_offset: int


class _Reader:
    """Walks the records of an archive from its end; each must begin where the one before ended."""

    def __init__(self, data: memoryview, where: str) -> None:
        self.data = data
        self.where = where

    def members(self) -> dict[str, Member]:
        if bytes(self.data[:4]) != _LOCAL_SIGNATURE:
            raise BadPackageError("is not a birc package: it does not begin as a zip", where=self.where)
        count, directory, end = self._end()
        entries = list(self._entries(count, directory, end))
        found: dict[str, Member] = {}
        offset = 0
        for entry in entries:
            if entry.ours != entries[0].ours:
                self._refuse(directory, f"the attributes of {entry.name!r} differ from the other members'")
            if entry.name in found:
                self._refuse(directory, f"lists {entry.name!r} twice")
            if entry.header_offset != offset:
                self._refuse(offset, f"member {entry.name!r} should begin here")
            found[entry.name] = self._local(entry, directory)
            offset = found[entry.name].offset + entry.num_bytes
        if offset != directory:
            self._refuse(offset, "the directory should begin here")
        return found

    def _refuse(self, offset: int, what: str) -> NoReturn:
        raise BadPackageError(
            f"is damaged or was repacked, at byte {offset}: {what}", where=self.where, hint="compile it again"
        )

    def _unpack(self, record: struct.Struct, signature: bytes, offset: int) -> tuple[int, ...]:
        """The fields of the record at `offset`, without its signature."""
        if offset < 0 or offset + record.size > len(self.data):
            self._refuse(max(offset, 0), "is cut off")
        found, *fields = record.unpack_from(self.data, offset)
        if found != signature:
            self._refuse(offset, "a record of the zip has the wrong signature")
        return tuple(fields)

    def _end(self) -> tuple[int, int, int]:
        """The number of members, where the directory begins, and where it ends."""
        offset = len(self.data) - _END.size
        disk, first_disk, here, count, num_bytes, start, comment = self._unpack(_END, _END_SIGNATURE, offset)
        if (disk, first_disk, comment) != (0, 0, 0) or here != count:
            self._refuse(offset, "the end record contradicts itself")
        end = offset
        if _BEYOND_32_BITS in (num_bytes, start) or count == _BEYOND_16_BITS:
            short = (count, num_bytes, start)
            count, num_bytes, start, end = self._end_64(offset)
            widest = (_BEYOND_16_BITS, _BEYOND_32_BITS, _BEYOND_32_BITS)
            long = zip((count, num_bytes, start), widest, strict=True)
            if short != tuple(min(value, most) for value, most in long):
                self._refuse(offset, "the two end records contradict each other")
        if count > MAX_MEMBERS:
            self._refuse(offset, f"claims {count} members, the limit is {MAX_MEMBERS}")
        if start + num_bytes != end:
            self._refuse(offset, "the directory does not end here")
        return count, start, end

    def _end_64(self, offset: int) -> tuple[int, int, int, int]:
        """As `_end`, from the 64-bit record; and where that begins."""
        locator = offset - _LOCATOR_64.size
        disk, place, disks = self._unpack(_LOCATOR_64, _LOCATOR_64_SIGNATURE, locator)
        if (disk, disks) != (0, 1) or place != locator - _END_64.size:
            self._refuse(locator, "the 64-bit locator points elsewhere")
        fields = self._unpack(_END_64, _END_64_SIGNATURE, place)
        size, _, version, disk, first_disk, here, count, num_bytes, start = fields
        right = (_END_64.size - 12, _VERSION_64, 0, 0, count)
        if (size, version, disk, first_disk, here) != right:
            self._refuse(place, "the 64-bit end record contradicts itself")
        return count, num_bytes, start, place

    def _entries(self, count: int, offset: int, end: int) -> Iterator[_Entry]:
        for _ in range(count):
            entry, offset = self._entry(offset)
            yield entry
        if offset != end:
            self._refuse(offset, "the directory should end here")

    def _entry(self, offset: int) -> tuple[_Entry, int]:
        """The directory's entry at `offset`, and where the next one begins."""
        fields = self._unpack(_CENTRAL, _CENTRAL_SIGNATURE, offset)
        made_by, *repeated, size, num_bytes, name_bytes, extra_bytes, comment, disk, internal, mode, place = fields
        start = offset + _CENTRAL.size
        name = self._name(start, name_bytes)
        wide = self._wide(start + name_bytes, extra_bytes)
        num_bytes, size, place = self._widen((num_bytes, size, place), wide, offset)
        version, flags, method, *_ = repeated
        if method or size != num_bytes:
            self._refuse(offset, f"member {name!r} is compressed, members must be stored")
        if flags or comment or disk or version not in (_VERSION, _VERSION_64):
            self._refuse(offset, f"member {name!r} uses a feature of zip that packages do not use")
        entry = _Entry(name, tuple(repeated), (made_by, internal, mode), num_bytes, place)
        return entry, start + name_bytes + extra_bytes

    def _local(self, entry: _Entry, limit: int) -> Member:
        """The member whose header the entry points to; its data ends before `limit`."""
        offset = entry.header_offset
        *repeated, size, num_bytes, name_bytes, extra_bytes = self._unpack(_LOCAL, _LOCAL_SIGNATURE, offset)
        start = offset + _LOCAL.size
        wide = self._wide(start + name_bytes, extra_bytes)
        num_bytes, size = self._widen((num_bytes, size), wide, offset)
        name = self._name(start, name_bytes)
        if (name, *repeated, size, num_bytes) != (
            entry.name,
            *entry.repeated,
            entry.num_bytes,
            entry.num_bytes,
        ):
            self._refuse(offset, f"the header of {entry.name!r} and the directory contradict each other")
        begin = start + name_bytes + extra_bytes
        if begin + num_bytes > limit:
            self._refuse(offset, f"member {name!r} claims {num_bytes} bytes, there are {limit - begin}")
        return Member(name, begin, num_bytes, repeated[-1])

    def _name(self, offset: int, num_bytes: int) -> str:
        raw = bytes(self.data[offset : offset + num_bytes])
        name = raw.decode("ascii", errors="replace")
        if len(raw) != num_bytes or not is_member_name(name):
            self._refuse(offset, f"a member has the name {name[:40]!r}")
        return name

    def _wide(self, offset: int, num_bytes: int) -> list[int]:
        """The 64-bit numbers among the extra fields at `offset`; beside them only padding may be there."""
        end = offset + num_bytes
        wide: list[int] = []
        while offset < end:
            if offset + _EXTRA.size > min(end, len(self.data)):
                self._refuse(offset, "an extra field is cut off")
            kind, length = _EXTRA.unpack_from(self.data, offset)
            content = bytes(self.data[offset + _EXTRA.size : min(offset + _EXTRA.size + length, end)])
            if len(content) != length:
                self._refuse(offset, "an extra field is cut off")
            if kind == _EXTRA_64 and not wide and length in (8, 16, 24):
                wide = list(struct.unpack(f"<{length // 8}Q", content))
            elif kind != _EXTRA_ALIGNMENT or content != struct.pack("<H", ALIGNMENT_BYTES).ljust(length, b"\0"):
                self._refuse(offset, "has an extra field that packages do not have")
            offset += _EXTRA.size + length
        return wide

    def _widen(self, values: tuple[int, ...], wide: list[int], offset: int) -> list[int]:
        """`values` with those that do not fit 32 bits replaced, in order, by the 64-bit numbers."""
        places = [place for place, value in enumerate(values) if value == _BEYOND_32_BITS]
        if len(places) != len(wide) or any(value < _BEYOND_32_BITS for value in wide):
            self._refuse(offset, "the 64-bit sizes of a member do not match its header")
        widened = list(values)
        for place, value in zip(places, wide, strict=True):
            widened[place] = value
        return widened
