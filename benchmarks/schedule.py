"""How near the schedules of real networks come to the bounds of the machine.

    make bench-schedule         (or: python benchmarks/schedule.py [-k REGEX] [--quick] [--noc 64] [--ports 64 128])

Compiles networks at full size in BF16 and simulates them in time, on all dies and on one. Prints a table with the
goal beside each figure, and one of the rows that compile soon with other NoC ports (`--ports` alone: none); writes both
to `schedule.md` in this folder, of a part of the rows (`-k`, `--quick`) only where `--output` says so. With `--noc`
the machine has NoC ports of so many bytes a cycle, and the first table alone goes to `schedule_noc64.md`. A row takes
minutes and gigabytes.
"""

from __future__ import annotations

import argparse
import gc
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.status import Status
from rich.table import Table
from schedule_ports import PORTS_BYTES, AtPorts, ports_markdown, ports_text
from schedule_rows import FEW_LAYERS, Row, rows

from birc.compiler import compile_model
from birc.runtime import load
from birc.runtime.errors import BircError, InternalError
from birc.runtime.machine import Machine, load_machine
from birc.runtime.report import Report
from birc.runtime.report_text import largest_bound

PRECISION = "bf16"
RESOURCES = ("tcore", "vector", "hbm", "noc")
MOVES_WEIGHTS = ("hbm", "stream", "noc", "roofline", "max")
"""Bounds that charge the weights, which are on the chip already in a warm call."""
WIDTH_WITHOUT_TERMINAL = 220
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """One network compiled and simulated. `one_die_us` is its latency with one die switched on, None if not asked."""

    row: Row
    report: Report
    compile_s: float
    one_die_us: float | None

    @property
    def latency_us(self) -> float:
        return latency_us(self.row, self.report)

    @property
    def bounds_us(self) -> dict[str, float]:
        """The bounds of the call that the row is about, the largest under `max`."""
        found = {name: value or 0.0 for name, value in self.report.bound_us.items()}
        if self.row.resident and self.report.warm is not None:
            found = {name: value for name, value in found.items() if name not in MOVES_WEIGHTS}
            found["roofline"] = self.report.warm["roofline_us"]
            found["max"] = max(found.values())
        return found

    @property
    def bound(self) -> tuple[str, float]:
        """The name and the microseconds of the largest bound."""
        return largest_bound(self.bounds_us), self.bounds_us["max"]

    @property
    def resource(self) -> tuple[str, float]:
        """The same of the bounds that look at one resource alone, without launch and order."""
        found = {name: value for name, value in self.bounds_us.items() if name in RESOURCES}
        return max(found.items(), key=lambda entry: entry[1])

    @property
    def over_bound(self) -> float:
        return self.latency_us / self.bound[1]

    @property
    def over_compulsory(self) -> float:
        is_warm = self.row.resident and self.report.warm is not None
        traffic = self.report.warm["traffic"] if is_warm and self.report.warm else self.report.traffic
        return float(traffic["hbm_bytes"] / traffic["compulsory_bytes"])

    @property
    def over_live(self) -> float | None:
        """SRAM in use over the most that lives at once; None where nothing lies on the chip."""
        live = self.report.sram["lower_bound_bytes"]
        return (self.report.sram["peak_bytes"] or 0) / live if live else None


def latency_us(row: Row, report: Report) -> float:
    """The latency of the call that a row is about: of a later one where weights stay on the chip."""
    return float(report.warm["latency_us"]) if row.resident and report.warm is not None else report.latency_us


def _held(value: float, goal: float | None) -> str:
    """The goal, marked where it is met."""
    return "-" if goal is None else f"<= {goal:.2f} {'yes' if value <= goal else 'no'}"


COLUMNS: tuple[tuple[str, Callable[[Result], str]], ...] = (
    ("model", lambda r: r.row.model),
    ("batch", lambda r: str(r.row.batch)),
    ("latency us", lambda r: f"{r.latency_us:,.1f}"),
    ("goal us", lambda r: _held(r.latency_us, r.row.goals.latency_us)),
    ("roofline us", lambda r: f"{r.bounds_us['roofline']:,.1f}"),
    ("bound us", lambda r: f"{r.bound[1]:,.1f} {r.bound[0]}"),
    ("resource us", lambda r: f"{r.resource[1]:,.1f} {r.resource[0]}"),
    ("latency / bound", lambda r: f"{r.over_bound:.2f}"),
    ("goal", lambda r: _held(r.over_bound, r.row.goals.over_bound)),
    ("HBM / compulsory", lambda r: f"{r.over_compulsory:.2f}"),
    ("goal ", lambda r: _held(r.over_compulsory, r.row.goals.over_compulsory)),
    ("SRAM / live", lambda r: "-" if r.over_live is None else f"{r.over_live:.2f}"),
    ("two dies", lambda r: "-" if r.one_die_us is None else f"{r.one_die_us / r.latency_us:.2f} x"),
    ("compile s", lambda r: f"{r.compile_s:.0f}"),
)
LEFT_COLUMNS = 1

EXPLANATION = """\
All figures are of the timing model, none is measured on silicon. `latency` begins with inputs and weights in HBM and
ends with the outputs there, launch included. `roofline` is the larger of multiply-adds at peak rate and compulsory
bytes at the raw rate of HBM; `bound` is the largest of the bounds that no schedule can avoid, with its name, and
`resource` the largest of those that look at one resource alone, without launch and order (docs/timing.md, section 4).
`SRAM / live` is the memory in use over the most that lives at once. `two dies` is the latency with one die of the same
machine switched on over that with all. `compile` is the time that compilation takes on this computer. Where weights are
`on the chip`, all figures are of a call that finds them there (`--resident-weights`); its bounds charge no weights.
"""


def profiled(row: Row, model: onnx.ModelProto, machine: Machine, tell: Tell) -> tuple[Report, float]:
    """The report of a row's model, and the seconds that compiling it took. Raises the errors of birc."""
    start = time.perf_counter()
    package = compile_model(model, machine, PRECISION, progress=tell, resident_weights=row.resident)
    if package is None:
        raise InternalError("a compilation without a last phase gave no package")
    seconds = time.perf_counter() - start
    tell("simulating")
    return load(package).profile(with_range=False), seconds


def measure(row: Row, machine: Machine, layers: int | None, with_one_die: bool, tell: Tell) -> Result:
    """Compile and simulate one row. Raises the errors of birc when it cannot be compiled."""
    tell("building the model")
    model = row.make(layers)
    report, compile_s = profiled(row, model, machine, tell)
    if not with_one_die or machine.dies == 1:
        return Result(row, report, compile_s, None)
    one_die, _ = profiled(row, model, machine.with_dies(1), lambda phase: tell(f"one die: {phase}"))
    return Result(row, report, compile_s, latency_us(row, one_die))


def measure_ports(
    console: Console, results: Sequence[Result], machine: Machine, options: argparse.Namespace
) -> list[AtPorts]:
    """Those rows that compile soon, with other NoC ports. What cannot be compiled is told and left out."""
    found = []
    for own in (result for result in results if result.row.quick and options.ports and options.noc is None):
        with console.status(own.row.name) as status:
            try:
                found.append(_at_ports(own, machine, options, partial(_show, status, own.row.name)))
            except BircError as error:
                console.print(f"{own.row.name}: {error}")
        gc.collect()
    return found


def _at_ports(own: Result, machine: Machine, options: argparse.Namespace, tell: Tell) -> AtPorts:
    row, figures = own.row, {}
    model = row.make(FEW_LAYERS if options.quick else None)
    for num_bytes in options.ports:
        narrow = machine.with_values({"noc_bytes_per_cycle": num_bytes}, source="benchmark")
        result = Result(row, profiled(row, model, narrow, tell)[0], 0.0, None)
        figures[num_bytes] = result.latency_us, result.over_bound
    return AtPorts(row.model, row.batch, figures, own.latency_us)


def measure_all(
    console: Console, chosen: Sequence[Row], machine: Machine, options: argparse.Namespace
) -> tuple[list[Result], list[str]]:
    """All rows one after the other; those that cannot be compiled are told and left out."""
    results, failures = [], []
    layers = FEW_LAYERS if options.quick else None
    for row in chosen:
        with console.status(row.name) as status:
            try:
                result = measure(row, machine, layers, not options.all_dies, partial(_show, status, row.name))
            except BircError as error:
                failures.append(f"{row.name}: {error}")
                console.print(failures[-1])
                continue
        results.append(result)
        console.print(f"{row.name}: {', '.join(f'{name} {cell(result)}' for name, cell in COLUMNS[2:])}")
        gc.collect()  # Models of gigabytes hold each other in cycles.
    return results, failures


def _show(status: Status, name: str, phase: str) -> None:
    status.update(f"{name}: {phase}")


def results_table(results: Sequence[Result]) -> Table:
    """The rows for the terminal."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, (name, _) in enumerate(COLUMNS):
        table.add_column(name, justify="left" if number < LEFT_COLUMNS else "right")
    for result in results:
        table.add_row(*(cell(result) for _, cell in COLUMNS))
    return table


def markdown(
    results: Sequence[Result], failures: Sequence[str], ports: Sequence[AtPorts], machine: Machine, quick: bool
) -> str:
    """The rows as a Markdown document."""
    rule = ["---" if number < LEFT_COLUMNS else "--:" for number in range(len(COLUMNS))]
    lines = [[name.strip() for name, _ in COLUMNS], rule]
    lines += [[cell(result) for _, cell in COLUMNS] for result in results]
    size = f" Networks with {FEW_LAYERS} layers each." if quick else ""
    noc = f"NoC ports of {machine.noc_bytes_per_cycle:g} B a cycle"
    parts = [
        "# Schedules and bounds",
        f"Written by `make bench-schedule` for {machine.name}, {noc}, BF16; not to be edited.{size}",
        "\n".join(f"| {' | '.join(line)} |" for line in lines),
        *(f"Failed: {failure}" for failure in failures),
        EXPLANATION.strip(),
        *([ports_markdown(ports, machine)] if ports else []),
    ]
    return "\n\n".join(parts) + "\n"


def arguments(parameters: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare the schedules of networks with the machine's bounds.")
    parser.add_argument("-k", dest="pattern", metavar="REGEX", help="only rows whose names match, as 'BERT.*batch 8$'")
    parser.add_argument("--quick", action="store_true", help=f"{FEW_LAYERS} layers; leave out the largest batches")
    parser.add_argument("--target", default="br100", help="a machine by name, or its TOML file")
    parser.add_argument("--noc", type=int, metavar="BYTES", help="a cycle, of each SPC's NoC port")
    parser.add_argument("--ports", type=int, nargs="*", default=PORTS_BYTES, help="other NoC ports, bytes a cycle")
    parser.add_argument("--all-dies", action="store_true", help="do not compile for one die as well")
    parser.add_argument("--output", type=Path, help="folder of the results")
    return parser.parse_args(parameters)


def main(parameters: Sequence[str] | None = None) -> int:
    """Run the benchmark. Returns 1 when a network could not be compiled."""
    options = arguments(parameters)
    machine = load_machine(options.target)
    if options.noc is not None:
        machine = machine.with_values({"noc_bytes_per_cycle": options.noc}, source="--noc")
    chosen = [row for row in rows() if row.quick or not options.quick]
    chosen = [row for row in chosen if options.pattern is None or re.search(options.pattern, row.name)]
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    results, failures = measure_all(console, chosen, machine, options)
    console.print(results_table(results))
    ports = measure_ports(console, results, machine, options)
    if ports:
        console.print(ports_text(ports, machine))
    folder = options.output
    if folder is None and not options.quick and options.pattern is None:
        folder = Path(__file__).parent
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        name = "schedule.md" if options.noc is None else f"schedule_noc{options.noc}.md"
        (folder / name).write_text(markdown(results, failures, ports, machine, options.quick), encoding="utf-8")
        console.print(f"written to {name} in {folder}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
