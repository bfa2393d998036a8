"""`birc targets`: the machines that birc knows, and every figure of one with unit, source and confidence."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from birc.cli.output import Format, FormatOption, print_json, print_table, print_text, size
from birc.runtime.figures import Figure
from birc.runtime.machine import Machine, load_machine, machine_names


def targets_command(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME|FILE.toml]", help="Show every figure of this machine.")
    ] = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """List the machines, or one's figures with their sources.

    Examples:

        birc targets

        birc targets br100

        birc targets mine.toml --format json
    """
    if name is None:
        _list(format)
    else:
        _show(load_machine(name), format)


def _list(format: Format) -> None:
    machines = [load_machine(name) for name in machine_names()]
    if format is Format.JSON:
        print_json({"schema": "birc.targets/1", "targets": [_peaks(machine) for machine in machines]})
        return
    rows = []
    for machine in machines:
        peaks = _peaks(machine)
        rows.append(
            (
                machine.name,
                machine.vendor,
                str(machine.dies),
                str(machine.spcs),
                size(machine.hbm_bytes),
                f"{peaks['hbm_tb_per_s']:.3f}",
                ", ".join(f"{name} {value:,.1f}" for name, value in peaks["peak_tera_ops_per_s"].items()),
            )
        )
    columns = ("name", "vendor", "dies", "SPCs", "HBM", "TB/s", "peak, 10^12 operations a second")
    print_table(columns, rows, right=(2, 3, 4, 5))


def _peaks(machine: Machine) -> dict[str, Any]:
    """What the figures amount to."""
    return {
        "name": machine.name,
        "vendor": machine.vendor,
        "digest": machine.digest,
        "dies": machine.dies,
        "spcs": machine.spcs,
        "hbm_bytes": machine.hbm_bytes,
        "hbm_tb_per_s": machine.hbm_bytes_per_cycle() * machine.clock_ghz / 1e3,
        "peak_tera_ops_per_s": {name: machine.peak_flops_per_s(name) / 1e12 for name in machine.formats},
    }


def _show(machine: Machine, format: Format) -> None:
    if format is Format.JSON:
        figures = {name: _figure_json(figure) for name, figure in machine.figures.items()}
        print_json({"schema": "birc.target/1", **_peaks(machine), "figures": figures})
        return
    print_text(f"{machine.name} by {machine.vendor}, digest {machine.digest[:12]}", "")
    rows = [
        (name, f"{figure.value:,.12g}", figure.unit, _range(figure), figure.confidence, figure.source)
        for name, figure in machine.figures.items()
    ]
    print_table(("figure", "value", "unit", "range", "confidence", "source"), rows, right=(1,))


def _range(figure: Figure) -> str:
    return "" if figure.low is None or figure.high is None else f"{figure.low:,.12g} to {figure.high:,.12g}"


def _figure_json(figure: Figure) -> dict[str, Any]:
    return {
        "value": figure.value,
        "unit": figure.unit,
        "low": figure.low,
        "high": figure.high,
        "confidence": figure.confidence,
        "source": figure.source,
        "section": figure.section,
    }
