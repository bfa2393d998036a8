"""What the timing engine reports: of one walk, of each run of a kernel, and of the whole program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from birc.runtime.counts import Counts
from birc.runtime.machine import Machine

# The classes of the ledger. A cycle in which several apply belongs to the first of them.
LEDGER_CLASSES: Final = (
    "tcore_useful",
    "tcore_padding",
    "vector",
    "wait_hbm",
    "wait_l2_noc",
    "wait_other_die",
    "wait_dependency",
    "launch_barrier",
    "finished_masked",
)

Ledger = dict[str, Fraction]


@dataclass(frozen=True, slots=True)
class Variant:
    """What one execution of an instruction (`index` in its kernel) does, at one way of lying in its tensor.

    `traffic` is bytes through the ports: "hbm", "l2" (read), "l2 write", "tb", "noc in" and "noc out". A
    multicast load counts in the memory only the part that this SPC fetches.
    """

    index: int
    bytes_read: int = 0
    bytes_written: int = 0
    macs: int = 0
    cycles: int = 0  # of the T-core
    format: str = ""
    drains: int = 0  # of the accumulator, each after the last operation of a tile
    traffic: tuple[tuple[str, Fraction], ...] = ()


@dataclass(frozen=True, slots=True)
class WalkResult:
    """One SPC in one kernel. `classes`: cycles of matrix work, vector work, waits for HBM, chip, dependency.

    `awaited` splits the last class by the semaphore awaited (-1: the depth of a pipeline), `walked` is the
    number of instructions that were simulated one by one. After `input_free_cycles` its T-core is through, and the port
    to the NoC has room for what comes after this kernel.
    """

    cycles: int
    classes: tuple[int, int, int, int, int]
    alu_cycles: int
    sfu_cycles: int
    awaited: tuple[tuple[int, int], ...]
    executed: tuple[tuple[Variant, int], ...]
    input_free_cycles: int
    walked: int

    @property
    def matrix_cycles(self) -> int:
        return self.classes[0]

    @property
    def drains(self) -> int:
        """How often the accumulator was drained."""
        return sum(variant.drains * executions for variant, executions in self.executed)

    def tcore_cycles(self, machine: Machine) -> int:
        """The cycles that the T-core is taken: by its operations, and from a tile to the next."""
        return self.matrix_cycles + self.drains * machine.tile_gap_cycles()

    def least_cycles(self, machine: Machine) -> int:
        """What the busiest pipe alone needs."""
        return max(self.tcore_cycles(machine), self.alu_cycles, self.sfu_cycles)

    def traffic(self) -> dict[str, Fraction]:
        """Bytes through each port."""
        return traffic_of(self.executed)


def traffic_of(executed: tuple[tuple[Variant, int], ...]) -> dict[str, Fraction]:
    """Bytes through each port by instructions that were executed so often."""
    totals: dict[str, Fraction] = {}
    for variant, executions in executed:
        for name, num_bytes in variant.traffic:
            totals[name] = totals.get(name, Fraction(0)) + num_bytes * executions
    return totals


@dataclass(frozen=True, slots=True)
class Lead:
    """What one SPC loads of B before a kernel starts: after `cycles` its input buffer is full, or all is loaded."""

    cycles: int
    hbm_bytes: Fraction
    noc_bytes: Fraction


@dataclass(frozen=True, slots=True)
class RunTiming:
    """One execution of a `run` command: all its dies and SPCs.

    `command` indexes `static_commands`, `iteration` are the variables of the command loops around it.
    `spans` are the (die, SPC, start, end) of the SPCs that worked in it. `ledger` holds their cycles
    between start and end, `awaited` the producers that the dependency waits were for, most cycles first.
    """

    command: int
    iteration: tuple[int, ...]
    kernel: int
    name: str
    start_cycles: int
    end_cycles: int
    spans: tuple[tuple[int, int, int, int], ...]
    useful_macs: int
    executed_macs: int
    ledger: Mapping[str, Fraction]
    awaited: tuple[tuple[str, int], ...]
    traffic: Mapping[str, Fraction]

    @property
    def bound_by(self) -> str:
        """The class with most cycles."""
        return max(self.ledger, key=lambda name: self.ledger[name])


@dataclass(frozen=True, slots=True)
class CopyTiming:
    """One DMA copy or die-to-die transfer. `num_bytes` is its payload; `in_hbm` says that it reads or writes HBM."""

    command: int
    iteration: tuple[int, ...]
    mnemonic: str
    die: int
    issued_cycles: int
    end_cycles: int
    num_bytes: int
    in_hbm: bool


@dataclass(frozen=True, slots=True)
class TimingResult:
    """The execution of a program.

    `ledger` sums to `spcs` x `latency_cycles`. `traffic` is in bytes: those of `Variant.traffic` over all
    SPCs and the DMA's, "d2d" over both directions, "d2d one way" for the busier direction. `walked` of the
    `executed` instructions were simulated one by one.
    """

    latency_cycles: int
    spcs: int
    ledger: Mapping[str, Fraction]
    runs: tuple[RunTiming, ...]
    copies: tuple[CopyTiming, ...]
    counts: Counts
    traffic: Mapping[str, Fraction]
    executed_macs: Mapping[str, int]
    useful_macs: int
    tcore_cycles: int
    alu_cycles: int
    sfu_cycles: int
    dependency_cycles: int
    walked: int
    executed: int
