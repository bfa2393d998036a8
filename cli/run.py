"""`birc run`: the values that a package computes, and a comparison with a reference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from birc import compiler
from birc.cli.compare import compare, require_equal
from birc.cli.files import (
    PackageArgument,
    TargetFileOption,
    open_package,
    random_inputs,
    read_arrays,
    refuse_existing,
    with_declared_types,
    write_arrays,
)
from birc.cli.output import Format, FormatOption, print_json, print_table, print_text
from birc.cli.progress import progress
from birc.cli.sizes import one_size
from birc.cli.values import statistics, storable
from birc.runtime.conversion import Array
from birc.runtime.errors import InternalError, UsageError
from birc.runtime.session import Session
from birc.runtime.variant_choice import RunInfo, sized_inputs


def run_command(
    package: PackageArgument,
    input: Annotated[
        Path | None,
        typer.Option("--input", metavar="IN.npz", help="Inputs by name. Default: seeded random values."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", metavar="OUT.npz", help="Write the outputs.")] = None,
    check: Annotated[
        Path | None,
        typer.Option("--check", metavar="MODEL.onnx", help="Compare with onnxruntime, or onnx's own."),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0.0, help="Largest relative error for --check. Default: by precision.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random inputs.")] = 0,
    dim: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=N", help="A dimension of the random inputs; may be repeated. Default: the first."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.npz if it is there.")] = False,
    target_file: TargetFileOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Run a package: its values, and the latency that the same instructions predict.

    Examples:

        birc run net.birc --input x.npz --output y.npz

        birc run net.birc --check net.onnx

        birc run bert.birc --dim seq=200
    """
    if output is not None:
        refuse_existing(output, overwrite=overwrite)
    with progress(f"loading {package.name}") as tell:
        session = Session(open_package(package, target_file))
        inputs = _inputs(session, input, seed, one_size(dim or []))
        tell("running")
        outputs = session.run(inputs)
        tell("simulating time")
        info = _info(session)
        report = session.profile(variant=info.variant).to_json()
        comparisons = None
        if check is not None:
            tell("computing the reference")
            expected = compiler.reference_outputs(check, inputs)
            comparisons = compare(session.package.manifest, outputs, expected, tolerance)
    if output is not None:
        write_arrays(output, storable(outputs), overwrite=overwrite)
    source = str(input) if input is not None else f"random, seed {seed}"
    if format is Format.JSON:
        shown = [comparison.to_json() for comparison in comparisons] if comparisons is not None else None
        results = {
            "inputs": source,
            "variant": info.variant,
            "dimensions": dict(info.dimensions),
            "padded": {name: {"from": size, "to": most} for name, (size, most) in info.padded.items()},
            "outputs": [statistics(*item) for item in outputs.items()],
            "check": shown,
        }
        print_json({**report, "run": results})
    else:
        _print_results(source, info, outputs, report)
        for comparison in comparisons or ():
            print_text(str(comparison))
    if comparisons is not None:
        require_equal(comparisons)


def _inputs(session: Session, path: Path | None, seed: int, sizes: Mapping[str, int]) -> dict[str, Array]:
    if path is None:
        return random_inputs(sized_inputs(session.package.manifest.first, sizes), seed)
    if sizes:
        raise UsageError("is for random inputs", where="--dim", hint="those of a file have their sizes")
    return with_declared_types(read_arrays(path), session.inputs)


def _info(session: Session) -> RunInfo:
    if session.last_run is None:
        raise InternalError("nothing was run")
    return session.last_run


def _choice_lines(info: RunInfo) -> list[str]:
    """Which variant ran, where the package has open dimensions."""
    if not info.dimensions:
        return []
    chosen = ", ".join(f"{name}={size}" for name, size in info.dimensions.items())
    padded = (f"{name} {size} padded to {most}" for name, (size, most) in info.padded.items())
    return [f"variant: {chosen}" + "".join(f", {text}" for text in padded)]


def _print_results(source: str, info: RunInfo, outputs: Mapping[str, Array], report: Mapping[str, Any]) -> None:
    print_text(f"inputs: {source}", *_choice_lines(info), "")
    rows = []
    for name, array in outputs.items():
        row = statistics(name, array)
        numbers = [f"{row[key]:.6g}" if key in row else "-" for key in ("lowest", "mean", "highest")]
        rows.append((name, row["dtype"], "x".join(map(str, row["shape"])), *numbers, str(row["not_finite"])))
    print_table(("output", "type", "shape", "lowest", "mean", "highest", "not finite"), rows, right=(3, 4, 5, 6))
    print_text("", f"predicted latency on {report['target']}: {report['latency_us']:.3f} us")
