"""Programs as bytes: round trips, compactness, and what is refused with which offset and field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from programs import Case, cases, gemm

from birc.runtime import assembly_fields, codec_fields, isa_document
from birc.runtime.codec import MAGIC, decode_program, encode_program
from birc.runtime.errors import BadPackageError, InternalError
from birc.runtime.isa import BY_OPCODE, COMMANDS, INSTRUCTIONS
from birc.runtime.program import Affine, Instruction, Kernel, Loop, Program
from birc.runtime.sampler import KINDS, Sampler

HEADER = len(MAGIC) + 2 + 32


def around(*instructions: Instruction | Loop) -> Program:
    """A program of one kernel."""
    return Program("p", "tiny", "", 1, 0, 0, 0, (), (Kernel("k", instructions),), (), (), (), ())


def test_every_kind_of_field_has_bytes_text_a_sampler_and_a_line_in_the_document() -> None:
    used = {field.kind for row in INSTRUCTIONS + COMMANDS for field in row.fields}
    for table in (codec_fields.KINDS, assembly_fields.KINDS, KINDS):
        assert used <= set(table)
    document = isa_document.isa_document()
    assert all(f"\n| {kind} |" in document for kind in used)
    assert all(f"| `{row.mnemonic}` |" in document for row in INSTRUCTIONS + COMMANDS)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_handmade_programs_survive(case: Case) -> None:
    data = encode_program(case.program)
    assert decode_program(data) == case.program
    assert encode_program(case.program) == data
    assert len(data) < 800


def test_ten_thousand_random_instructions_survive() -> None:
    sampler = Sampler(np.random.default_rng(1))
    rounds = 10_000 // len(INSTRUCTIONS) + 1
    program = around(*(sampler.instruction(row) for row in INSTRUCTIONS for _ in range(rounds)))
    assert len(program.kernels[0].nests) >= 10_000
    assert decode_program(encode_program(program)) == program


def test_random_programs_survive() -> None:
    sampler = Sampler(np.random.default_rng(2))
    for _ in range(100):
        program = sampler.program()
        assert decode_program(encode_program(program)) == program


def test_damaged_bytes_give_our_error_or_another_program() -> None:
    """Whatever the bytes, nothing but `BadPackageError` is raised, and no two byte strings mean the same."""
    rng = np.random.default_rng(3)
    originals = [encode_program(case.program) for case in cases()]
    originals += [encode_program(Sampler(rng).program()) for _ in range(10)]
    for number in range(3000):
        data = bytearray(originals[number % len(originals)])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(HEADER, len(data))] = rng.choice([0, 1, 2, 3, 127, 128, 255, rng.integers(256)])
        if number % 3 == 0:
            del data[rng.integers(len(data)) :]
        try:
            program = decode_program(bytes(data))
        except BadPackageError as error:
            assert error.where is not None
            assert error.where.startswith("byte ")
        else:
            assert encode_program(program) == bytes(data)


def test_every_truncation_is_refused() -> None:
    data = encode_program(gemm().program)
    for length in range(len(data)):
        with pytest.raises(BadPackageError, match=r"^byte \d+, "):
            decode_program(data[:length])


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"X", "byte 0, header: is not a program"),
        (len(MAGIC), b"\x09", "byte 8, header: format version 9"),
        (len(MAGIC) + 1, b"\x09", "byte 9, header: instruction set version 9"),
        (len(MAGIC) + 2, b"\0\0", "byte 10, header: the instruction table differs"),
    ],
)
def test_other_headers_are_refused(offset: int, value: bytes, message: str) -> None:
    data = bytearray(encode_program(gemm().program))
    data[offset : offset + len(value)] = value
    with pytest.raises(BadPackageError, match=message):
        decode_program(bytes(data))


def last_instruction(instruction: Instruction) -> tuple[bytearray, int]:
    """A program of one instruction, and the offset of its opcode; four empty tables follow it."""
    data = bytearray(encode_program(around(instruction)))
    empty = bytearray(encode_program(around()))
    return data, len(empty) - 4


def test_errors_name_offset_and_field() -> None:
    tile = Instruction("tmma", (*gemm_rings(), 64, 64, 64, "bf16", 0))
    data, start = last_instruction(tile)
    assert data[start] in BY_OPCODE
    unknown = bytearray(data)
    unknown[start] = 0x7F
    refused(unknown, f"byte {start}, kernels.0.nests.0: unknown instruction 0x7f")
    command = bytearray(data)
    command[start] = 0x82
    refused(command, "unknown instruction 0x82")
    rows = start + 2 + 2 * 6  # opcode, numbers of waits and posts, two ring addresses
    assert data[rows] == 64
    for value in (0, 65):
        wrong = bytearray(data)
        wrong[rows] = value
        refused(wrong, f"byte {rows}, kernels.0.nests.0.tmma.m: {value} is outside 1:65")
    wrong = bytearray(data)
    wrong[rows + 3] = 3
    refused(wrong, f"byte {rows + 3}, kernels.0.nests.0.tmma.format: choice 3, there are 3")
    refused(data + b"\0", "1 bytes follow the program")


def gemm_rings() -> tuple[object, object]:
    first = next(i for i in gemm().program.kernels[0].instructions() if i.mnemonic == "tmma").operands[0]
    plain = replace(first, base=Affine(), stride=0, index=Affine(), modulo=1)
    return plain, plain


def refused(data: bytearray, message: str) -> None:
    with pytest.raises(BadPackageError) as caught:
        decode_program(bytes(data))
    assert message in str(caught.value)
    assert caught.value.exit_code == 6


def test_a_claimed_length_is_compared_with_what_is_left() -> None:
    """A name of 2^62 bytes must not be allocated."""
    data = encode_program(around())[:HEADER] + b"\xff" * 8 + b"\x3f"
    with pytest.raises(BadPackageError, match="entries are claimed"):
        decode_program(data)


def test_values_beyond_their_field_cannot_be_encoded() -> None:
    wait = Instruction("vmov", (gemm_register(), 1.0))
    with pytest.raises(InternalError, match=r"kernels\.0\.nests\.0\.tmma\.k: 513 is outside"):
        encode_program(around(Instruction("tmma", (*gemm_rings(), 1, 1, 513, "bf16", 0))))
    with pytest.raises(InternalError, match="no instruction 'launch'"):
        encode_program(around(Instruction("launch", (1, "x"))))
    with pytest.raises(InternalError, match="2 operands, not 1"):
        encode_program(around(replace(wait, operands=(gemm_register(),))))
    with pytest.raises(InternalError, match="32-bit float"):
        encode_program(around(replace(wait, operands=(gemm_register(), 1e39))))
    deep: Instruction | Loop = wait
    for _ in range(13):
        deep = Loop("par", 1, (deep,))
    with pytest.raises(InternalError, match="nested deeper than 12"):
        encode_program(around(deep))


def gemm_register() -> object:
    return next(i for i in gemm().program.kernels[0].instructions() if i.mnemonic == "vacc").operands[0]
