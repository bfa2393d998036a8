"""Compiles models, each in a process of its own with bounded time and memory, and says how each ended.

python tests/support/confined.py FOLDER NAME...: for each model a line of JSON on standard output.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import sys
from pathlib import Path

from birc.cli.main import main
from birc.compiler.driver import PHASES  # once for all: the command line imports it when it is wanted

MOST_SECONDS = 2.0
MOST_BYTES = 512 * 2**20
LONGEST_WAIT_SECONDS = 60  # on the clock: for what sleeps, as the reader of a pipe does


def address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def compile_confined(folder: Path, *, is_confined: bool = True) -> dict[str, object]:
    """The exit code of `birc compile`, or the signal that ended it, its standard error and its processor seconds."""
    path, said = folder / "model.onnx", folder / "said.txt"
    child = os.fork()
    if child == 0:
        if is_confined:
            size = path.stat().st_size if path.is_file() else 0
            most = address_space_bytes() + MOST_BYTES + min(size, 2**30)
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            resource.setrlimit(resource.RLIMIT_CPU, (4, 4))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.alarm(LONGEST_WAIT_SECONDS)
        text = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(text, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="backslashreplace")
        with contextlib.redirect_stdout(io.StringIO()):
            code = main(["compile", str(path), "-o", str(folder / "out.birc"), "--overwrite"])
        os._exit(code)
    _, status, used = os.wait4(child, 0)
    return {
        "name": folder.name,
        "code": os.waitstatus_to_exitcode(status),
        "said": said.read_text(errors="backslashreplace"),
        "seconds": used.ru_utime + used.ru_stime,
    }


if __name__ == "__main__":
    assert PHASES
    for name in sys.argv[2:]:
        print(json.dumps(compile_confined(Path(sys.argv[1]) / name)), flush=True)
