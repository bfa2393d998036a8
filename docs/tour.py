"""Refreshes the tour in the README: runs the commands of its console blocks and writes what they print.

    python docs/tour.py

Unlike the documents of `generate.py`, what is printed depends on the speed of the computer (compile times)
and is not compared by a test; the tests only run the commands.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT = "$ "


def commands(block: str) -> list[str]:
    """The commands of one block: its lines after a prompt."""
    return [line.removeprefix(PROMPT) for line in block.splitlines() if line.startswith(PROMPT)]


def blocks(text: str) -> list[list[str]]:
    """The commands of each console block of a Markdown text."""
    return [commands(match[1]) for match in BLOCK.finditer(text)]


def run(command: str, folder: Path) -> str:
    """What a command prints, run in `folder` by the shell with this Python's `birc`. Raises when it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command}: exit code {done.returncode}: {done.stderr.strip()}")
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def prepare(folder: Path) -> None:
    """Make `folder` look like the repository to the commands of the tour."""
    (folder / "examples").symlink_to(ROOT / "examples", target_is_directory=True)


def refreshed(text: str, folder: Path) -> str:
    """The text with what the commands print now."""

    def block(match: re.Match[str]) -> str:
        printed = [f"{PROMPT}{command}\n{run(command, folder)}" for command in commands(match[1])]
        return f"```console\n{''.join(printed)}```"

    return BLOCK.sub(block, text)


def main() -> None:
    """Rewrite the README."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        README.write_text(refreshed(README.read_text(encoding="utf-8"), folder), encoding="utf-8")


if __name__ == "__main__":
    main()
