"""`birc profile`: time, traffic and memory of a package, without computing values."""

from __future__ import annotations

from typing import Annotated

import typer

from birc.cli.files import PackageArgument, TargetFileOption, open_package
from birc.cli.output import Format, FormatOption, print_json, print_text
from birc.cli.progress import progress
from birc.cli.sizes import one_size
from birc.runtime.errors import UsageError
from birc.runtime.session import Session


def profile_command(
    package: PackageArgument,
    with_range: Annotated[
        bool | None,
        typer.Option(
            "--range/--no-range",
            help="Also give the band of latencies over the calibrated sets of figures (a simulation for each); "
            "by default for programs that simulate quickly.",
        ),
    ] = None,
    dim: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=N", help="The variant with this size; may be repeated. Default: the first."),
    ] = None,
    variant: Annotated[
        int | None, typer.Option(metavar="K", help="The variant of this number; birc inspect lists them.")
    ] = None,
    target_file: TargetFileOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Predict how long a package takes and what it waits for.

    Examples:

        birc profile net.birc

        birc profile net.birc --range

        birc profile bert.birc --dim seq=256

        birc profile net.birc --format json
    """
    if dim and variant is not None:
        raise UsageError("both choose a variant", where="--dim, --variant", hint="give one of them")
    with progress(f"loading {package.name}") as tell:
        session = Session(open_package(package, target_file))
        tell("simulating time")
        report = session.profile(with_range, one_size(dim or []) if variant is None else variant)
    if format is Format.JSON:
        print_json(report.to_json())
    else:
        print_text(report.render_text().rstrip("\n"))
