"""The reference of the instruction set as a document, made from the table."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from birc.runtime.field_ranges import NUMBER_KINDS, number_range
from birc.runtime.isa import COMMANDS, ISA_VERSION, TCORE, VECTOR, Field, InstructionRow, isa_digest
from birc.runtime.program import FILLS, MAX_BOX_RANK, MAX_LOOP_DEPTH

_INTRODUCTION: Final = f"""\
# Instruction set

Version {ISA_VERSION}, digest `{isa_digest()[:16]}`. This page is generated from the instruction table
(`runtime/isa.py`). Biren's instruction set is closed: names and encodings are birc's own; what the
instructions do, their tile shapes and limits follow Biren's public documents.

## How a program is read

A program is one sequential list: commands, and in each kernel loop nests of instructions. Read top to bottom,
one instruction of one iteration after the other, it defines every value. The hardware's queues execute their
parts of the list asynchronously; semaphores, events and barriers have to make every such execution give these
values.

Each SPC has the queues `load_a`, `load_b` and `compute` of the T-core and one queue for each vector program.
An instruction's `wait` takes one count of a semaphore before it starts and blocks at zero; its `post` adds
one when it is done. Both can be limited to the first or last iterations of loops around the instruction.

Loops nest at most {MAX_LOOP_DEPTH} deep and are `par` (independent iterations), `red` (accumulating) or `seq`
(ordered). Loop variables are `i0`, `i1`, ... by depth. A loop of level `@spc` spreads its iterations over the
SPCs of a die, `@program` over the vector programs.

A command with `once` behind its dies is executed in the first call only: a copy that brings a constant from HBM to
L2, where nothing else writes, or the wait for it. Calls that follow on a device that ran no other program in between
leave such commands out and find what they brought.

## Operands
"""

_KINDS: Final = MappingProxyType(
    {
        "enum": ("`name=word`", "One of the words listed."),
        "mask": ("`first={i2, i3}`, `axes={0}`", "A set of loops, or of a register's axes."),
        "shape": ("`shape=[64, 64]`", f"At most {MAX_BOX_RANK} extents."),
        "descriptor": ("`d3`", "A descriptor: space, address, type, dims and strides of a tensor."),
        "kernel": ("`k0`", "A kernel of the program."),
        "text": ('`"main"`', "A text, escaped as in JSON."),
        "f32": ("`1.5`", "A 32-bit float."),
        "register": ("`v3`, `v(i1+2)`", "A vector register; the number is affine in loop variables."),
        "source": ("`v3`, `0.5`", "A register or an immediate."),
        "box": (
            "`t0[64*i1:64, 2*i2-1:8:2] or zero`",
            f"Start, extent and step on each of at most {MAX_BOX_RANK} axes of the tensor bound in a slot; "
            f"`or` says what a load gives out of bounds: {', '.join(FILLS)}.",
        ),
        "ring": (
            "`@64 ring 8192*(i1 % 2)`",
            "An address in an input buffer: base + stride * (index mod modulo).",
        ),
        "window": (
            "`window[i2:8, i3:8 of 10]`",
            "Pixels of a patch: start and extent of its rows and of its columns, and the pixels in a row of the patch.",
        ),
        "advance": (
            "`advance=[4096]`",
            "Bytes added for each iteration of the command loops, outermost first.",
        ),
    }
)


def isa_document() -> str:
    """The reference as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    yield "| kind | text | meaning |"
    yield "| --- | --- | --- |"
    for kind, (low, high) in NUMBER_KINDS.items():
        yield f"| {kind} | `name=7` | A whole number from {low} to {high - 1}. |"
    for kind, (text, meaning) in _KINDS.items():
        yield f"| {kind} | {text} | {meaning} |"
    sections = (("T-core instructions", TCORE), ("Vector instructions", VECTOR), ("Commands", COMMANDS))
    for title, rows in sections:
        yield f"\n## {title}\n"
        yield "| opcode | mnemonic | operands | queue | pipe | effect | meaning |"
        yield "| --- | --- | --- | --- | --- | --- | --- |"
        for row in rows:
            yield _row_line(row)


def _row_line(row: InstructionRow) -> str:
    operands = ", ".join(_operand(field) for field in row.fields)
    effect = f"{', '.join(row.writes)} <- {', '.join(row.reads)}" if row.reads or row.writes else ""
    cells = (f"{row.opcode:#04x}", f"`{row.mnemonic}`", operands, row.engine, row.pipe, effect, row.doc)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _operand(field: Field) -> str:
    if field.kind == "enum":
        return f"{field.name}: {' or '.join(field.choices)}"
    if field.low is None and field.high is None:
        return f"{field.name}: {field.kind}"
    low, high = number_range(field)
    return f"{field.name}: {field.kind}, {low} to {high - 1}"
