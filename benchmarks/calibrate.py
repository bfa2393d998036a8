"""Fits the machine's free parameters to the vendor's measurements and draws the sets that fit as well.

    python benchmarks/calibrate.py                 compare the machine file with the anchors
    python benchmarks/calibrate.py --fit           fit the three parameters, others as in the machine file
    python benchmarks/calibrate.py --sets 16       draw sets of figures and write br100.calibration.json

One parameter an anchor, in this order: `launch_cycles` and `hbm_latency_cycles` from the two vector
additions, then `semaphore_cycles` from BERT-large. Nothing else is adjusted. Sets are drawn uniformly
within the ranges of the machine file from a fixed seed; a set is kept when its fitted parameters stay
within their ranges.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from anchors.bert import bert_large
from anchors.vector_add import vector_add

from birc.runtime.machine import Machine, load_machine
from birc.runtime.program import Program
from birc.runtime.timing import simulate
from birc.runtime.timing.calibration import SCHEMA, SUFFIX

CARD = "br104"  # one die: what the vendor measured
BASE = "br100"  # whose file holds the figures
SEED = 20221122
SAMPLES_PER_LAUNCH = 44.7

FITTED = ("launch_cycles", "hbm_latency_cycles", "semaphore_cycles")


@dataclass(frozen=True)
class Anchor:
    """A published time, in cycles of 1 ns; `tolerance` is that of the publication."""

    name: str
    program: Callable[[Machine], Program]
    cycles: int
    tolerance: float

    def simulated(self, machine: Machine) -> int:
        return simulate(self.program(machine), machine).latency_cycles


WIDE_ADD = Anchor("vector add, 4096 threads an SPC", lambda machine: vector_add(machine, 4096), 39_000, 0.03)
NARROW_ADD = Anchor("vector add, 512 threads an SPC", lambda machine: vector_add(machine, 512), 63_000, 0.01)
BERT = Anchor("BERT-large, a pack of 512 tokens an SPC", bert_large, 16_140_000, 0.01)
ANCHORS = (WIDE_ADD, NARROW_ADD, BERT)


def fit(machine: Machine) -> Machine | None:
    """The machine with the three parameters that reproduce the anchors, or None when a range excludes it."""

    def spread(latency: int) -> int:
        other = machine.with_values({"hbm_latency_cycles": latency})
        return NARROW_ADD.simulated(other) - WIDE_ADD.simulated(other)

    latency = _solve(spread, NARROW_ADD.cycles - WIDE_ADD.cycles, *limits("hbm_latency_cycles"))
    if latency is None:
        return None
    machine = machine.with_values({"hbm_latency_cycles": latency})
    launch = machine.launch_cycles + WIDE_ADD.cycles - WIDE_ADD.simulated(machine)
    low, high = limits("launch_cycles")
    if not low <= launch <= high:
        return None
    machine = machine.with_values({"launch_cycles": launch})

    def bert(semaphore: int) -> int:
        return BERT.simulated(machine.with_values({"semaphore_cycles": semaphore}))

    semaphore = _solve(bert, BERT.cycles, *limits("semaphore_cycles"))
    return None if semaphore is None else machine.with_values({"semaphore_cycles": semaphore})


def limits(name: str) -> tuple[int, int]:
    """The range of a figure in the machine file."""
    figure = load_machine(BASE).figures[name]
    return int(figure.low or figure.value), int(figure.high or figure.value)


def _solve(rising: Callable[[int], int], wanted: int, low: int, high: int) -> int | None:
    """The whole number whose value is nearest to `wanted`, None when the range ends before."""
    if not rising(low) <= wanted <= rising(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rising(middle) <= wanted else (low, middle)
    return min((low, high), key=lambda value: abs(rising(value) - wanted))


def draw(rng: random.Random, machine: Machine) -> dict[str, float]:
    """A value within its range for every estimated figure that is not fitted."""
    values: dict[str, float] = {}
    for name, figure in load_machine(BASE).figures.items():
        if figure.low is None or figure.high is None or name in FITTED:
            continue
        drawn = rng.uniform(figure.low, figure.high)
        whole = isinstance(machine.figures[name].value, int)
        values[name] = round(drawn) if whole else round(drawn, 3)
    return values


def draw_sets(count: int) -> list[dict[str, float]]:
    """`count` sets that reproduce the anchors."""
    rng = random.Random(SEED)
    found: list[dict[str, float]] = []
    tries = 0
    while len(found) < count:
        tries += 1
        values = draw(rng, load_machine(CARD))
        fitted = fit(load_machine(CARD).with_values(values))
        if fitted is None:
            continue
        values |= {name: fitted.figures[name].value for name in FITTED}
        errors = ", ".join(f"{_error(anchor, fitted):+.2%}" for anchor in ANCHORS)
        found.append(values)
        print(f"set {len(found)} of {count} after {tries} draws: {errors}", flush=True)
    return found


def _error(anchor: Anchor, machine: Machine) -> float:
    return anchor.simulated(machine) / anchor.cycles - 1


def report(machine: Machine) -> None:
    """Print the anchors against the machine."""
    for name in FITTED:
        print(f"{name:<42} {machine.figures[name].value:>12g}")
    for anchor in ANCHORS:
        cycles = anchor.simulated(machine)
        print(f"{anchor.name:<42} {cycles / 1e3:>12,.1f} us, published {anchor.cycles / 1e3:,.1f}, "
              f"{cycles / anchor.cycles - 1:+.2%}")  # fmt: skip
    rate = SAMPLES_PER_LAUNCH / (BERT.simulated(machine) * 1e-9)
    print(f"{'BERT-large samples a second of a card':<42} {rate:>12,.1f}, published 2,766.7")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare, fit and sample the machine's parameters.")
    parser.add_argument("--fit", action="store_true", help="fit the parameters")
    parser.add_argument("--sets", type=int, default=0, help="draw and write this many sets")
    arguments = parser.parse_args()
    machine = load_machine(CARD)
    if arguments.fit:
        machine = fit(machine) or machine
    report(machine)
    if arguments.sets:
        figures = load_machine(BASE).figures
        nominal = {name: figure.value for name, figure in figures.items() if figure.low is not None}
        content = {"schema": SCHEMA, "nominal": nominal, "sets": draw_sets(arguments.sets)}
        path = Path(__file__).parents[1] / "runtime" / "machines" / f"{BASE}{SUFFIX}"
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
