"""The text form of a report: what people read after `birc profile`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_SLOWEST: Final = 10
_NAME_WIDTH: Final = 44
_ALIKE: Final = 1e-3
"""The part by which bounds may differ that are taken as the same: some round cycles down."""

_MAIN_CLASSES: Final = 4
"""Classes of the ledger that later calls name."""

_CLASS_WORDS: Final = {
    "tcore_useful": "T-core, useful work",
    "tcore_padding": "T-core, padding",
    "vector": "vector work",
    "wait_hbm": "waits for HBM",
    "wait_l2_noc": "waits for L2, NoC, tensor buffer",
    "wait_other_die": "waits for the other die",
    "wait_dependency": "waits for a dependency",
    "launch_barrier": "launches and barriers",
    "finished_masked": "finished or masked off",
}


def render(report: Mapping[str, Any]) -> str:
    """The text of a report's JSON object: summary, ledger, bounds, the operations that take longest."""
    parts = [_summary(report), _ledger(report["ledger"]), _bounds(report), _slowest(report)]
    if report["warm"]:
        parts.insert(1, _warm(report["warm"]))
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Aligned columns; the first `left` are text, the others are flush right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join((line(head), line(["-" * width for width in widths]), *map(line, rows)))


def _summary(report: Mapping[str, Any]) -> str:
    sram, traffic, use = report["sram"], report["traffic"], report["utilization"]
    band = report["latency_range_us"]
    band_text = f"  ({_us(band[0])} to {_us(band[1])})" if band else ""
    lower, bound_us = sram["lower_bound_bytes"], report["bound_us"]["max"]
    compulsory = traffic["compulsory_bytes"]
    rows = [
        ("latency", _us(report["latency_us"]) + band_text),
        ("with PCIe, host" if report["placement"]["host_nodes"] else "with PCIe", _us(report["end_to_end_us"])),
        ("latency / bound", f"{_ratio(report['latency_us'], bound_us)}  {largest_bound(report['bound_us'])}".rstrip()),
        ("throughput", f"{report['throughput_per_s']:,.1f} a second"),
        ("T-core", f"{use['tcore']:.1%} of peak, useful work"),
        ("vector cores", f"{use['vcore']:.1%} busy"),
        ("HBM", f"{use['hbm']:.1%} of peak, {_bytes(traffic['hbm_bytes'])}"),
        ("compulsory", f"{_bytes(compulsory)}; moved / compulsory {_ratio(traffic['hbm_bytes'], compulsory)}"),
        ("die to die", f"{use['d2d']:.1%} of peak, {_bytes(traffic['d2d_bytes'])}"),
        ("SRAM", f"{_bytes(sram['peak_bytes'])} of {_bytes(sram['capacity_bytes'])}"),
    ]
    if lower is not None:
        rows.append(("SRAM, at least", f"{_bytes(lower)}; peak / live {_ratio(sram['peak_bytes'], lower)}"))
    head = f"{report['model']} on {report['target']}, precision {report['precision']}, batch {report['batch']}"
    return "\n".join([head, *(f"  {name:<15} {value}" for name, value in rows), *_host(report)])


def _warm(warm: Mapping[str, Any]) -> str:
    """Later calls, which find weights on the chip."""
    traffic, latency, total = warm["traffic"], warm["latency_us"], sum(warm["ledger"].values()) or 1.0
    shares = sorted(warm["ledger"].items(), key=lambda entry: -entry[1])[:_MAIN_CLASSES]
    rows = [
        ("latency", _us(latency)),
        ("latency / roof", f"{_ratio(latency, warm['roofline_us'])}"),
        ("throughput", f"{warm['throughput_per_s']:,.1f} a second"),
        ("on the chip", f"{_bytes(warm['resident_bytes'])} of weights, over all dies"),
        ("HBM", _bytes(traffic["hbm_bytes"])),
        (
            "compulsory",
            f"{_bytes(traffic['compulsory_bytes'])}; moved / compulsory "
            f"{_ratio(traffic['hbm_bytes'], traffic['compulsory_bytes'])}",
        ),
        ("die to die", _bytes(traffic["d2d_bytes"])),
        ("cycles", ", ".join(f"{_CLASS_WORDS[name]} {cycles / total:.1%}" for name, cycles in shares)),
    ]
    head = "Later calls, which find the weights on the chip (warm)"
    return "\n".join([head, *(f"  {name:<15} {value}" for name, value in rows)])


def _ratio(value: float, least: float) -> str:
    """How many times the least a value is."""
    return f"{value / least:.2f}" if least else "-"


def largest_bound(bounds: Mapping[str, float | None]) -> str:
    """The name of the bound that the largest is, or is as good as; "" where all are 0."""
    least = (bounds["max"] or 0.0) * (1 - _ALIKE)
    names = (name for name, value in bounds.items() if name != "max" and value and value >= least)
    return next(names, "")


def _host(report: Mapping[str, Any]) -> list[str]:
    placement = report["placement"]
    if not placement["host_nodes"]:
        return []
    time_us = sum(row["end_us"] - row["start_us"] for row in report["per_op"] if row["engine"] == "host")
    nodes = [f"    {node['name']} ({node['op_type']}): {node['reason']}" for node in placement["host"]]
    return [f"  {'on the host':<15} {placement['host_nodes']} nodes, {_us(time_us)}", *nodes]


def _ledger(ledger: Mapping[str, float]) -> str:
    total = sum(ledger.values()) or 1.0
    rows = [(_CLASS_WORDS[name], f"{cycles / total:.1%}") for name, cycles in ledger.items()]
    return "Where the SPCs' cycles went\n" + table(("class", "share"), rows)


def _bounds(report: Mapping[str, Any]) -> str:
    """The least that the model needs of each resource beside what the program asks of it."""
    latency = report["latency_us"] or 1.0
    rows = []
    for name, bound in report["bound_us"].items():
        load = report["load_us"].get(name)
        least = ("-", "-") if bound is None else (_us(bound), f"{bound / latency:.1%}")
        rows.append((name, *least, "" if load is None else _us(load)))
    head = ("resource", "bound", "of latency", "this program")
    return "What no schedule can avoid, and what each resource alone would need for this program\n" + table(head, rows)


def _slowest(report: Mapping[str, Any]) -> str:
    operations = sorted(report["per_op"], key=lambda row: row["start_us"] - row["end_us"])[:_SLOWEST]
    rows = [
        (
            _short(row["name"]),
            row["engine"],
            row["bound_by"],
            _us(row["end_us"] - row["start_us"]),
            f"{row['utilization']:.1%}",
            _bytes(row["bytes"]),
        )
        for row in operations
    ]
    head = ("operation", "engine", "bound by", "time", "T-core", "HBM")
    return f"The {len(rows)} longest of {len(report['per_op'])} operations\n" + table(head, rows, left=3)


def _short(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 3] + "..."


def _us(value: float) -> str:
    return f"{value / 1000:,.3f} ms" if value >= 10_000 else f"{value:,.2f} us"


def _bytes(value: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if value >= size:
            return f"{value / size:,.2f} {unit}"
    return f"{value} B"
