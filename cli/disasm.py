"""`birc disasm`: the instruction stream of a package as assembly text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from birc.cli.files import PackageArgument, TargetFileOption, open_package, write_text
from birc.cli.output import print_text
from birc.runtime.assembly import program_text


def disasm_command(
    package: PackageArgument,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to a file, not to stdout.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    target_file: TargetFileOption = None,
) -> None:
    """Print the program of a package as text that `birc asm` reads.

    Examples:

        birc disasm net.birc | less

        birc disasm net.birc -o net.asm
    """
    text = program_text(open_package(package, target_file).program)
    if output is None:
        print_text(text.rstrip("\n"))
    else:
        write_text(output, text, overwrite=overwrite)
