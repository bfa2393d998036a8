"""`birc profile`: time, traffic and memory of a package, without computing values."""

from __future__ import annotations

from birc.cli.files import PackageArgument, TargetFileOption, open_package
from birc.cli.output import Format, FormatOption, print_json, print_text
from birc.cli.progress import progress
from birc.runtime.session import Session


def profile_command(
    package: PackageArgument, target_file: TargetFileOption = None, format: FormatOption = Format.TEXT
) -> None:
    """Predict how long a package takes and what it waits for.

    Examples:

        birc profile net.birc

        birc profile net.birc --format json
    """
    with progress(f"loading {package.name}") as tell:
        session = Session(open_package(package, target_file))
        tell("simulating time")
        report = session.profile()
    if format is Format.JSON:
        print_json(report.to_json())
    else:
        print_text(report.render_text().rstrip("\n"))
