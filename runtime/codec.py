"""A program as bytes: header, tables, kernels and commands.

    8 bytes  magic            "BIRCPROG"
    1 byte   format version   of what this module writes
    varint   ISA version
    32 bytes digest           over the instruction table and all word lists
    ...      the program      records of fields, each as long as its value needs

An instruction is its opcode, the vector program (vector instructions only), a byte with the numbers of waits
and posts, these, and the operands in the order of the table. A loop begins with opcode 0. Equal programs give
equal bytes, and every byte string stands for at most one program.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Final

from birc.runtime.bytestream import ByteReader, ByteWriter
from birc.runtime.codec_fields import (
    AFFINE,
    SYNC,
    Choice,
    FieldCodec,
    Index,
    Optional,
    Record,
    Sequence,
    Signed,
    Text,
    Unsigned,
    codec_of,
)
from birc.runtime.dtypes import DTYPES
from birc.runtime.field_ranges import MAX_COMMAND_LOOP_DEPTH, U8, U32
from birc.runtime.isa import BY_MNEMONIC, BY_OPCODE, ISA_VERSION, InstructionRow, isa_digest
from birc.runtime.program import (
    FILLS,
    LOOP_KINDS,
    LOOP_LEVELS,
    MAPPINGS,
    MAX_BOX_RANK,
    MAX_LOOP_DEPTH,
    MULTICAST_MODES,
    SPACES,
    Command,
    CommandLoop,
    ConstantImage,
    Descriptor,
    Instruction,
    Kernel,
    Loop,
    Operand,
    Piece,
    Port,
    Program,
)

MAGIC: Final = b"BIRCPROG"
FORMAT_VERSION: Final = 2

_LOOP_OPCODE: Final = 0
_MAX_SYNCS: Final = 15
_DTYPE_NAMES: Final = tuple(entry.name for entry in DTYPES)
_DIES: Final = Unsigned(U32)
_CALL_WORDS: Final = ("always", "once")
_CALLS: Final = Choice(_CALL_WORDS)
"""The calls in which a command is executed."""
_DTYPE: Final = Choice(_DTYPE_NAMES)
_COORDINATES: Final = Sequence(Signed())
_SHAPE: Final = Sequence(Unsigned())

_DESCRIPTOR: Final = Record(
    Descriptor,
    (
        ("space", Choice(SPACES)),
        ("address", Unsigned()),
        ("dtype", _DTYPE),
        ("dims", Sequence(Unsigned(), MAX_BOX_RANK)),
        ("strides", Sequence(Signed(), MAX_BOX_RANK)),
        ("origin", Sequence(Signed(), MAX_BOX_RANK)),
        ("mapping", Choice(MAPPINGS)),
    ),
)
_PIECE: Final = Record(
    Piece, (("dies", _DIES), ("descriptor", Index("descriptor")), ("start", _COORDINATES), ("shape", _SHAPE))
)
_PORT: Final = Record(Port, (("name", Text()), ("dtype", _DTYPE), ("shape", _SHAPE), ("pieces", Sequence(_PIECE))))
_CONSTANT: Final = Record(
    ConstantImage, (("key", Text()), ("num_bytes", Unsigned()), ("address", Unsigned()), ("dies", _DIES))
)


@dataclass(frozen=True, slots=True)
class _Nest:
    """A loop or an instruction, `depth` loops inside a kernel."""

    depth: int = 0

    def write(self, out: ByteWriter, value: Loop | Instruction) -> None:
        if isinstance(value, Instruction):
            _write_instruction(out, value)
            return
        if self.depth >= MAX_LOOP_DEPTH:
            out.fail(f"loops are nested deeper than {MAX_LOOP_DEPTH}")
        out.byte(_LOOP_OPCODE)
        _loop_record(self.depth).write(out, value)

    def read(self, source: ByteReader) -> Loop | Instruction:
        start = source.offset
        opcode = source.byte()
        if opcode != _LOOP_OPCODE:
            return _read_instruction(source, opcode)
        if self.depth >= MAX_LOOP_DEPTH:
            source.fail(f"loops are nested deeper than {MAX_LOOP_DEPTH}", start)
        loop: Loop = _loop_record(self.depth).read(source)
        return loop


@cache
def _loop_record(depth: int) -> Record:
    return Record(
        Loop,
        (
            ("kind", Choice(LOOP_KINDS)),
            ("level", Choice(LOOP_LEVELS)),
            ("extent", Unsigned(U32)),
            ("limit", Optional(AFFINE)),
            ("body", Sequence(_Nest(depth + 1))),
        ),
    )


@cache
def _operand_codecs(mnemonic: str) -> tuple[tuple[str, FieldCodec], ...]:
    return tuple((field.name, codec_of(field)) for field in BY_MNEMONIC[mnemonic].fields)


def _row(out: ByteWriter, value: Instruction | Command) -> InstructionRow:
    """The row of an instruction or command that is about to be written."""
    row = BY_MNEMONIC.get(value.mnemonic)
    if row is None or (row.engine == "command") != isinstance(value, Command):
        out.fail(f"there is no {type(value).__name__.lower()} {value.mnemonic!r}")
    if len(value.operands) != len(row.fields):
        out.fail(f"{row.mnemonic} has {len(row.fields)} operands, not {len(value.operands)}")
    return row


def _write_operands(out: ByteWriter, value: Instruction | Command) -> None:
    out.enter(value.mnemonic)
    for (name, codec), operand in zip(_operand_codecs(value.mnemonic), value.operands, strict=True):
        out.enter(name)
        codec.write(out, operand)
        out.leave()
    out.leave()


def _write_instruction(out: ByteWriter, value: Instruction) -> None:
    row = _row(out, value)
    out.byte(row.opcode)
    if row.engine == "vector":
        out.unsigned(value.program, U8)
    elif value.program:
        out.fail(f"{row.mnemonic} is no vector instruction, program is {value.program}")
    if max(len(value.waits), len(value.posts)) > _MAX_SYNCS:
        out.fail(f"{row.mnemonic} has more than {_MAX_SYNCS} waits or posts")
    out.byte(len(value.waits) << 4 | len(value.posts))
    for sync in (*value.waits, *value.posts):
        SYNC.write(out, sync)
    _write_operands(out, value)


def _read_instruction(source: ByteReader, opcode: int) -> Instruction:
    row = _known_row(source, opcode, commands=False)
    source.enter(row.mnemonic)
    program = source.unsigned(U8) if row.engine == "vector" else 0
    numbers = source.byte()
    source.enter("waits")
    waits = tuple(SYNC.read(source) for _ in range(numbers >> 4))
    source.leave()
    source.enter("posts")
    posts = tuple(SYNC.read(source) for _ in range(numbers & 0xF))
    source.leave()
    operands = _read_operands(source, row)
    source.leave()
    return Instruction(row.mnemonic, operands, waits, posts, program)


def _read_operands(source: ByteReader, row: InstructionRow) -> tuple[Operand, ...]:
    operands: list[Operand] = []
    for name, codec in _operand_codecs(row.mnemonic):
        source.enter(name)
        operands.append(codec.read(source))
        source.leave()
    return tuple(operands)


def _known_row(source: ByteReader, opcode: int, *, commands: bool) -> InstructionRow:
    """The row of an opcode just read."""
    row = BY_OPCODE.get(opcode)
    if row is None or (row.engine == "command") != commands:
        source.fail(f"unknown {'command' if commands else 'instruction'} {opcode:#04x}", source.offset - 1)
    return row


@dataclass(frozen=True, slots=True)
class _Stream:
    """A command or a command loop, `depth` command loops deep."""

    depth: int = 0

    def write(self, out: ByteWriter, value: Command | CommandLoop) -> None:
        if isinstance(value, Command):
            out.byte(_row(out, value).opcode)
            _DIES.write(out, value.dies)
            _CALLS.write(out, _CALL_WORDS[value.once])
            _write_operands(out, value)
            return
        if self.depth >= MAX_COMMAND_LOOP_DEPTH:
            out.fail(f"command loops are nested deeper than {MAX_COMMAND_LOOP_DEPTH}")
        out.byte(_LOOP_OPCODE)
        _command_loop_record(self.depth).write(out, value)

    def read(self, source: ByteReader) -> Command | CommandLoop:
        start = source.offset
        opcode = source.byte()
        if opcode != _LOOP_OPCODE:
            row = _known_row(source, opcode, commands=True)
            source.enter(row.mnemonic)
            dies = _DIES.read(source)
            once = _CALL_WORDS.index(_CALLS.read(source))
            operands = _read_operands(source, row)
            source.leave()
            return Command(row.mnemonic, operands, dies, bool(once))
        if self.depth >= MAX_COMMAND_LOOP_DEPTH:
            source.fail(f"command loops are nested deeper than {MAX_COMMAND_LOOP_DEPTH}", start)
        loop: CommandLoop = _command_loop_record(self.depth).read(source)
        return loop


@cache
def _command_loop_record(depth: int) -> Record:
    return Record(CommandLoop, (("count", Unsigned(U32)), ("body", Sequence(_Stream(depth + 1)))))


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of the program that later fields refer to by index."""

    name: str
    entries: Sequence

    def write(self, out: ByteWriter, value: tuple[object, ...]) -> None:
        self.entries.write(out, value)
        out.counts[self.name] = len(value)

    def read(self, source: ByteReader) -> tuple[object, ...]:
        entries = self.entries.read(source)
        source.counts[self.name] = len(entries)
        return entries


_KERNEL: Final = Record(
    Kernel,
    (
        ("name", Text()),
        ("multicast", Choice(MULTICAST_MODES)),
        ("semaphores", Sequence(Unsigned(U32))),
        ("nests", Sequence(_Nest())),
    ),
)
_PROGRAM: Final = Record(
    Program,
    (
        ("name", Text()),
        ("machine", Text()),
        ("machine_digest", Text()),
        ("dies", Unsigned(U8)),
        ("l2_bytes", Unsigned()),
        ("tensor_buffer_bytes", Unsigned()),
        ("hbm_bytes", Unsigned()),
        ("useful_macs", Unsigned()),
        ("descriptors", _Table("descriptor", Sequence(_DESCRIPTOR))),
        ("kernels", _Table("kernel", Sequence(_KERNEL))),
        ("commands", Sequence(_Stream())),
        ("inputs", Sequence(_PORT)),
        ("outputs", Sequence(_PORT)),
        ("constants", Sequence(_CONSTANT)),
    ),
)


@cache
def stream_digest() -> bytes:
    """SHA-256 over the instruction table and every list of words that the stream refers to by number."""
    words = (FILLS, LOOP_KINDS, LOOP_LEVELS, MAPPINGS, MULTICAST_MODES, SPACES, _DTYPE_NAMES)
    return hashlib.sha256(repr((isa_digest(), words)).encode()).digest()


def encode_program(program: Program) -> bytes:
    """The bytes of a program. Raises `InternalError`, naming the field, for a value that its field cannot
    hold."""
    out = ByteWriter()
    out.data += MAGIC
    out.byte(FORMAT_VERSION)
    out.unsigned(ISA_VERSION)
    out.data += stream_digest()
    _PROGRAM.write(out, program)
    return bytes(out.data)


def decode_program(data: bytes) -> Program:
    """The program that the bytes stand for.

    Raises `BadPackageError` with byte offset and field for everything that is not a program of this
    instruction set. Only the form is checked here; what the program does is the verifier's affair.
    """
    source = ByteReader(data)
    source.enter("header")
    _check_header(source)
    source.leave()
    program: Program = _PROGRAM.read(source)
    if source.remaining:
        source.fail(f"{source.remaining} bytes follow the program")
    return program


def _check_header(source: ByteReader) -> None:
    if source.take(min(len(MAGIC), source.remaining)) != MAGIC:
        source.fail("is not a program: it does not begin with BIRCPROG", 0)
    start = source.offset
    version = source.byte()
    if version != FORMAT_VERSION:
        source.fail(f"format version {version}, this birc reads {FORMAT_VERSION}", start)
    start = source.offset
    isa = source.unsigned()
    if isa != ISA_VERSION:
        source.fail(f"instruction set version {isa}, this birc has {ISA_VERSION}", start)
    start = source.offset
    if source.take(len(stream_digest())) != stream_digest():
        source.fail("the instruction table differs from this birc's: compile the model again", start)
