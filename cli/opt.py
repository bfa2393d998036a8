"""`birc opt`: single passes on the text of a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from birc import compiler
from birc.cli.files import write_text
from birc.cli.output import print_text
from birc.cli.progress import progress
from birc.runtime.errors import UsageError


def opt_command(
    source: Annotated[Path, typer.Argument(metavar="FILE.ir", help="A graph, as `birc compile --dump-ir` writes it.")],
    passes: Annotated[str, typer.Option(metavar="NAME,NAME", help="The passes to run, in this order.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to a file, not to stdout.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
) -> None:
    """Run passes on a graph and print the result.

    Examples:

        birc opt phases/00_import.ir --passes fold_constants,simplify

        birc opt phases/04_legalize.ir --passes fuse -o fused.ir
    """
    names = [name.strip() for name in passes.split(",") if name.strip()]
    if not names:
        raise UsageError("names no pass", where="--passes", hint="for example --passes fold_constants")
    with progress(f"running {', '.join(names)}"):
        text = compiler.run_named_passes(source, names)
    if output is None:
        print_text(text.rstrip("\n"))
    else:
        write_text(output, text, overwrite=overwrite)
