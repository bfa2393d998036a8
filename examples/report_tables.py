"""The reports of several runs side by side, as rich tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from birc.runtime.report import Report

Profiles = Mapping[str, Report]

_SLOWEST: Final = 10
_NODES_WIDTH: Final = 52
_LAYER_ENGINES: Final = ("tcore", "vector")  # the others are copies, which overlap with layers


def summary(profiles: Profiles) -> Table:
    """Latency, throughput, utilization, memory: one row a figure, one column a run."""
    rows: tuple[tuple[str, Callable[[Report], str]], ...] = (
        ("latency", lambda r: f"{r.latency_us:,.1f} us"),
        ("with PCIe", lambda r: f"{r.end_to_end_us:,.1f} us"),
        ("images a second", lambda r: f"{r.throughput_per_s:,.0f}"),
        ("least latency of the roofline", lambda r: f"{r.bound_us['roofline']:,.1f} us"),
        ("T-core, useful work", lambda r: f"{r.utilization['tcore']:.1%} of peak"),
        ("vector cores", lambda r: f"{r.utilization['vcore']:.1%} busy"),
        ("HBM", lambda r: f"{r.utilization['hbm']:.1%} of peak"),
        ("die-to-die link", lambda r: f"{r.utilization['d2d']:.1%} of peak"),
        ("HBM traffic", lambda r: _megabytes(r.traffic["hbm_bytes"])),
        ("  of it compulsory", lambda r: _megabytes(r.traffic["compulsory_bytes"])),
        ("die-to-die traffic", lambda r: _megabytes(r.traffic["d2d_bytes"])),
        ("SRAM, peak", lambda r: _megabytes(r.sram["peak_bytes"])),
        ("  of", lambda r: _megabytes(r.sram["capacity_bytes"])),
    )
    table = _table("What a run takes", "figure", profiles)
    for name, value in rows:
        table.add_row(name, *(value(report) for report in profiles.values()))
    return table


def ledger(profiles: Profiles) -> Table:
    """The share of all SPC cycles in each class of the ledger."""
    table = _table("Where the cycles of the SPCs went", "class", profiles)
    ledgers = [report.ledger for report in profiles.values()]
    for name in ledgers[0]:
        shares = [cycles[name] / (sum(cycles.values()) or 1.0) for cycles in ledgers]
        table.add_row(name.replace("_", " "), *(f"{share:.1%}" for share in shares))
    return table


def slowest(title: str, report: Report) -> Table:
    """The layers that take longest, and what holds each of them up."""
    layers = [operation for operation in report.per_op if operation.engine in _LAYER_ENGINES]
    layers.sort(key=lambda layer: layer.start_us - layer.end_us)
    shown = layers[:_SLOWEST]
    title = f"{title}: the {len(shown)} slowest of {len(layers)} layers"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("ONNX nodes", no_wrap=True, max_width=_NODES_WIDTH)
    table.add_column("engine")
    table.add_column("bound by")
    for name in ("time", "of latency", "T-core", "HBM"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in shown:
        duration_us = layer.end_us - layer.start_us
        table.add_row(
            _together(layer.onnx_nodes) or layer.name,
            layer.engine,
            layer.bound_by,
            f"{duration_us:,.2f} us",
            f"{duration_us / report.latency_us:.1%}",
            f"{layer.utilization:.1%}",
            _megabytes(layer.bytes),
        )
    return table


def _table(title: str, head: str, profiles: Profiles) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column(head, no_wrap=True)
    for name in profiles:
        table.add_column(name, justify="right")
    return table


def _together(names: Sequence[str]) -> str:
    """`stem.{conv, bn, relu}` for names with a common path."""
    if len(names) < 2:
        return "".join(names)
    pairs = zip(min(names), max(names), strict=False)
    prefix = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    path = prefix[: max(prefix.rfind("."), prefix.rfind("/")) + 1]
    return f"{path}{{{', '.join(name.removeprefix(path) for name in names)}}}"


def _megabytes(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / 1e6:,.1f} MB"
