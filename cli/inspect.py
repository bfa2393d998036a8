"""`birc inspect`: what a package is, what it takes and gives, and what it consists of."""

from __future__ import annotations

from collections import Counter
from typing import Any

from birc.cli.files import PackageArgument, TargetFileOption, open_package
from birc.cli.output import Format, FormatOption, count, print_json, print_table, print_text, size
from birc.runtime.counts import static_commands
from birc.runtime.package import Package
from birc.runtime.variant import BoundaryTensor


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
    _print_variants(opened)
    _print_steps(opened)
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
    """Figures of the programs' texts, added up: nothing is executed."""
    programs = tuple(package.programs.values())
    instructions = (item for program in programs for kernel in program.kernels for item in kernel.instructions())
    return {
        "dies": max((program.dies for program in programs), default=0),
        "kernels": sum(len(program.kernels) for program in programs),
        "descriptors": sum(len(program.descriptors) for program in programs),
        "l2_bytes_per_spc": max((program.l2_bytes for program in programs), default=0),
        "tensor_buffer_bytes_per_spc": max((program.tensor_buffer_bytes for program in programs), default=0),
        "hbm_bytes_per_die": max((program.hbm_bytes for program in programs), default=0),
        "constant_bytes": sum(array.nbytes for array in package.weights.values()),
        "useful_macs": sum(program.useful_macs for program in programs),
        "instructions": dict(sorted(Counter(item.mnemonic for item in instructions).items())),
        "commands": dict(
            sorted(Counter(item.mnemonic for program in programs for item in static_commands(program)).items())
        ),
    }


def _rows(counts: dict[str, int]) -> list[tuple[str, str]]:
    return [(name, f"{number:,}") for name, number in counts.items()]


def _print_head(package: Package) -> None:
    manifest, figures = package.manifest, _program(package)
    programs = f"{count(len(package.programs), 'program')}, " if len(package.programs) != 1 else ""
    print_text(
        f"model      {manifest.model}",
        f"target     {manifest.target}, {count(figures['dies'], 'die')}, precision {manifest.precision}",
        f"compiler   birc {manifest.compiler_version}, instruction table {manifest.isa_version}",
        f"program    {programs}{count(figures['kernels'], 'kernel')}, {figures['useful_macs']:,} multiply-adds",
        f"memory     HBM of a die {size(figures['hbm_bytes_per_die'])}, constants {size(figures['constant_bytes'])}",
        f"SRAM       L2 an SPC {size(figures['l2_bytes_per_spc'])}, "
        f"tensor buffer {size(figures['tensor_buffer_bytes_per_spc'])}",
    )


def _print_variants(package: Package) -> None:
    """The variants by number, and along which dimensions inputs may be padded."""
    first = package.manifest.first
    if not first.dimensions:
        return
    rows = []
    for number, variant in enumerate(package.manifest.variants):
        programs = [package.programs[step.member] for step in variant.steps if not step.on_host]
        kernels = sum(len(program.kernels) for program in programs)
        macs = sum(program.useful_macs for program in programs)
        hbm = max((program.hbm_bytes for program in programs), default=0)
        members = ", ".join(step.member for step in variant.steps)
        rows.append((str(number), variant.label, members, str(kernels), f"{macs:,}", size(hbm)))
    print_text("")
    headings = ("variant", "dimensions", "steps", "kernels", "multiply-adds", "HBM of a die")
    print_table(headings, rows, right=(0, 3, 4, 5))
    print_text("")
    print_table(("dimension", "padding"), list(first.padding.items()))


def _print_steps(package: Package) -> None:
    """The steps of each variant, where there is more to say than one program."""
    for variant in package.manifest.variants:
        if len(variant.steps) == 1 and not variant.host_nodes:
            continue
        rows: list[tuple[str, ...]] = []
        for step in variant.steps:
            rows.append((step.member, "host" if step.on_host else "device", ""))
            rows.extend(("", "", str(node)) for node in step.nodes)
        print_text("", f"variant {variant.label}" if variant.label else "steps")
        print_table(("member", "runs on", "nodes on the host, and why"), rows)


def _print_boundary(package: Package) -> None:
    def row(kind: str, tensor: BoundaryTensor) -> tuple[str, ...]:
        sizes = ("?" if size is None else str(size) for size in tensor.shape or ())
        shape = "?" if tensor.shape is None else "x".join(sizes)
        return kind, tensor.name, tensor.dtype, shape, tensor.device_dtype or "on the host"

    manifest = package.manifest
    rows = [row("input", tensor) for tensor in manifest.inputs]
    rows += [row("output", tensor) for tensor in manifest.outputs]
    print_text("")
    print_table(("", "name", "type", "shape", "on the device"), rows)
