"""The binary form of each kind of field, and of records made of fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

from birc.runtime.bytestream import ByteReader, ByteWriter
from birc.runtime.field_ranges import (
    I32,
    I64,
    LOOP_MASK,
    MAX_COMMAND_LOOP_DEPTH,
    U16,
    U32,
    U64,
    Range,
    number_range,
)
from birc.runtime.isa import Field
from birc.runtime.program import (
    FILLS,
    MAX_BOX_RANK,
    MAX_LOOP_DEPTH,
    Affine,
    Axis,
    Box,
    Register,
    RingAddress,
    Sync,
    Window,
)


class FieldCodec(Protocol):
    """How a value is written to and read from bytes. Reading gives back an equal value."""

    def write(self, out: ByteWriter, value: Any) -> None: ...

    def read(self, source: ByteReader) -> Any: ...


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A number in a range that begins at 0 or above."""

    limits: Range = U64

    def write(self, out: ByteWriter, value: int) -> None:
        out.unsigned(value, self.limits)

    def read(self, source: ByteReader) -> int:
        return source.unsigned(self.limits)


@dataclass(frozen=True, slots=True)
class Signed:
    """A number that may be negative."""

    limits: Range = I64

    def write(self, out: ByteWriter, value: int) -> None:
        out.signed(value, self.limits)

    def read(self, source: ByteReader) -> int:
        return source.signed(self.limits)


@dataclass(frozen=True, slots=True)
class NonZero:
    """A signed number other than 0."""

    def write(self, out: ByteWriter, value: int) -> None:
        if value == 0:
            out.fail("is 0")
        out.signed(value, I32)

    def read(self, source: ByteReader) -> int:
        start = source.offset
        value = source.signed(I32)
        if value == 0:
            source.fail("is 0", start)
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """One word of a list."""

    words: tuple[str, ...]

    def write(self, out: ByteWriter, value: str) -> None:
        if value not in self.words:
            out.fail(f"{value!r} is none of {', '.join(self.words)}")
        out.byte(self.words.index(value))

    def read(self, source: ByteReader) -> str:
        start = source.offset
        number = source.byte()
        if number >= len(self.words):
            source.fail(f"choice {number}, there are {len(self.words)}: {', '.join(self.words)}", start)
        return self.words[number]


@dataclass(frozen=True, slots=True)
class Text:
    """A text in UTF-8."""

    def write(self, out: ByteWriter, value: str) -> None:
        out.text_value(value)

    def read(self, source: ByteReader) -> str:
        return source.text_value()


@dataclass(frozen=True, slots=True)
class Float32:
    """A 32-bit float; a Python float is rounded to it."""

    def write(self, out: ByteWriter, value: float) -> None:
        out.float32(value)

    def read(self, source: ByteReader) -> float:
        return source.float32()


@dataclass(frozen=True, slots=True)
class Index:
    """The number of an entry of a table of the program."""

    table: str

    def write(self, out: ByteWriter, value: int) -> None:
        out.unsigned(value, (0, out.counts.get(self.table, U32[1])))

    def read(self, source: ByteReader) -> int:
        start = source.offset
        value = source.unsigned()
        if value >= source.counts.get(self.table, U32[1]):
            source.fail(f"there is no {self.table} {value}", start)
        return value


@dataclass(frozen=True, slots=True)
class Sequence:
    """Any number of values of one kind, at most `limit` if given."""

    item: FieldCodec
    limit: int | None = None

    def write(self, out: ByteWriter, value: tuple[Any, ...]) -> None:
        if self.limit is not None and len(value) > self.limit:
            out.fail(f"{len(value)} entries, at most {self.limit}")
        out.unsigned(len(value))
        for number, item in enumerate(value):
            out.enter(str(number))
            self.item.write(out, item)
            out.leave()

    def read(self, source: ByteReader) -> tuple[Any, ...]:
        items = []
        for number in range(source.count(self.limit)):
            source.enter(str(number))
            items.append(self.item.read(source))
            source.leave()
        return tuple(items)


@dataclass(frozen=True, slots=True)
class Record:
    """A dataclass: its attributes, in the order given."""

    build: Callable[..., Any]
    attributes: tuple[tuple[str, FieldCodec], ...]

    def write(self, out: ByteWriter, value: Any) -> None:
        for name, codec in self.attributes:
            out.enter(name)
            codec.write(out, getattr(value, name))
            out.leave()

    def read(self, source: ByteReader) -> Any:
        values = {}
        for name, codec in self.attributes:
            source.enter(name)
            values[name] = codec.read(source)
            source.leave()
        return self.build(**values)


_DEPTH: Final = Unsigned((0, MAX_LOOP_DEPTH))


@dataclass(frozen=True, slots=True)
class AffineForm:
    """An affine expression in its canonical form: terms sorted by depth, no factor 0."""

    def write(self, out: ByteWriter, value: Affine) -> None:
        depths = [depth for depth, _ in value.terms]
        if depths != sorted(set(depths)) or any(factor == 0 for _, factor in value.terms):
            out.fail(f"the terms {value.terms} are not in canonical form")
        out.signed(value.constant)
        out.unsigned(len(value.terms))
        for depth, factor in value.terms:
            _DEPTH.write(out, depth)
            out.signed(factor)

    def read(self, source: ByteReader) -> Affine:
        constant = source.signed()
        terms: list[tuple[int, int]] = []
        for _ in range(source.count(MAX_LOOP_DEPTH)):
            start = source.offset
            depth, factor = _DEPTH.read(source), source.signed()
            if factor == 0 or (terms and depth <= terms[-1][0]):
                source.fail("the terms are not in canonical form", start)
            terms.append((depth, factor))
        return Affine(constant, tuple(terms))


@dataclass(frozen=True, slots=True)
class Optional:
    """A value or None."""

    item: FieldCodec

    def write(self, out: ByteWriter, value: Any) -> None:
        out.byte(value is not None)
        if value is not None:
            self.item.write(out, value)

    def read(self, source: ByteReader) -> Any:
        start = source.offset
        present = source.byte()
        if present > 1:
            source.fail(f"is {present}, expected 0 or 1", start)
        return self.item.read(source) if present else None


@dataclass(frozen=True, slots=True)
class Source:
    """A register, or an immediate."""

    def write(self, out: ByteWriter, value: Register | float) -> None:
        out.byte(not isinstance(value, Register))
        codec: FieldCodec = REGISTER if isinstance(value, Register) else Float32()
        codec.write(out, value)

    def read(self, source: ByteReader) -> Register | float:
        start = source.offset
        immediate = source.byte()
        if immediate > 1:
            source.fail(f"is {immediate}, expected 0 (register) or 1 (immediate)", start)
        value: Register | float = (Float32() if immediate else REGISTER).read(source)
        return value


AFFINE: Final = AffineForm()
REGISTER: Final = Record(Register, (("number", AFFINE),))
AXIS: Final = Record(Axis, (("start", AFFINE), ("extent", Unsigned(U32)), ("step", NonZero())))
BOX: Final = Record(Box, (("slot", Unsigned(U16)), ("axes", Sequence(AXIS, MAX_BOX_RANK)), ("fill", Choice(FILLS))))
RING: Final = Record(
    RingAddress,
    (("base", AFFINE), ("stride", Signed()), ("index", AFFINE), ("modulo", Unsigned((1, U32[1])))),
)
WINDOW: Final = Record(
    Window,
    (
        ("top", AFFINE),
        ("left", AFFINE),
        ("rows", Unsigned(U16)),
        ("columns", Unsigned(U16)),
        ("pitch", Unsigned(U16)),
    ),
)
SYNC: Final = Record(Sync, (("semaphore", AFFINE), ("first", Unsigned(LOOP_MASK)), ("last", Unsigned(LOOP_MASK))))

KINDS: Final[Mapping[str, Callable[[Field], FieldCodec]]] = MappingProxyType(
    {
        **dict.fromkeys(("u8", "u16", "u32", "u64"), lambda field: Unsigned(number_range(field))),
        "i32": lambda field: Signed(number_range(field)),
        "f32": lambda _: Float32(),
        "enum": lambda field: Choice(field.choices),
        "mask": lambda _: Unsigned(LOOP_MASK),
        "shape": lambda _: Sequence(Unsigned(U32), MAX_BOX_RANK),
        "descriptor": lambda _: Index("descriptor"),
        "kernel": lambda _: Index("kernel"),
        "text": lambda _: Text(),
        "register": lambda _: REGISTER,
        "source": lambda _: Source(),
        "box": lambda _: BOX,
        "ring": lambda _: RING,
        "window": lambda _: WINDOW,
        "advance": lambda _: Sequence(Signed(), MAX_COMMAND_LOOP_DEPTH),
    }
)


def codec_of(field: Field) -> FieldCodec:
    """The binary form of an instruction field."""
    return KINDS[field.kind](field)
