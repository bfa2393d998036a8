"""Convolutions by windows in the plan: which products may be one, and what their tilings must keep to."""

from __future__ import annotations

import pytest

from birc.compiler.ir.errors import InvalidIRError
from birc.compiler.ir.plan import KernelStep
from birc.compiler.ir.plan_parser import parse_plan
from birc.compiler.ir.plan_patch import Patch, Side, loaded_pixels, patch_of, patch_problems, slot_bytes
from birc.compiler.ir.plan_printer import print_plan
from birc.compiler.ir.plan_verify import verify_plan
from birc.runtime.machine import load_machine

TILE = "tile [n 1, y 8, x 8, o 32, c 32, r 1, s 1] resident 2 slots 1 and 6 windows [r, s]"
VALID = f"""\
plan "convolution" on br100 dies 1 precision bf16 macs 0 {{
  buffer %x : bf16 65536 bytes input in hbm
  buffer %w : bf16 65536 bytes constant in hbm
  buffer %y : bf16 65536 bytes output in hbm
  run {{
    kernel "k" {{
      space [par n 2, par y 12, par x 10, par o 32, red c 64, red r 3, red s 2]
      contract bf16 rows 3 [n, y, x] columns [o] depth 3
        a = %x[n, y +2 r -2, x +1 s -1, c] dims [2, 12, 10, 64] strides [7680, 640, 64, 1]
        b = %w[r, s, c, o] dims [3, 2, 64, 32] strides [4096, 2048, 32, 1]
      {TILE}
      phase {{
        v0 = vacc
        vst(v0) %y[n, y, x, o] dims [2, 12, 10, 32] strides [3840, 320, 32, 1]
      }}
    }}
  }}
}}
"""
MACHINE = load_machine("br100")


def kernel_of(text: str):
    (step,) = parse_plan(text).steps
    assert isinstance(step, KernelStep)
    return step.kernel


def problems_of(text: str, phase: str = "tile") -> tuple[str, ...]:
    try:
        verify_plan(parse_plan(text), phase)
    except InvalidIRError as error:
        return error.problems
    return ()


def test_the_valid_plan_is_valid_and_its_text_keeps_the_windows() -> None:
    plan = parse_plan(VALID)
    assert problems_of(VALID) == ()
    assert parse_plan(print_plan(plan)) == plan
    assert plan.steps[0].kernel.tiling.taps == ("r", "s")


def test_the_image_is_found() -> None:
    kernel = kernel_of(VALID)
    patch = patch_of(kernel)
    assert patch == Patch(Side(1, "y", "r", 2), Side(2, "x", "s", 1))
    tile, extents = {"y": 8, "x": 8}, {"r": 3, "s": 2}
    assert patch.taps == ("r", "s")
    assert (patch.rows.patch(tile, extents), patch.columns.patch(tile, extents)) == (12, 9)
    assert patch.pixels(tile, extents) == 108
    assert list(patch_problems(patch, kernel, kernel.contraction, MACHINE)) == []
    # Rows -2:10 and 6:18 of 12, columns -1:8 and 7:16 of 10.
    assert loaded_pixels(patch, kernel, kernel.contraction, tile) == (10 + 6) / 2 * (8 + 3) / 2
    # 108 pixels and 64 columns of 32 elements; a patch begins at a multiple of 512 bytes.
    assert slot_bytes(kernel, kernel.contraction, kernel.tiling, MACHINE) == (7168, 4096)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("y +2 r -2", "2 y +2 r -2"),  # every second row
        ("y +2 r -2", "y +2 r +1 c -2"),  # moves with the depth too
        ("n, y +2 r -2, x +1 s -1, c]", "n, y +2 r -2, x +1 s -1, c +1 s]"),
        ("n, y +2 r -2, x +1 s -1, c]", "n +1 r, y, x +1 s -1, c]"),  # a tap chooses the image
        ("red r 3, red s 2]", "red r 3, red s 2, red q 1]"),
    ],
)
def test_what_is_no_image_has_no_windows(old: str, new: str) -> None:
    changed = VALID.replace(old, new)
    expected = Patch(Side(1, "y", "r", 2), Side(2, "x", "s", 1)) if "red q" in new else None
    assert patch_of(kernel_of(changed)) == expected
    assert problems_of(changed)


LINES = (
    VALID.replace("par n 2", "par n 16").replace("[2, 12", "[16, 12").replace("65536", "1048576")
    .replace("red r 3, red s 2]", "red s 2, red r 3]")
    .replace(TILE, "tile [n 8, y 8, x 1, o 32, c 32, r 1, s 1] resident 2 slots 2 and 6 windows [r]")
)  # fmt: skip


def test_a_line_of_pixels_and_samples_are_an_image() -> None:
    assert problems_of(LINES) == ()
    kernel = kernel_of(LINES)
    patch = patch_of(kernel, ("r",))
    assert patch == Patch(Side(0, "n"), Side(1, "y", "r", 2))
    assert patch_of(kernel, ("s",)) == Patch(Side(0, "n"), Side(2, "x", "s", 1))
    # Lines of 8 + 4 pixels, of 8 samples; the column beside them is another image.
    assert slot_bytes(kernel, kernel.contraction, kernel.tiling, MACHINE)[0] == 8 * 12 * 64
    assert loaded_pixels(patch, kernel, kernel.contraction, dict(kernel.tiling.tile)) == 8 * (10 + 6) / 2


FOLDED = (
    LINES.replace("par n 16, par y 12, par x 10", "par x 10, par y 12, par n 16").replace("[n, y, x]", "[x, y, n]")
    .replace("%x[n, y +2 r -2, x +1 s -1, c] dims [16, 12, 10, 64] strides [7680, 640, 64, 1]",
             "%x[x +1 s -1, y +2 r -2, n, c] dims [10, 12, 16, 64] strides [64, 640, 7680, 1]")
    .replace("%y[n, y, x, o] dims [16, 12, 10, 32] strides [3840, 320, 32, 1]",
             "%y[x, y, n, o] dims [10, 12, 16, 32] strides [32, 320, 3840, 1]")
    .replace("n 8, y 8, x 1", "n 16, y 4, x 1")
)  # fmt: skip


def test_a_pixel_of_many_samples_counts_as_several_rows() -> None:
    assert problems_of(FOLDED) == ()
    kernel = kernel_of(FOLDED)
    patch = patch_of(kernel, ("r",))
    assert patch == Patch(Side(1, "y", "r", 2), Side(2, "n"))
    tile = dict(kernel.tiling.tile)
    assert (patch.fold(tile, 8), patch.fold({**tile, "n": 8}, 8), patch.fold({**tile, "n": 12}, 8)) == (2, 1, 1)
    # 4 + 4 pixels of 16 samples.
    assert slot_bytes(kernel, kernel.contraction, kernel.tiling, MACHINE)[0] == 8 * 16 * 64


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("n 16, y 4, x 1", "n 16, y 5, x 1", "a window has 5 pixels along y, at most 4"),
        ("n 16, y 4, x 1", "n 12, y 4, x 1", "a window has 12 pixels along n, at most 8"),
        ("red r 3", "red r 5", "taps along r move a window by 16 rows, at most 12"),
    ],
)
def test_what_many_samples_must_keep_to(old: str, new: str, what: str) -> None:
    assert old in FOLDED
    found = problems_of(FOLDED.replace(old, new))
    assert any(what in problem for problem in found), found


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("n 8, y 8, x 1", "n 4, y 8, x 2", "a window spans 2 of x, which counts no pixels of an image"),
        ("n 8, y 8, x 1", "n 9, y 7, x 1", "a window has 9 pixels along n, at most 8"),
        ("c 32, r 1, s 1", "c 32, r 1, s 2", "a load brings"),
        ("windows [r]", "windows [s]", "not the innermost resident depth loops"),
    ],
)
def test_what_lines_must_keep_to(old: str, new: str, what: str) -> None:
    assert old in LINES
    found = problems_of(LINES.replace(old, new))
    assert any(what in problem for problem in found), found


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("red r 3", "red r 8", "8 taps along r, at most 7"),
        ("y +2 r -2", "y +3 r -2", "a dilation of 3 along r, 1 to 2"),
        ("x +1 s -1", "x -1 s", "a dilation of -1 along s, 1 to 2"),
        ("x +1 s -1", "x +1 s -4", "a border of 4 pixels along x, at most 3"),
        ("y +2 r -2", "y +2 r", "a border of 4 pixels along y, at most 3"),
        ("y 8, x 8", "y 7, x 9", "a window has 9 pixels along x, at most 8"),
        ("n 1, y 8, x 8", "n 2, y 4, x 8", "a window spans 2 of n, which counts no pixels"),
        ("r 1, s 1", "r 3, s 1", "an operation takes 3 taps along r, must be 1"),
        ("red c 64, red r 3, red s 2]", "red r 3, red s 2, red c 64]", "not the innermost resident depth loops"),
        ("resident 2", "resident 1", "not the innermost resident depth loops"),
        ("windows [r, s]", "windows [r]", "a window spans 8 of x, which counts no pixels"),
        ("windows [r, s]", "windows [r, q]", "moves windows with r, q"),
        ("slots 1 and 6", "slots 37 and 6", "operand a needs 265216 B"),
        ("slots 1 and 6", "slots 1 and 65", "operand b needs 266240 B"),
        ("slots 1 and 6", "slots 1 and 5", "operand b has 5 slots, 6 of its tiles are in use at once"),
        ("resident 2 slots 1 and 6", "block 2 by 1 resident 3 slots 3 and 12", "operand a has 3 slots, 4 of its tiles"),
    ],
)
def test_every_broken_rule_is_reported(old: str, new: str, what: str) -> None:
    assert old in VALID
    assert any(what in problem for problem in problems_of(VALID.replace(old, new))), problems_of(
        VALID.replace(old, new)
    )
