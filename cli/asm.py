"""`birc asm`: a package from assembly text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from birc.cli.files import open_package, read_text, refuse_existing
from birc.cli.output import count, print_text
from birc.runtime.assembly_parser import parse_program
from birc.runtime.errors import BadPackageError, UsageError
from birc.runtime.machine import load_machine
from birc.runtime.manifest import Manifest
from birc.runtime.package import Package
from birc.runtime.program import Program


def asm_command(
    source: Annotated[Path, typer.Argument(metavar="FILE.asm", help="Assembly text, as `birc disasm` prints it.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT.birc", help="Default: the file's name, here."),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(metavar="PKG.birc", help="Take the constants and the model's types from this package."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="The target's name or .toml file. Default: the one that the text names."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.birc if it is there.")] = False,
) -> None:
    """Assemble a program, verify it and write it as a package.

    Examples:

        birc disasm net.birc -o net.asm

        birc asm net.asm --like net.birc -o changed.birc
    """
    path = output or Path(source.with_suffix(".birc").name)
    refuse_existing(path, overwrite=overwrite)
    program = _parse(source)
    machine = load_machine(target or program.machine)
    if like is not None:
        original = open_package(like, Path(target) if target and target.endswith(".toml") else None)
        manifest, weights = replace(original.manifest, passes=(), onnx_sha256=None), original.weights
        if len(original.manifest.variants) > 1 or len(original.manifest.first.steps) > 1:
            raise UsageError("has several programs", where=str(like), hint="--like takes a package of one program")
        inputs, outputs = manifest.inputs, manifest.outputs
    else:
        manifest, weights, inputs, outputs = _manifest(program), {}, None, None
    missing = [image.key for image in program.constants if image.key not in weights]
    if missing:
        what = f"the program has the constant {missing[0]!r}"
        raise UsageError(what, where=str(source), hint="--like PKG.birc takes it from a package")
    package = Package.of_program(program, weights, manifest, machine, inputs=inputs, outputs=outputs)
    package.save(path, overwrite=overwrite)
    print_text(f"{path}: {count(len(program.kernels), 'kernel')}")


def _parse(source: Path) -> Program:
    try:
        return parse_program(read_text(source))
    except BadPackageError as error:
        place = f"{source}:{error.where}" if error.where else str(source)
        raise UsageError(error.what, where=place, hint=error.hint) from error


def _manifest(program: Program) -> Manifest:
    return Manifest(model=program.name, target=program.machine, target_digest=program.machine_digest, precision="model")
