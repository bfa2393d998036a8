"""Dumps: one readable, numbered text for each pass of a compilation, from any of which another can go on.

03_canonicalize.fold_constants.ir    the graph after a pass of a phase
12_allocate.plan                     the plan after a phase
13_codegen.asm                       the program
constants.safetensors                the large constants of all of them
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from birc.compiler.dump_constants import ConstantsFile, is_constants_file, load_constants
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.parser import parse_graph
from birc.compiler.ir.plan import Plan
from birc.compiler.ir.plan_parser import parse_plan
from birc.compiler.ir.plan_printer import print_plan
from birc.compiler.ir.printer import external_constants, print_graph
from birc.runtime.assembly import program_text
from birc.runtime.assembly_parser import parse_program
from birc.runtime.errors import BadModelError, BadPackageError, InternalError, UsageError
from birc.runtime.program import Program

CONSTANTS_FILE: Final = "constants.safetensors"
_NAME: Final = re.compile(
    r"(?P<number>\d{2,})_(?P<phase>[a-z0-9_-]+)(?:\.(?P<step>[a-z0-9._-]+))?\.(?P<suffix>ir|plan|asm)"
)

Level = Literal["graph", "plan", "program"]
Constants = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Dump:
    """What a dumped text says.

    `phase` made it; `step` is the pass within the phase, "" for the text at its end. `constants` are those of
    the graph, or the data of the plan's constant buffers, which a program refers to as well.
    """

    level: Level
    phase: str
    content: Graph | Plan | Program
    constants: Constants
    step: str = ""


class DumpWriter:
    """Writes the texts of one compilation into a directory."""

    def __init__(self, directory: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Make the directory, or take one that is empty or holds an earlier dump, whose files go.

        Raises `UsageError` for a directory with other files, unless `overwrite`.
        """
        self._directory = Path(directory)
        _prepare(self._directory, overwrite)
        self._constants = ConstantsFile(self._directory / CONSTANTS_FILE)

    def graph(self, number: int, name: str, graph: Graph) -> None:
        """The graph after the pass `name` (phase, or phase.step).

        Raises `InternalError` when a constant has other data than one of that name had before.
        """
        self._add("graph", external_constants(graph))
        self._write(number, name, "ir", print_graph(graph))

    def plan(self, number: int, name: str, plan: Plan, data: Constants) -> None:
        """The plan after the phase `name`; `data` is that of its constant buffers. Raises as `graph`."""
        self._add("plan", data)
        self._write(number, name, "plan", print_plan(plan))

    def program(self, number: int, name: str, program: Program, data: Constants) -> None:
        """The program; its constants are those of the plan, and parts of them. Raises as `graph`."""
        self._add("plan", {image.key: data[image.key] for image in program.constants})
        self._write(number, name, "asm", program_text(program))

    def _add(self, level: Level, arrays: Constants) -> None:
        self._constants.add({_key(level, name): array for name, array in arrays.items()})

    def _write(self, number: int, name: str, suffix: str, text: str) -> None:
        path = self._directory / f"{number:02d}_{name}.{suffix}"
        if _NAME.fullmatch(path.name) is None:
            raise InternalError(f"a dump cannot be called {path.name!r}", hint="small letters, digits, _ and -")
        path.write_text(text, encoding="utf-8")


def load_dump(path: str | os.PathLike[str]) -> Dump:
    """Read one text of a dump, and the constants beside it.

    Raises `UsageError` for a name that no dump has, `BadModelError` for unreadable files, and the errors of
    the parsers (with line and column) for bad text.
    """
    source = Path(path)
    name = _NAME.fullmatch(source.name)
    if name is None:
        hint = "birc compile --dump-ir writes them: 04_legalize.ir, for one"
        raise UsageError("is no dumped text", where=str(source), hint=hint)
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadModelError(f"cannot be read: {error}", where=str(source)) from error
    level, kept, read = _READERS[name["suffix"]]
    beside = source.with_name(CONSTANTS_FILE)
    stored = load_constants(beside) if beside.exists() else {}
    prefix = _key(kept, "")
    constants = {key.removeprefix(prefix): array for key, array in stored.items() if key.startswith(prefix)}
    return Dump(level, name["phase"], read(text, constants, str(source)), constants, name["step"] or "")


def _read_plan(text: str, _: Constants, file: str) -> Plan:
    return parse_plan(text, file)


def _read_program(text: str, _: Constants, file: str) -> Program:
    try:
        return parse_program(text)
    except BadPackageError as error:
        raise BadModelError(error.what, where=f"{file}:{error.where}", hint=error.hint) from error


_Reader = Callable[[str, Constants, str], Graph | Plan | Program]
_READERS: Final[Mapping[str, tuple[Level, Level, _Reader]]] = {
    "ir": ("graph", "graph", parse_graph),
    "plan": ("plan", "plan", _read_plan),
    "asm": ("program", "plan", _read_program),
}
"""By the suffix of a text: its level, the level of its constants, and the parser."""


def _key(level: Level, name: str) -> str:
    return f"{level}/{name}"


def _prepare(directory: Path, overwrite: bool) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        found = sorted(directory.iterdir())
    except OSError as error:
        raise UsageError(f"is no directory for a dump: {error.strerror}", where=str(directory)) from error
    is_ours = is_constants_file(directory / CONSTANTS_FILE)
    if found and not is_ours and not overwrite:
        raise UsageError(
            f"holds other files ({found[0].name})",
            where=str(directory),
            hint="name a new directory for the dump",
        )
    for path in found if is_ours else ():
        if _NAME.fullmatch(path.name):
            path.unlink()
