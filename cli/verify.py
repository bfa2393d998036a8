"""`birc verify`: every check of a package, from its bytes to its instructions, without running it."""

from __future__ import annotations

from birc.cli.files import PackageArgument, TargetFileOption, open_package
from birc.cli.output import Format, FormatOption, count, print_json, print_text
from birc.cli.progress import progress


def verify_command(
    package: PackageArgument, target_file: TargetFileOption = None, format: FormatOption = Format.TEXT
) -> None:
    """Check a package: hashes, versions, every instruction.

    Examples:

        birc verify net.birc
    """
    with progress(f"verifying {package.name}"):
        opened = open_package(package, target_file)
    kernels = sum(len(program.kernels) for program in opened.programs.values())
    instructions = sum(
        1 for program in opened.programs.values() for kernel in program.kernels for _ in kernel.instructions()
    )
    if format is Format.JSON:
        print_json({"schema": "birc.verify/1", "ok": True, "kernels": kernels, "instructions": instructions})
    else:
        programs = f"{count(len(opened.programs), 'program')}, " if len(opened.programs) != 1 else ""
        print_text(f"{package}: ok, {programs}{count(kernels, 'kernel')}, {count(instructions, 'instruction')}")
