"""The benchmark: compile time, simulation speed beside onnxruntime, and what the device is predicted to do.

    make bench         (or: python benchmarks/bench.py [--quick] [MODEL.onnx ...])

Prints a table and writes it, with the figures of the computer it ran on, to `results.md` and `results.json`
in this folder. Needs onnxruntime and threadpoolctl (the extra `bench`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import threadpoolctl
from measure import LEAST_RUNS, THREADS, Measurement, measure
from one_node import costs, summary
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from workloads import Workload, given, workloads

from birc.runtime.errors import BircError

SCHEMA = "birc.bench/1"
PRECISIONS = ("model", "bf16")
LIBRARIES = ("birc", "numpy", "onnx", "onnxruntime")
WIDTH_WITHOUT_TERMINAL = 200

Cell = Callable[[Measurement], str]
COLUMNS: tuple[tuple[str, Cell], ...] = (
    ("model", lambda m: m.name),
    ("precision", lambda m: m.precision),
    ("compile", lambda m: _seconds(m.compile_s)),
    ("values", lambda m: _seconds(m.values_s)),
    ("onnxruntime", lambda m: _seconds(m.onnxruntime_s)),
    ("ratio", lambda m: f"{m.over_onnxruntime:.2f}"),
    ("error", lambda m: f"{m.relative_error:.1e}"),
    ("timing", lambda m: _seconds(m.timing_s)),
    ("latency", lambda m: f"{m.latency_us:,.1f} us"),
    ("/ roofline", lambda m: f"{m.over_roofline:.2f}"),
    ("T-core", lambda m: f"{m.tcore_utilization:.1%}"),
    ("vector", lambda m: f"{m.vector_utilization:.1%}"),
    ("HBM", lambda m: f"{m.hbm_utilization:.1%}"),
    ("bytes / compulsory", lambda m: f"{m.over_compulsory:.2f}"),
)
LEFT_COLUMNS = 2

EXPLANATION = f"""\
Times of this computer: `compile`, from the ONNX model to the package, once; `values`, the package run by
the values engine; `onnxruntime`, the model run by it in this process with {THREADS} threads; `timing`, the
package run by the timing engine. Each of the last three is the median of at least {LEAST_RUNS} runs after one
that does not count. `ratio` is values over onnxruntime; `error` is the norm of the difference between their
outputs over that of onnxruntime's.

Predictions for the device: `latency`; `/ roofline`, latency over the least that arithmetic peak and
compulsory bytes allow; the share of the T-core's peak that is useful work, of the time in which the vector
cores are busy, and of HBM's peak; `bytes / compulsory`, HBM traffic over what every plan has to move.
"""


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.1f} ms"


def environment() -> dict[str, Any]:
    """The computer and the libraries, as far as they decide the times."""
    pools = [
        {key: pool.get(key) for key in ("user_api", "internal_api", "version", "num_threads", "architecture")}
        for pool in threadpoolctl.threadpool_info()
    ]
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "thread_pools": pools,
    }


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def results_table(rows: Sequence[Measurement]) -> Table:
    """The rows for the terminal."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, (name, _) in enumerate(COLUMNS):
        table.add_column(name, justify="left" if number < LEFT_COLUMNS else "right")
    for row in rows:
        table.add_row(*(cell(row) for _, cell in COLUMNS))
    return table


def markdown(
    rows: Sequence[Measurement], failures: Sequence[str], where: dict[str, Any], target: str, one_node: str = ""
) -> str:
    """The rows as a Markdown document; `one_node` is what was measured of models of one node."""
    rule = ["---" if number < LEFT_COLUMNS else "--:" for number in range(len(COLUMNS))]
    lines = [[name for name, _ in COLUMNS], rule, *([cell(row) for _, cell in COLUMNS] for row in rows)]
    libraries = ", ".join(f"{name} {number}" for name, number in where["libraries"].items())
    pools = ", ".join(f"{p['internal_api']} {p['version']} x {p['num_threads']}" for p in where["thread_pools"])
    parts = [
        "# Benchmark results",
        f"Written by `make bench` for the target `{target}`; not to be edited.",
        "\n".join(f"| {' | '.join(line)} |" for line in lines),
        *(f"Failed: {failure}" for failure in failures),
        EXPLANATION.strip(),
        *((one_node,) if one_node else ()),
        f"Measured on: {where['processor']}, {where['cores']} cores, load {where['load_average_at_start']} "
        f"at the start; Python {where['python']}, {libraries}; thread pools: {pools}.",
    ]
    return "\n\n".join(parts) + "\n"


def run_all(
    console: Console, chosen: Sequence[Workload], target: str, precisions: Sequence[str]
) -> tuple[list[Measurement], list[str]]:
    """Measure everything; what cannot be compiled or run is told and left out."""
    rows, failures = [], []
    for workload in chosen:
        sample = workload.make()
        for precision in precisions:
            console.print(f"{workload.name}, {precision} ...")
            try:
                rows.append(measure(workload.name, sample, target, precision))
            except BircError as error:
                failures.append(f"{workload.name}, {precision}: {error}")
                console.print(f"  {failures[-1]}")
    return rows, failures


def arguments(parameters: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure birc beside onnxruntime.")
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL.onnx", help="measure these as well")
    parser.add_argument("--only", action="store_true", help="only the models given")
    parser.add_argument("--quick", action="store_true", help="leave out what takes long; model precision only")
    parser.add_argument("--target", default="br100")
    parser.add_argument("--batch", type=int, help="first dimension of every input of the models given")
    parser.add_argument("--dim", action="append", default=[], metavar="NAME=N", help="fix a dimension of them")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder of the results")
    return parser.parse_args(parameters)


def main(parameters: Sequence[str] | None = None) -> int:
    """Run the benchmark. Returns 1 when a model could not be measured."""
    options = arguments(parameters)
    dimensions = {name: int(size) for name, _, size in (text.partition("=") for text in options.dim)}
    standard = () if options.only else workloads()
    chosen = [workload for workload in standard if workload.quick or not options.quick]
    chosen += given(options.models, options.batch, dimensions)
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    where = environment()
    precisions = PRECISIONS[:1] if options.quick else PRECISIONS
    rows, failures = run_all(console, chosen, options.target, precisions)
    console.print(results_table(rows))
    one_node = "" if options.only or options.quick else summary(tuple(costs()))
    console.print(one_node)
    text = markdown(rows, failures, where, options.target, one_node)
    content = {
        "schema": SCHEMA,
        "target": options.target,
        "environment": where,
        "rows": [asdict(row) for row in rows],
        "failures": failures,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.md").write_text(text, encoding="utf-8")
    (options.output / "results.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to results.md and results.json in {options.output}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
