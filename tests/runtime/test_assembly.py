"""Programs as text: round trips both ways, the look of each form, and errors with line and column."""

from __future__ import annotations

import numpy as np
import pytest
from programs import Case, cases

from birc.runtime.assembly import kernel_text, program_text
from birc.runtime.assembly_parser import parse_kernel, parse_program
from birc.runtime.errors import BadPackageError
from birc.runtime.isa import INSTRUCTIONS
from birc.runtime.program import Kernel
from birc.runtime.sampler import Sampler

KERNEL = """\
kernel 0 "k" multicast=dtg semaphores=[2, 0]
  par i0 0:4 @spc
    par i1 0:3 @program limit=i0-1
      tlda @8192*i1, t0[64*i0:64, -2*i0+i1-3:8:-2] or lowest, rows=1, format=bf16 wait s0 post s1
      tlda @64 ring 8192*(i0+2*i1 % 2), t0[0:64, 0:8], rows=1, format=tf32p wait s(i0+1) last={i0, i1}
      vadd.3 v0, v(2*i0+1), 0.1
      vredsum v1, v0, axes={0, 2}
      vfoldmax v2, inf, first={i1}
    red i1 0:0
  vmovi v31, -1.5, shape=[64, 64]
"""


def test_the_text_of_a_kernel_reads_back_as_it_was() -> None:
    assert kernel_text(parse_kernel(KERNEL)) == KERNEL


def test_blanks_and_comments_do_not_count() -> None:
    spaced = KERNEL.replace(",", " , ").replace("+", " + ").replace("\n", "   ; a remark\n")
    assert parse_kernel("; a heading\n\n" + spaced) == parse_kernel(KERNEL)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_handmade_programs_survive(case: Case) -> None:
    text = program_text(case.program)
    assert parse_program(text) == case.program
    assert program_text(parse_program(text)) == text


def test_ten_thousand_random_instructions_survive() -> None:
    sampler = Sampler(np.random.default_rng(4))
    rounds = 10_000 // len(INSTRUCTIONS) + 1
    kernel = Kernel("k", tuple(sampler.instruction(row) for row in INSTRUCTIONS for _ in range(rounds)))
    text = kernel_text(kernel)
    assert parse_kernel(text) == kernel
    assert text.count("\n") > 10_000


def test_random_programs_survive() -> None:
    sampler = Sampler(np.random.default_rng(5))
    for _ in range(50):
        program = sampler.program()
        assert parse_program(program_text(program)) == program


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("par i1 0:3", "par i2 0:3", "3:9: the variable of this loop is i1"),
        ("par i1 0:3", "loop i1 0:3", "3:5: there is no instruction 'loop'"),
        ("@program", "@lane", "3:17: 'lane' is none of tile, spc, program"),
        ("      vadd.3", "    vadd.3", "7:7: is indented by 6, expected at most 4"),
        ("      vadd.3", "        vadd.3", "6:9: is indented by 8, expected at most 6"),
        ("vadd.3 v0, ", "vadd.3 v0 ", "6:17: expected ',', found 'v(2*i0+1), 0.1'"),
        ("rows=1, format=bf16", "rows=7, format=bf16", "4:68: 7 is outside 0:7"),
        ("format=bf16", "format=bf17", "4:78: 'bf17' is none of bf16, tf32p, s8"),
        ("format=bf16", "bf16", "expected 'format'"),
        ("v31, -1.5", "v31, 1e99", "10:14: 1e+99 is no 32-bit float"),
        ("v31, -1.5", "v31, 1e999", "10:14: 1e999 is too large"),
        (":8:-2", ":8:0", "4:48: a step of 0"),
        ("64*i0:64", "64*i12:64", "4:28: i12 is outside i0:i12"),
        ("64*i0:64", "9223372036854775808:64", "64 bits"),
        ("64*i0:64", "99999999999999999999999999:64", "4:"),
        ("axes={0, 2}", "axes={0, 2", "7:33: expected ',', found 'the end of the line'"),
        ("vmovi v31", "vmovi v31 x", "10:13: expected ','"),
        ("inf, first={i1}", "inf, first={i1} x", "8:36: unexpected 'x'"),
        ('"k"', '"\\k"', "1:10: a text with a bad escape"),
        ("kernel 0", "kernel 1", "number 1, expected 0"),
        ("  vmovi", "vmovi", "10:1: expected the end of the text"),
    ],
)
def test_errors_have_line_and_column(old: str, new: str, message: str) -> None:
    assert old in KERNEL
    text = KERNEL.replace(old, new, 1)
    with pytest.raises(BadPackageError) as caught:
        parse_kernel(text)
    assert message in str(caught.value)


def test_damaged_text_gives_our_error_or_another_program() -> None:
    rng = np.random.default_rng(6)
    original = program_text(cases()[5].program)
    for _ in range(1500):
        at = int(rng.integers(len(original)))
        text = original[:at] + str(rng.choice(list('x0{}[]()@":;-\n 9i'))) + original[at + int(rng.integers(3)) :]
        try:
            program = parse_program(text)
        except BadPackageError as error:
            assert error.where is not None
            line, column = error.where.split(":")
            assert int(line) >= 1
            assert int(column) >= 1
        else:
            assert parse_program(program_text(program)) == program
