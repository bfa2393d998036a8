"""`birc disasm`: the instruction stream of a package as assembly text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from birc.cli.files import PackageArgument, TargetFileOption, open_package, write_text
from birc.cli.output import print_text
from birc.runtime.assembly import program_text
from birc.runtime.errors import UsageError


def disasm_command(
    package: PackageArgument,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to a file, not to stdout.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    program: Annotated[
        int | None, typer.Option(metavar="K", help="Only programs/K.bin. Default: all of the package.")
    ] = None,
    target_file: TargetFileOption = None,
) -> None:
    """Print the program of a package as text that `birc asm` reads (one program at a time).

    Examples:

        birc disasm net.birc | less

        birc disasm net.birc -o net.asm
    """
    programs = open_package(package, target_file).programs
    if program is not None and not 0 <= program < len(programs):
        raise UsageError(f"there is no program {program}", where="--program", hint=f"0 to {len(programs) - 1}")
    chosen = list(programs.values()) if program is None else [list(programs.values())[program]]
    text = "\n".join(map(program_text, chosen))
    if output is None:
        print_text(text.rstrip("\n"))
    else:
        write_text(output, text, overwrite=overwrite)
