"""`birc profile`: time, traffic and memory of a package, without computing values."""

from __future__ import annotations

from typing import Annotated

import typer

from birc.cli.files import PackageArgument, TargetFileOption, open_package
from birc.cli.output import Format, FormatOption, print_json, print_text
from birc.cli.progress import progress
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
    target_file: TargetFileOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Predict how long a package takes and what it waits for.

    Examples:

        birc profile net.birc

        birc profile net.birc --range

        birc profile net.birc --format json
    """
    with progress(f"loading {package.name}") as tell:
        session = Session(open_package(package, target_file))
        tell("simulating time")
        report = session.profile(with_range)
    if format is Format.JSON:
        print_json(report.to_json())
    else:
        print_text(report.render_text().rstrip("\n"))
