"""Every failure: its exit code, one line that says what to do, and never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from birc.runtime.errors import DoesNotFitError, InternalError


def test_wrong_command_lines(fails, packed):
    assert "No such command 'rune'" in fails(2, "rune")
    assert "PKG.birc" in fails(2, "run")
    assert "--nonsense" in fails(2, "verify", packed, "--nonsense")
    assert "xml" in fails(2, "profile", packed, "--format", "xml")
    assert "there is no target 'br200'" in fails(2, "targets", "br200")
    assert "--help" in fails(2, "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--precision", "int8", "--batch", "2"), "no products of quantised operands"),
        (("--precision", "fp64"), "'--precision': 'fp64' is not one of 'model'"),
        (("--dim", "seq"), "write NAME=N"),
        (("--dim", "seq=0"), "write NAME=N"),
        (("--dim", "seq=x"), "write NAME=N"),
        (("--dim", "=3"), "write NAME=N"),
        (("--dim", "seq=1", "--dim", "seq=2"), "two values, 1 and 2"),
        (("--batch", "0"), "--batch"),
        (("--batch", "1,,2"), "write N, a whole number above 0, or N,M"),
        (("--dim", "seq=1,x"), "write NAME=N"),
        (("--batch", ",".join(map(str, range(1, 66)))), "65 combinations of sizes, the limit is 64 variants"),
        (("-O", "4"), "-O"),
        (("--stop-after", "lunch", "--dump-ir", "d"), "one of import, canonicalize"),
        (("--stop-after", "fuse"), "add --dump-ir DIR"),
        (("--target", "br200"), "there is no target 'br200'"),
        (("-o", "/"), "is a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_options_of_compile(fails, digits, arguments, message):
    assert message in fails(2, "compile", digits, *arguments)


def test_results_are_not_overwritten(fails, birc, digits, packed, tmp_path):
    for name in ("digits.birc", "out.npz", "text.asm", "gemm.birc"):
        (tmp_path / name).write_text("mine")
    birc("disasm", packed, "-o", "gemm.asm")
    for command in (
        ("compile", digits),
        ("run", packed, "--output", "out.npz"),
        ("disasm", packed, "-o", "text.asm"),
        ("asm", "gemm.asm", "--like", packed),
    ):
        assert "exists already (--overwrite replaces it)" in fails(2, *command)
    for name in ("digits.birc", "out.npz", "text.asm", "gemm.birc"):
        assert (tmp_path / name).read_text() == "mine"
    assert birc("disasm", packed, "-o", "text.asm", "--overwrite").code == 0


# --- models


def test_a_text_is_no_model(fails, tmp_path):
    (tmp_path / "text.onnx").write_text("not a model\n")
    assert "text.onnx" in fails(3, "compile", "text.onnx")
    assert "missing.onnx" in fails(3, "compile", "missing.onnx")


def test_a_truncated_model(fails, digits, tmp_path):
    content = digits.read_bytes()
    (tmp_path / "half.onnx").write_bytes(content[: len(content) // 2])
    assert "half.onnx" in fails(3, "compile", "half.onnx")


def test_all_unknown_operators_are_listed(fails, unsupported):
    line = fails(4, "compile", unsupported)
    for name in ("FirstUnknown", "SecondUnknown", "ThirdUnknown"):
        assert name in line


def test_a_model_that_does_not_fit(fails, digits, tmp_path):
    (tmp_path / "small.toml").write_text(
        'name = "small"\nvendor = "me"\nbase = "br100"\n[memory]\n'
        'hbm_bytes_per_die = { value = 400_000, unit = "B", source = "me", confidence = "stated" }\n'
    )
    line = fails(5, "compile", digits, "--batch", "2880", "--target", "small.toml", "-O", "1")
    assert "digits on small: " in line and "bytes must lie in HBM of a die, which has 400000;" in line
    assert "'image' of 368640 bytes (input)" in line
    assert "(what would fit: --batch 1" in line and "--target br100)" in line
    assert not list(tmp_path.glob("*.birc"))


# --- packages


def test_a_damaged_package(fails, packed, tmp_path):
    content = packed.read_bytes()
    for position in np.random.default_rng(1).integers(0, len(content), 10):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        (tmp_path / "damaged.birc").write_bytes(damaged)
        for command in ("run", "verify"):
            assert "damaged.birc" in fails(6, command, "damaged.birc")


@pytest.mark.parametrize("command", ["run", "profile", "inspect", "disasm", "verify"])
def test_what_is_no_package(fails, command, tmp_path):
    (tmp_path / "text.birc").write_text("no zip")
    assert "does not begin as a zip" in fails(6, command, "text.birc")
    assert "cannot be read: No such file" in fails(6, command, "missing.birc")
    assert "is a folder" in fails(6, command, tmp_path)


# --- inputs


def test_inputs_that_do_not_fit(fails, packed, tmp_path):
    right = {"a": np.zeros((150, 200), np.float32), "residual": np.zeros((150, 70), np.float32)}

    def fails_with(**arrays: np.ndarray) -> str:
        np.savez(tmp_path / "in.npz", **arrays)
        return fails(2, "run", packed, "--input", "in.npz")

    assert "input 'a' must be f32[150,200], got f32[1,200]" in fails_with(**{**right, "a": right["a"][:1]})
    assert "input 'a' must be f32[150,200], got i64[150,200]" in fails_with(**{**right, "a": right["a"].astype(int)})
    assert "input 'residual' was not given" in fails_with(a=right["a"])
    assert "there is no input 'x' (inputs: a, residual)" in fails_with(**right, x=right["a"])


def test_inputs_that_are_no_arrays(fails, packed, tmp_path):
    (tmp_path / "text.npz").write_text("not arrays")
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    for name in ("text.npz", "objects.npz"):
        assert "is not an .npz file" in fails(2, "run", packed, "--input", name)
    assert "one array without a name" in fails(2, "run", packed, "--input", "one.npy")
    assert "cannot be read: No such file" in fails(2, "run", packed, "--input", "missing.npz")


def test_a_reference_that_cannot_be_used(fails, packed, tmp_path):
    (tmp_path / "text.onnx").write_text("not a model")
    assert "text.onnx" in fails(3, "run", packed, "--check", "text.onnx")


# --- assembly


def test_wrong_assembly_has_line_and_column(fails, birc, packed, tmp_path):
    text = birc("disasm", packed).out
    (tmp_path / "wrong.asm").write_text(text.replace("tmma", "tmmb"))
    line = fails(2, "asm", "wrong.asm")
    number = next(n for n, found in enumerate(text.splitlines(), 1) if "tmma" in found)
    assert f"wrong.asm:line {number}" in line or f"wrong.asm:{number}" in line


def test_assembly_with_constants_needs_a_package(fails, birc, packed):
    birc("disasm", packed, "-o", "gemm.asm")
    assert "--like PKG.birc" in fails(2, "asm", "gemm.asm")


def test_the_verifier_refuses_wrong_assembly(fails, birc, packed, tmp_path):
    text = birc("disasm", packed).out
    (tmp_path / "wrong.asm").write_text(text.replace("hbm_bytes", "hbm_bytes 512 ;"))
    assert "verifier" in fails(6, "asm", "wrong.asm", "--like", packed)


# --- what should never happen


def test_an_unexpected_error_is_a_bug_with_a_report(fails, packed, tmp_path, monkeypatch):
    def break_down(*arguments):
        raise IndexError("list index\nout of range")

    monkeypatch.setattr("birc.cli.verify.open_package", break_down)
    line = fails(1, "verify", packed)
    assert "IndexError: list index out of range; this is a bug in birc" in line
    (report,) = tmp_path.glob("birc-bug-*.txt")
    assert str(report) in line
    text = report.read_text()
    assert f"birc verify {packed}" in text
    assert "break_down" in text
    assert "SHA-256" in text


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InternalError("two kernels are one", where="fuse"), 1, "this is a bug"),
        (
            DoesNotFitError("needs 5 bytes", where="net", hint="a smaller batch"),
            5,
            "net: needs 5 bytes (a smaller batch)",
        ),
        (MemoryError(), 8, "not enough memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RecursionError("too deep"), 1, "this is a bug"),
    ],
)
def test_exit_codes_of_exceptions(fails, packed, monkeypatch, error, code, words):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("birc.cli.verify.open_package", fail)
    assert words in fails(code, "verify", packed)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_shows_the_traceback(birc, place):
    arguments = ["verify", "missing.birc"]
    arguments.insert(place, "--debug")
    outcome = birc(*arguments)
    assert outcome.code == 6
    assert "Traceback" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: missing.birc")


def test_a_reader_that_leaves_is_no_error(packed):
    """`birc ops | head -1`: the pipe closes before all is written."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "birc.cli", "disasm", str(packed)],
        stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(write)
    assert done.returncode == 0
    assert done.stderr == ""


def test_interrupting_from_outside(tmp_path):
    """Control-C while a command works: exit code 130 and one line."""
    program = (
        "import os, signal, sys, birc.cli.verify as verify\n"
        "verify.open_package = lambda *a: os.kill(os.getpid(), signal.SIGINT) or signal.pause()\n"
        "from birc.cli.main import main\n"
        "sys.exit(main(['verify', 'x.birc']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert done.returncode == 130 == 128 + signal.SIGINT
    assert done.stderr == "error: interrupted\n"
