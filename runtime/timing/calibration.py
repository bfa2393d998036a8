"""The range of a latency: the same program on machines that reproduce the vendor's measurements as well.

Most figures of a machine are estimates with a range. `benchmarks/calibrate.py` draws sets of figures within
these ranges, fits the parameters that the anchors determine to each, and ships the sets beside the machine
file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from birc.runtime.errors import InternalError
from birc.runtime.machine import Machine
from birc.runtime.program import Program
from birc.runtime.timing.engine import simulate

SCHEMA: Final = "birc.calibration/1"
SUFFIX: Final = ".calibration.json"

# The band that is reported.
LOW, HIGH = 0.05, 0.95


@dataclass(frozen=True, slots=True)
class Calibration:
    """`nominal`: the estimated figures of the machine file; `sets`: others that fit the anchors too."""

    nominal: Mapping[str, float]
    sets: tuple[Mapping[str, float], ...]

    def fits(self, machine: Machine) -> bool:
        """Whether the machine has exactly the nominal figures."""
        figures = machine.figures
        return all(name in figures and figures[name].value == value for name, value in self.nominal.items())


def latency_range(program: Program, machine: Machine) -> tuple[float, float] | None:
    """The 5 to 95 % band of the latency over the shipped sets, in cycles; None without sets for the machine.

    Simulates the program once for each set.
    """
    calibration = next((entry for entry in shipped_calibrations() if entry.fits(machine)), None)
    if calibration is None:
        return None
    machines = (machine.with_values(values, source="a calibrated set") for values in calibration.sets)
    latencies = sorted(simulate(program, other).latency_cycles for other in machines)
    return quantile(latencies, LOW), quantile(latencies, HIGH)


def quantile(ordered: list[int], part: float) -> float:
    """The value at `part` (0 to 1) of sorted values, interpolated linearly."""
    place = part * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


@cache
def shipped_calibrations() -> tuple[Calibration, ...]:
    """All calibrations that come with birc. Raises `InternalError` for a file of another form."""
    entries = sorted(files("birc.runtime.machines").iterdir(), key=lambda entry: entry.name)
    return tuple(_read(entry.read_text(encoding="utf-8"), entry.name) for entry in entries if _is_one(entry.name))


def _is_one(name: str) -> bool:
    return name.endswith(SUFFIX)


def _read(text: str, name: str) -> Calibration:
    content = json.loads(text)
    if content.get("schema") != SCHEMA or not content.get("sets"):
        raise InternalError("is no calibration", where=name, hint="run benchmarks/calibrate.py")
    return Calibration(content["nominal"], tuple(content["sets"]))
