"""What is known of the dies while time goes on: their command processors, and the work of their SPCs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from birc.runtime.program import Descriptor
from birc.runtime.timing.dma import Job
from birc.runtime.timing.issues import Issue
from birc.runtime.timing.kernels import SpcClass


class Span(NamedTuple):
    """A stretch of one SPC's time in one class of the ledger; `awaited` names what a wait is for."""

    start: int
    end: int
    kind: str
    awaited: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """A kernel on an SPC, or on several at the same time: its walk between `start` and `end`, for run number `run`."""

    run: int
    start: int
    end: int
    member: SpcClass


@dataclass(slots=True)
class Run:
    """One execution of a `run` command on all its dies."""

    issue: Issue
    start: int
    end: int
    work: list[tuple[int, int, Work]] = field(default_factory=list)  # die, SPC


@dataclass(frozen=True, slots=True)
class Meeting:
    """SPCs wait for each other: all have ended at `stored`, which all have seen at `seen`.

    Run `last`, the last of the die, has ended at `own`.
    """

    last: str
    own: int
    stored: int
    seen: int


@dataclass(slots=True)
class Die:
    """One die: the time of its command processor, what it did before, and the work of its SPCs."""

    number: int
    spcs: int
    time: int = 0
    log: list[Span] = field(default_factory=list)
    log_starts: list[int] = field(default_factory=list)
    mask: int = 0
    slots: dict[int, Descriptor] = field(default_factory=dict)
    multicast: str | None = None
    events: dict[int, list[tuple[Job, Issue]]] = field(default_factory=dict)
    work: list[list[Work]] = field(default_factory=list)
    gaps: list[list[Span]] = field(default_factory=list)
    runs: list[tuple[int, int, int]] = field(default_factory=list)  # run, start, end on this die
    preloads: dict[int, int] = field(default_factory=dict)  # by SPC, when the kernel that is not run yet loads B
    meeting: Meeting | None = None  # of the SPCs, the last one
    last_end: int = 0  # of all kernels until now
    last_run: int = -1  # the first run that ends then: what a barrier waits for

    def __post_init__(self) -> None:
        self.work = [[] for _ in range(self.spcs)]
        self.gaps = [[] for _ in range(self.spcs)]

    def spend(self, until: int, kind: str, awaited: str = "") -> None:
        """The command processor is busy or waits until a time."""
        if until > self.time:
            self.log.append(Span(self.time, until, kind, awaited))
            self.log_starts.append(self.time)
            self.time = until

    @property
    def met_at(self) -> int:
        """Before this time no SPC begins what comes behind the last meeting."""
        return self.meeting.seen if self.meeting is not None else 0

    def idle_at(self, spc: int) -> int:
        """When the SPC's last kernel ends."""
        return self.work[spc][-1].end if self.work[spc] else 0

    def runs_after(self, number: int) -> list[tuple[int, int]]:
        """Start and end of the runs on this die after run `number`."""
        found = []
        for run, start, end in reversed(self.runs):
            if run <= number:
                break
            found.append((start, end))
        return found


class Moment(NamedTuple):
    """When an SPC begins the next kernel: what it did last, and since when its operand is being loaded, if it is."""

    last_run: int
    begun: int
    early: int | None
