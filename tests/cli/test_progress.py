"""Progress: on a terminal, on stderr, and only for work that takes more than a second."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

PROGRAM = """
import sys, time
from birc.cli.progress import progress
with progress("first words") as tell:
    tell("second words")
    time.sleep(float(sys.argv[1]))
print("done")
"""


def on_terminal(seconds: float, **environment: str) -> str:
    """What appears on the terminal that is the program's stderr; its stdout is a pipe."""
    ours, theirs = pty.openpty()
    variables = {**os.environ, "TERM": "xterm-256color", **environment}
    variables.pop("NO_COLOR", None) if "NO_COLOR" not in environment else None
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(seconds)], stdout=subprocess.PIPE, stderr=theirs, env=variables
    ) as process:
        out, _ = process.communicate(timeout=60)
    os.close(theirs)
    shown = b""
    os.set_blocking(ours, False)
    try:
        while part := os.read(ours, 65536):
            shown += part
    except (BlockingIOError, OSError):
        pass
    os.close(ours)
    assert out == b"done\n"
    return shown.decode()


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}], ids=["colour", "no colour"])
def test_long_work_is_shown(environment):
    shown = on_terminal(1.4, **environment)
    assert "second words" in shown
    assert "first words" not in shown
    colours = re.findall(r"\x1b\[(?:3\d|9\d|38;[\d;]+|1;3\d)m", shown)
    assert bool(colours) != bool(environment)


def test_short_work_is_not_shown():
    assert on_terminal(0.1) == ""


def test_nothing_is_shown_without_a_terminal():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "1.2"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("done\n", "")
