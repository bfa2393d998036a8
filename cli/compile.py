"""`birc compile`: from an ONNX model, or from a dumped phase, to a package."""

from __future__ import annotations

import re
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from birc import compiler
from birc.cli.files import refuse_existing
from birc.cli.output import Format, FormatOption, count, print_json, print_text, size
from birc.cli.progress import Tell, progress
from birc.cli.sizes import batch_sizes, several_sizes
from birc.runtime.errors import UsageError
from birc.runtime.package import Package

if TYPE_CHECKING:
    from birc.compiler.ir.proof.prover import Prover

DUMP_SUFFIXES = (".ir", ".plan", ".asm")


class Precision(StrEnum):
    """How FP32 values are stored and multiplied."""

    MODEL = "model"
    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


PrecisionOption = Annotated[
    Precision,
    typer.Option(
        help="model: the model's own types, FP32 multiplied as TF32+; fp32: FP32 products, at a third of the "
        "rate; bf16: store and multiply in BF16; int8: multiply what a quantised model quantises as integers."
    ),
]
LevelOption = Annotated[
    int,
    typer.Option(
        "-O",
        min=0,
        max=3,
        help="0: a kernel for every operator. 1: fused; the first plan that fits. 2: plans and tilings are timed, the "
        "fastest is taken. 3: so are other forms of the graph.",
    ),
]
ProveOption = Annotated[
    bool, typer.Option("--prove", help="Prove that the finished plan is in bounds and its parts independent.")
]
ResidentWeightsOption = Annotated[
    bool,
    typer.Option(
        "--resident-weights",
        help="Weights stay in on-chip memory between calls: the first one brings them in, later ones find them.",
    ),
]


def compile_command(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx|DUMP", help="An ONNX model, or a text that --dump-ir wrote.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT.birc", help="Default: the model's name, here."),
    ] = None,
    target: Annotated[str, typer.Option(help="A name from `birc targets`, or the path of a .toml file.")] = "br100",
    precision: PrecisionOption = Precision.MODEL,
    dim: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=N[,M...]",
            help="Fix a symbolic dimension; may be repeated. Several sizes: a variant in the package for each.",
        ),
    ] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="N[,M...]", help="Fix the first dimension of the inputs, as --dim does.")
    ] = None,
    opt_level: LevelOption = 3,
    dump_ir: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the text of every phase here.")] = None,
    stop_after: Annotated[
        str | None, typer.Option(metavar="PHASE", help="Go no further than this phase; needs --dump-ir.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.birc if it is there.")] = False,
    prove: ProveOption = False,
    resident_weights: ResidentWeightsOption = False,
    debug_info: Annotated[
        bool, typer.Option("--debug-info/--no-debug-info", help="Keep names and texts in the package.")
    ] = True,
    mem_limit: Annotated[
        str, typer.Option(metavar="SIZE", help="What the model's constants may take: bytes, or 512MiB, 8GiB, 1TiB.")
    ] = "8GiB",
    format: FormatOption = Format.TEXT,
) -> None:
    """Compile an ONNX model to a package.

    Examples:

        birc compile resnet50.onnx

        birc compile bert.onnx -o bert.birc --precision bf16 --dim seq=128 --batch 8

        birc compile bert.onnx --dim seq=128,256,512

        birc compile net.onnx --dump-ir phases --stop-after fuse

        birc compile resnet50.onnx --precision bf16 --batch 1 --resident-weights

        birc compile phases/05_fuse.ir -o net.birc

        birc compile phases/09_allocate.plan --prove
    """
    _check_phase(stop_after, dump_ir)
    prover = _prover(stop_after) if prove else None
    path = output or Path(model.with_suffix(".birc").name)
    if stop_after is None:
        refuse_existing(path, overwrite=overwrite)
    started = time.monotonic()
    with progress(f"compiling {model.name}") as tell:
        if model.suffix in DUMP_SUFFIXES:
            _refuse_for_ir(dim, batch)
            package = compiler.resume(
                model, target=target, precision=precision.value, opt_level=opt_level, dump_ir=dump_ir,
                stop_after=stop_after, progress=tell, prove=prover or False, resident_weights=resident_weights,
            )  # fmt: skip
        else:
            package = compiler.compile_model(
                model, target=target, precision=precision.value, dims=several_sizes(dim or []),
                batch=batch_sizes(batch), opt_level=opt_level, dump_ir=dump_ir, stop_after=stop_after, progress=tell,
                mem_limit_bytes=_bytes(mem_limit), prove=prover or False, resident_weights=resident_weights,
            )  # fmt: skip
        if package is not None:
            _save(package if debug_info else package.without_debug(), path, tell, overwrite=overwrite)
    seconds = time.monotonic() - started
    if package is None:
        print_text(f"stopped after {stop_after}; the texts are in {dump_ir}", *([prover.summary] if prover else []))
        return
    _print_summary(_summary(package, path, seconds), prover, format)


def _print_summary(summary: dict[str, Any], prover: Prover | None, format: Format) -> None:
    if format is Format.JSON:
        print_json(summary | _proved(prover))
    else:
        print_text(*_summary_lines(summary), *([f"  {prover.summary}"] if prover is not None else []))


def _check_phase(stop_after: str | None, dump_ir: Path | None) -> None:
    if stop_after is None:
        return
    if stop_after not in compiler.PHASES:
        hint = f"one of {', '.join(compiler.PHASES)}"
        raise UsageError(f"there is no phase {stop_after!r}", where="--stop-after", hint=hint)
    if dump_ir is None:
        raise UsageError("leaves nothing behind without --dump-ir", where="--stop-after", hint="add --dump-ir DIR")


def _prover(stop_after: str | None) -> Prover:
    """A prover, if the plan is finished before compiling stops."""
    phases = compiler.PHASES
    if stop_after is not None and phases.index(stop_after) < phases.index("allocate"):
        what = f"proves finished plans, there is none after {stop_after}"
        raise UsageError(what, where="--prove", hint="stop after allocate or later")
    return compiler.new_prover()


def _proved(prover: Prover | None) -> dict[str, Any]:
    """What the summary says of proofs."""
    if prover is None:
        return {}
    counts = {"kernels": prover.kernels, "accesses": prover.accesses, "par_loops": prover.par_loops}
    return {"proved": counts | {"seconds": round(prover.seconds, 3)}}


def _refuse_for_ir(dim: list[str] | None, batch: str | None) -> None:
    if dim or batch is not None:
        what = "the dimensions of a dumped phase are fixed"
        raise UsageError(what, where="--dim, --batch", hint="give them when compiling the ONNX model")


def _bytes(text: str) -> int:
    """8589934592 from "8GiB"."""
    found = re.fullmatch(r"(\d{1,15}) ?(KiB|MiB|GiB|TiB|B)?", text)
    if found is None or not int(found[1]):
        raise UsageError(f"is {text!r}", where="--mem-limit", hint="write a number of bytes, or one of KiB, MiB, GiB")
    return int(found[1]) * 1024 ** ("B", "KiB", "MiB", "GiB", "TiB").index(found[2] or "B")


def _save(package: Package, path: Path, tell: Tell, *, overwrite: bool) -> None:
    tell(f"writing {path.name}")
    package.save(path, overwrite=overwrite)


def _summary(package: Package, path: Path, seconds: float) -> dict[str, Any]:
    manifest, programs = package.manifest, package.programs
    nodes = {name for member in programs for source in package.run_sources(member) for name in source.onnx_nodes}
    first = manifest.first
    return {
        "schema": "birc.compile/1",
        "package": str(path),
        "package_bytes": path.stat().st_size,
        "model": manifest.model,
        "target": manifest.target,
        "precision": manifest.precision,
        "onnx_nodes": len(nodes),
        "host_nodes": [str(node) for node in first.host_nodes],
        "programs": len(programs),
        "variants": [
            {"dimensions": dict(variant.dimensions), "padding": dict(variant.padding)} for variant in manifest.variants
        ],
        "kernels": sum(len(program.kernels) for program in programs.values()),
        "instructions": sum(
            1 for program in programs.values() for kernel in program.kernels for _ in kernel.instructions()
        ),
        "macs": sum(program.useful_macs for program in programs.values()),
        "sram_bytes_per_spc": {
            "l2": max((program.l2_bytes for program in programs.values()), default=0),
            "tensor_buffer": max((program.tensor_buffer_bytes for program in programs.values()), default=0),
        },
        "hbm_bytes_per_die": max((program.hbm_bytes for program in programs.values()), default=0),
        "compile_seconds": round(seconds, 3),
    }


def _summary_lines(summary: dict[str, Any]) -> list[str]:
    sram = summary["sram_bytes_per_spc"]
    made_from = f"{count(summary['onnx_nodes'], 'ONNX node')} in " if summary["onnx_nodes"] else ""
    return [
        f"{summary['package']}: {summary['model']} for {summary['target']}, precision {summary['precision']}",
        f"  {made_from}{count(summary['kernels'], 'kernel')}, "
        f"{count(summary['instructions'], 'instruction')}, {summary['macs']:,} multiply-adds",
        f"  SRAM of an SPC: {size(sram['l2'])} as L2, {size(sram['tensor_buffer'])} as tensor buffer; "
        f"HBM of a die: {size(summary['hbm_bytes_per_die'])}",
        *_variant_lines(summary["variants"]),
        *_host_lines(summary["host_nodes"]),
        f"  {size(summary['package_bytes'])}, compiled in {summary['compile_seconds']:.1f} s",
    ]


def _variant_lines(variants: list[dict[str, Any]]) -> list[str]:
    """The variants, where there are several, and what may be padded."""
    if len(variants) == 1:
        return []
    labels = (", ".join(f"{name}={size}" for name, size in entry["dimensions"].items()) for entry in variants)
    padding = (f"    padding {name}: {text}" for name, text in variants[0]["padding"].items())
    return [f"  {count(len(variants), 'variant')}: {'; '.join(labels)}", *padding]


def _host_lines(nodes: list[str]) -> list[str]:
    """The nodes that the device does not run, each with the reason."""
    if not nodes:
        return []
    return [f"  {count(len(nodes), 'node')} on the host:", *(f"    {node}" for node in nodes)]
