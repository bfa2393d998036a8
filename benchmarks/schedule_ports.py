"""The table of networks on machines with other NoC ports: for information, no goal goes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from birc.runtime.machine import Machine
from birc.runtime.report_text import table

PORTS_BYTES: Final = (64, 128)
"""Bytes a cycle of an SPC's NoC port, unless told; the machine's own stands beside them."""

HEADING: Final = "## Other NoC ports"


@dataclass(frozen=True, slots=True)
class AtPorts:
    """One network: by the bytes a cycle of a port its latency in microseconds and that over the largest bound there."""

    model: str
    batch: int
    figures: Mapping[int, tuple[float, float]]
    own_us: float


def ports_text(found: Sequence[AtPorts], machine: Machine) -> str:
    """The table for the terminal."""
    heads, *lines = _lines(found, machine)
    return table(heads, lines)


def ports_markdown(found: Sequence[AtPorts], machine: Machine) -> str:
    """The section of the document on one row or more."""
    heads, *lines = _lines(found, machine)
    listed = " and ".join(str(num_bytes) for num_bytes in found[0].figures)
    return "\n".join(
        [
            HEADING,
            "",
            f"For information: compiled anew for NoC ports of {listed} B a cycle; the latency, over the largest bound",
            f"with such ports, and over the latency with ports of {_own(machine)}. Rows that take long to compile are",
            "left out.",
            "",
            *(f"| {' | '.join(line)} |" for line in (heads, ["---", *["--:"] * (len(heads) - 1)], *lines)),
        ]
    )


def _own(machine: Machine) -> str:
    return f"{machine.noc_bytes_per_cycle:g} B"


def _lines(found: Sequence[AtPorts], machine: Machine) -> list[list[str]]:
    """The heads, and the cells of every row."""
    own = _own(machine)
    lines = [["model", "batch"]]
    for num_bytes in found[0].figures:
        lines[0] += [f"us at {num_bytes} B", "/ bound", f"/ {own}"]
    lines[0].append(f"us at {own}")
    for row in found:
        cells = [row.model, str(row.batch)]
        for latency_us, over_bound in row.figures.values():
            cells += [f"{latency_us:,.1f}", f"{over_bound:.2f}", f"{latency_us / row.own_us:.2f}"]
        lines.append([*cells, f"{row.own_us:,.1f}"])
    return lines
