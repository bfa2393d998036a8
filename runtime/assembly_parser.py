"""Parses the assembly text of programs and kernels.

Indentation nests, two blanks a level; `;` begins a comment. Every error has line and column.
"""

from __future__ import annotations

from typing import Final

from birc.runtime.assembly import INDENT
from birc.runtime.assembly_fields import DIES, parse_affine, parse_list, parse_mask, parse_operand, parse_sync
from birc.runtime.dtypes import DTYPES
from birc.runtime.field_ranges import I64, MAX_COMMAND_LOOP_DEPTH, U8, U32, U64, Range
from birc.runtime.isa import BY_MNEMONIC, ISA_VERSION, InstructionRow
from birc.runtime.program import (
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
    Sync,
)
from birc.runtime.scanner import Scanner

_DTYPES: Final = tuple(entry.name for entry in DTYPES)


def parse_program(text: str) -> Program:
    """The program that the text describes. Raises `BadPackageError` with line and column."""
    return _Parser(text).program()


def parse_kernel(text: str) -> Kernel:
    """The kernel that the text describes. Raises `BadPackageError` with line and column."""
    parser = _Parser(text)
    kernel = parser.kernel(0)
    parser.expect_end()
    return kernel


class _Parser:
    """Goes through the lines that are neither empty nor comments."""

    __slots__ = ("_lines", "_next")

    def __init__(self, text: str) -> None:
        numbered = enumerate(text.split("\n"), 1)
        lines = ((number, line) for number, line in numbered if line.split(";")[0].strip())
        self._lines = [(len(line) - len(line.lstrip()), Scanner(line, number)) for number, line in lines]
        end = Scanner("", text.count("\n") + 1)
        self._lines.append((-1, end))
        self._next = 0

    # --- lines ---

    @property
    def _line(self) -> Scanner:
        return self._lines[self._next][1]

    def _begins(self, word: str) -> bool:
        """Take `word` from a line without indentation, if it begins with it."""
        return self._lines[self._next][0] == 0 and self._line.accept(word)

    def _nested(self, depth: int) -> bool:
        """Whether the next line stands at this depth; one that is indented further is refused."""
        indent, line = self._lines[self._next]
        if indent > depth * len(INDENT):
            line.fail(f"is indented by {indent}, expected at most {depth * len(INDENT)}", indent + 1)
        return indent == depth * len(INDENT)

    def _end_line(self) -> None:
        self._line.expect_end()
        self._next += 1

    def expect_end(self) -> None:
        """Refuse anything that is left."""
        if self._next < len(self._lines) - 1:
            self._line.fail("expected the end of the text")

    # --- the program ---

    def program(self) -> Program:
        self._expect("program")
        name = self._line.string()
        self._end_line()
        self._isa()
        self._expect("machine")
        machine, digest = self._line.string(), self._line.string()
        self._end_line()
        dies = self._number("dies", U8)
        sizes = {name: self._number(name, U64) for name in ("l2_bytes", "tensor_buffer_bytes", "hbm_bytes")}
        useful_macs = self._number("useful_macs", U64)
        descriptors: list[Descriptor] = []
        while self._lines[self._next][0] == 0 and self._line.follows(r"d[0-9]"):
            descriptors.append(self._descriptor(len(descriptors)))
        kernels: list[Kernel] = []
        while self._line.follows("kernel"):
            kernels.append(self.kernel(len(kernels)))
        self._expect("commands")
        self._end_line()
        commands = self._commands(1)
        inputs, outputs = self._ports("input"), self._ports("output")
        constants = self._constants()
        self.expect_end()
        return Program(
            name=name,
            machine=machine,
            machine_digest=digest,
            dies=dies,
            **sizes,
            descriptors=tuple(descriptors),
            kernels=tuple(kernels),
            commands=commands,
            inputs=inputs,
            outputs=outputs,
            constants=constants,
            useful_macs=useful_macs,
        )

    def _expect(self, word: str) -> None:
        if not self._begins(word):
            self._line.fail(f"expected a line that begins with {word!r}")

    def _number(self, name: str, limits: tuple[int, int]) -> int:
        self._expect(name)
        value = self._line.integer(limits)
        self._end_line()
        return value

    def _isa(self) -> None:
        line = self._line
        version = self._number("isa", U32)
        if version != ISA_VERSION:
            line.fail(f"instruction set version {version}, this birc has {ISA_VERSION}")

    def _descriptor(self, number: int) -> Descriptor:
        line = self._line
        self._expect_number(line, line.numbered("d", U32), number)
        space = line.choice(SPACES)
        address = line.integer(U64)
        dtype = line.choice(_DTYPES)
        dims = self._named_list("dims", U64, MAX_BOX_RANK)
        strides = self._named_list("strides", I64, MAX_BOX_RANK)
        origin = self._named_list("origin", I64, MAX_BOX_RANK) if line.follows("origin") else ()
        mapping = MAPPINGS[0] if line.at_end() else line.choice(MAPPINGS)
        self._end_line()
        return Descriptor(space, address, dtype, dims, strides, origin, mapping)

    def _expect_number(self, line: Scanner, found: int, expected: int) -> None:
        if found != expected:
            line.fail(f"number {found}, expected {expected}: they are counted from 0")

    def _named_list(self, name: str, limits: Range, longest: int | None = None) -> tuple[int, ...]:
        self._line.expect(name)
        self._line.expect("=")
        return parse_list(self._line, limits, longest)

    def _ports(self, kind: str) -> tuple[Port, ...]:
        ports = []
        while self._begins(kind):
            line = self._line
            name, dtype, shape = line.string(), line.choice(_DTYPES), parse_list(line, U64)
            self._end_line()
            pieces = []
            while self._nested(1):
                pieces.append(self._piece())
            ports.append(Port(name, dtype, shape, tuple(pieces)))
        return tuple(ports)

    def _piece(self) -> Piece:
        self._line.expect("piece")
        descriptor = self._line.numbered("d", U32)
        start, shape = self._named_list("start", I64), self._named_list("shape", U64)
        dies = self._dies()
        self._end_line()
        return Piece(dies, descriptor, start, shape)

    def _dies(self) -> int:
        self._line.expect("on")
        return parse_mask(self._line, DIES)

    def _constants(self) -> tuple[ConstantImage, ...]:
        constants = []
        while self._begins("constant"):
            line = self._line
            key = line.string()
            numbers = []
            for name in ("bytes", "address"):
                line.expect(name)
                line.expect("=")
                numbers.append(line.integer(U64))
            constants.append(ConstantImage(key, numbers[0], numbers[1], self._dies()))
            self._end_line()
        return tuple(constants)

    # --- kernels ---

    def kernel(self, number: int) -> Kernel:
        """A kernel and its nests."""
        self._expect("kernel")
        line = self._line
        self._expect_number(line, line.integer(U32), number)
        name = line.string()
        line.expect("multicast")
        line.expect("=")
        multicast = line.choice(MULTICAST_MODES)
        line.expect("semaphores")
        line.expect("=")
        semaphores = parse_list(line, U32)
        self._end_line()
        return Kernel(name, self._nests(0), semaphores, multicast)

    def _nests(self, depth: int) -> tuple[Loop | Instruction, ...]:
        items = []
        while self._nested(depth + 1):
            items.append(self._nest(depth))
        return tuple(items)

    def _nest(self, depth: int) -> Loop | Instruction:
        line = self._line
        column = line.column
        word = line.word()
        if word not in LOOP_KINDS:
            return self._instruction(word, column)
        if depth >= MAX_LOOP_DEPTH:
            line.fail(f"loops are nested deeper than {MAX_LOOP_DEPTH}", column)
        column = line.column
        if line.numbered("i", U32) != depth:
            line.fail(f"the variable of this loop is i{depth}", column)
        line.expect("0")
        line.expect(":")
        extent = line.integer(U32)
        level = line.choice(LOOP_LEVELS) if line.accept("@") else LOOP_LEVELS[0]
        limit = None
        if line.accept("limit"):
            line.expect("=")
            limit = parse_affine(line)
        self._end_line()
        return Loop(word, extent, self._nests(depth + 1), level, limit)

    def _instruction(self, mnemonic: str, column: int) -> Instruction:
        row = self._row(mnemonic, column, commands=False)
        line = self._line
        program = line.integer(U8) if row.engine == "vector" and line.accept(".") else 0
        operands = self._operands(row)
        waits = self._syncs("wait")
        posts = self._syncs("post")
        self._end_line()
        return Instruction(mnemonic, operands, waits, posts, program)

    def _row(self, mnemonic: str, column: int, *, commands: bool) -> InstructionRow:
        row = BY_MNEMONIC.get(mnemonic)
        if row is None or (row.engine == "command") != commands:
            self._line.fail(f"there is no {'command' if commands else 'instruction'} {mnemonic!r}", column)
        return row

    def _operands(self, row: InstructionRow) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        for number, field in enumerate(row.fields):
            if number:
                self._line.expect(",")
            operands.append(parse_operand(self._line, field))
        return tuple(operands)

    def _syncs(self, word: str) -> tuple[Sync, ...]:
        if not self._line.accept(word):
            return ()
        syncs = [parse_sync(self._line)]
        while self._line.accept(","):
            syncs.append(parse_sync(self._line))
        return tuple(syncs)

    # --- commands ---

    def _commands(self, depth: int) -> tuple[Command | CommandLoop, ...]:
        items = []
        while self._nested(depth):
            items.append(self._command(depth))
        return tuple(items)

    def _command(self, depth: int) -> Command | CommandLoop:
        line = self._line
        column = line.column
        word = line.word()
        if word == "loop":
            if depth > MAX_COMMAND_LOOP_DEPTH:
                line.fail(f"command loops are nested deeper than {MAX_COMMAND_LOOP_DEPTH}", column)
            count = line.integer(U32)
            self._end_line()
            return CommandLoop(count, self._commands(depth + 1))
        operands = self._operands(self._row(word, column, commands=True))
        dies = self._dies()
        once = line.accept("once")
        self._end_line()
        return Command(word, operands, dies, once)
