"""The least latency of a lowered graph on a machine, resource by resource, whatever the schedule.

docs/timing.md defines and derives every figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from math import floor

from birc.compiler.passes.bounds_paths import Paths, Released
from birc.compiler.passes.bounds_work import traffic
from birc.compiler.passes.lower.lower import Lowered
from birc.runtime.machine import Machine
from birc.runtime.variant import BOUND_CYCLES, BOUNDS, RESOURCE_BOUNDS


@dataclass(frozen=True, slots=True)
class Bounds:
    """Cycles, rounded down. `l2` and `d2d` are 0: what comes from HBM may pass by L2, one die may do everything."""

    tcore: int
    vector: int
    hbm: int
    stream: int
    l2: int
    noc: int
    d2d: int
    dependency: int

    @property
    def largest(self) -> int:
        """The one that counts."""
        return max(asdict(self).values())

    @property
    def by_resource(self) -> tuple[tuple[str, int], ...]:
        """What a plan keeps of them."""
        found = asdict(self)
        return tuple((name, found[name]) for name in RESOURCE_BOUNDS)


def bounds_report(by_resource: Iterable[tuple[str, int]]) -> dict[str, int]:
    """What a package keeps of a plan's bounds: counts of cycles, with the largest; nothing of none."""
    found = dict(by_resource)
    if not found:
        return {}
    found["max"] = max(found.values())
    return {BOUND_CYCLES[name]: found[name] for name in BOUNDS}


def bounds(lowered: Lowered, machine: Machine) -> Bounds:
    """The bounds of a lowered graph."""
    paths = Paths(lowered, machine).follow()
    moved = traffic(lowered)
    resources: tuple[Callable[[Released], float], ...] = (
        lambda r: r.tcore_cycles,
        lambda r: r.vector.alu / machine.vector_lanes_per_spc,
        lambda r: r.vector.sfu / machine.sfu_lanes_per_spc,
    )
    tcore, alu, sfu = (sum(map(cycles, paths.released)) / machine.spcs for cycles in resources)
    staged = (_staged(paths.released, cycles, machine.spcs) for cycles in resources)
    num_bytes = moved.read + moved.written
    return Bounds(
        tcore=floor(tcore),
        vector=floor(max(alu, sfu)),
        hbm=floor(num_bytes / machine.hbm_bytes_per_cycle()),
        stream=floor(machine.streamed_cycles(num_bytes)),
        l2=0,
        noc=floor(max(moved.read, moved.written) / (machine.spcs * machine.noc_bytes_per_cycle)),
        d2d=0,
        dependency=max(paths.last_output(), *map(floor, staged)),
    )


def _staged(released: Iterable[Released], cycles: Callable[[Released], float], spcs: int) -> float:
    """The most of: a time, and what cannot begin before it shared by all SPCs."""
    most = total = 0.0
    for entry in sorted(released, key=lambda entry: entry.time, reverse=True):
        if amount := cycles(entry):
            total += amount
            most = max(most, entry.time + total / spcs)
    return most
