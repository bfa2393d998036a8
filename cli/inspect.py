"""`birc inspect`: what a package is, what it takes and gives, and what it consists of."""

from __future__ import annotations

from collections import Counter
from typing import Any

from birc.cli.files import PackageArgument, TargetFileOption, open_package
from birc.cli.output import Format, FormatOption, count, print_json, print_table, print_text, size
from birc.runtime.counts import static_commands
from birc.runtime.manifest import BoundaryTensor
from birc.runtime.package import Package


def inspect_command(
    package: PackageArgument, target_file: TargetFileOption = None, format: FormatOption = Format.TEXT
) -> None:
    """Show what a package takes, gives and consists of.

    Examples:

        birc inspect net.birc

        birc inspect net.birc --format json
    """
    opened = open_package(package, target_file)
    if format is Format.JSON:
        print_json({"schema": "birc.inspect/1", "manifest": opened.manifest.to_json(), "program": _program(opened)})
        return
    _print_head(opened)
    _print_boundary(opened)
    program = _program(opened)
    print_text("")
    print_table(("instruction", "in the text"), _rows(program["instructions"]), right=(1,))
    print_text("")
    print_table(("command", "in the text"), _rows(program["commands"]), right=(1,))
    print_text("")
    members = opened.manifest.members.items()
    rows = [(name, size(record.num_bytes), record.sha256[:16]) for name, record in sorted(members)]
    print_table(("member", "size", "SHA-256"), rows, right=(1,))


def _program(package: Package) -> dict[str, Any]:
    """Figures of the program's text: nothing is executed."""
    program = package.program
    instructions = (instruction for kernel in program.kernels for instruction in kernel.instructions())
    return {
        "dies": program.dies,
        "kernels": len(program.kernels),
        "descriptors": len(program.descriptors),
        "l2_bytes_per_spc": program.l2_bytes,
        "tensor_buffer_bytes_per_spc": program.tensor_buffer_bytes,
        "hbm_bytes_per_die": program.hbm_bytes,
        "constant_bytes": sum(array.nbytes for array in package.weights.values()),
        "useful_macs": program.useful_macs,
        "instructions": dict(sorted(Counter(item.mnemonic for item in instructions).items())),
        "commands": dict(sorted(Counter(item.mnemonic for item in static_commands(program)).items())),
    }


def _rows(counts: dict[str, int]) -> list[tuple[str, str]]:
    return [(name, f"{number:,}") for name, number in counts.items()]


def _print_head(package: Package) -> None:
    manifest, program = package.manifest, package.program
    constants = sum(array.nbytes for array in package.weights.values())
    dimensions = ", ".join(f"{name}={value}" for name, value in manifest.variants[0].dimensions.items())
    print_text(
        f"model      {manifest.model}{f' with {dimensions}' if dimensions else ''}",
        f"target     {manifest.target}, {count(program.dies, 'die')}, precision {manifest.precision}",
        f"compiler   birc {manifest.compiler_version}, instruction table {manifest.isa_version}",
        f"program    {count(len(program.kernels), 'kernel')}, {program.useful_macs:,} multiply-adds",
        f"memory     HBM of a die {size(program.hbm_bytes)}, constants {size(constants)}",
        f"SRAM       L2 an SPC {size(program.l2_bytes)}, tensor buffer {size(program.tensor_buffer_bytes)}",
    )


def _print_boundary(package: Package) -> None:
    def row(kind: str, tensor: BoundaryTensor) -> tuple[str, ...]:
        return kind, tensor.name, tensor.dtype, "x".join(map(str, tensor.shape)), tensor.device_dtype

    manifest = package.manifest
    rows = [row("input", tensor) for tensor in manifest.inputs]
    rows += [row("output", tensor) for tensor in manifest.outputs]
    print_text("")
    print_table(("", "name", "type", "shape", "on the device"), rows)
