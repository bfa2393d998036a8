"""DMA copies and die-to-die transfers in time: what the kernels leave of HBM, of the links and of the ways into SPCs.

The jobs of a lane (the DMA engines of a die, what fills its tensor buffers, or one direction of the link) start in the
order in which they were issued. A job moves as fast as its lane allows and as what it shares is left by kernels and by
jobs issued before it. It is fixed when the command stream waits for it, or for one that starts when it has ended: by
then everything that can run beside it is known.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice, pairwise, zip_longest
from typing import Final

from birc.runtime.errors import BadPackageError

Use = tuple[int, int, Fraction]  # start, end, bytes a cycle
Resource = tuple[str, int]
"""What is shared with kernels: ("hbm", die), ("link", die that sends), or ("noc", die): what enters its SPCs."""
Times = list[tuple[int, int]]  # of jobs, sorted: when the last byte moved, number

FEW_USES: Final = 16
"""So many are kept without looking which are over."""


@dataclass(slots=True, eq=False)
class Job:
    """One copy or transfer of `traffic` bytes on each side, issued at `issued`.

    `hbm` lists the dies whose HBM it uses, once for each side; `rate` is the most that its other resources
    allow. What fills tensor buffers (`enters_spcs`) comes through the ports of the SPCs. It moves data `setup_cycles`
    after its start; its event is set `done_after` cycles after the last byte.
    """

    lane: tuple[str, int]
    issued: int
    setup_cycles: int
    traffic: int
    hbm: tuple[int, ...]
    rate: Fraction
    done_after: int = 0
    enters_spcs: bool = False
    number: int = 0  # in the order of issue
    start: int = 0
    moved: int = 0  # the time of its last byte
    is_fixed: bool = False

    @property
    def shared(self) -> tuple[Resource, ...]:
        """What it shares with kernels, once for each time it uses it."""
        link = (self.lane,) if self.lane[0] == "link" else ()
        ports = (("noc", self.lane[1]),) if self.enters_spcs else ()
        return (*(("hbm", die) for die in self.hbm), *link, *ports)

    @property
    def end(self) -> int:
        """When its event is set."""
        return self.moved + self.done_after


@dataclass(slots=True)
class Copies:
    """All jobs of the device. `lanes` says how many jobs a lane runs at once."""

    rates: Mapping[Resource, Fraction]
    lanes: dict[tuple[str, int], int]
    _open: list[Job] = field(default_factory=list)
    _submitted: int = 0
    _lanes: defaultdict[tuple[str, int], Times] = field(default_factory=lambda: defaultdict(list))  # of fixed jobs
    _uses: defaultdict[Resource, list[Use]] = field(default_factory=lambda: defaultdict(list))
    _least_kept: int = FEW_USES

    def kernel_uses(self, resource: Resource, start: int, end: int, num_bytes: Fraction) -> None:
        """A kernel moves `num_bytes` through what is shared between two times."""
        if num_bytes and end > start:
            self._uses[resource].append((start, end, num_bytes / (end - start)))

    def busiest_uses(self, resource: Resource, spcs: int, moved: Iterable[tuple[int, int, Fraction]]) -> None:
        """SPCs move so many bytes each between two times: all SPCs count as the busiest at that time."""
        rates = [(start, end, num_bytes / (end - start)) for start, end, num_bytes in moved if end > start]
        times = sorted({time for start, end, _ in rates for time in (start, end)})
        for begin, until in pairwise(times):
            most = max((rate for start, end, rate in rates if start <= begin < end), default=Fraction(0))
            self.kernel_uses(resource, begin, until, spcs * most * (until - begin))

    def forget(self, time: int) -> None:
        """No job will be issued before a time: what ends before that and before all open jobs does not matter."""
        if sum(map(len, self._uses.values())) > self._least_kept:
            start = min([time, *(job.issued for job in self._open)])
            for resource, uses in self._uses.items():
                self._uses[resource] = [use for use in uses if use[1] > start]
            for lane, times in self._lanes.items():
                self._lanes[lane] = self._lasting(lane, times)
            self._least_kept = max(FEW_USES, 2 * sum(map(len, self._uses.values())))

    def _lasting(self, lane: tuple[str, int], times: Times) -> Times:
        """Of the fixed jobs of a lane those that others may still wait for: of the first ones the last to end."""
        first = min((job.number for job in self._open), default=self._submitted)
        before = [entry for entry in times if entry[1] < first]
        gone = set(before[: -self.lanes[lane]])
        return [entry for entry in times if entry not in gone]

    def submit(self, job: Job) -> None:
        """Add a job."""
        job.number = self._submitted
        self._submitted += 1
        self._open.append(job)

    def finish(self, jobs: list[Job]) -> None:
        """Fix the ends of these jobs. Jobs that stay open are reckoned with, and fixed later."""
        wanted = [job for job in jobs if not job.is_fixed]
        if not wanted:
            return
        uses = defaultdict(list, {resource: list(entries) for resource, entries in self._uses.items()})
        lanes = defaultdict(list, {lane: list(jobs) for lane, jobs in self._lanes.items()})
        placed: dict[Job, list[Use]] = {}
        for job in self._open:
            placed[job] = self._place(job, uses, lanes)
            if job in wanted:
                wanted.remove(job)
                for earlier in [j for j in placed if j is job or (j.lane == job.lane and j.moved <= job.start)]:
                    self._fix(earlier, placed.pop(earlier))
            if not wanted:
                break
        self._open = [job for job in self._open if not job.is_fixed]

    def finish_all(self) -> None:
        """Fix all jobs."""
        self.finish(list(self._open))

    def _place(self, job: Job, uses: dict[Resource, list[Use]], lanes: dict[tuple[str, int], Times]) -> list[Use]:
        """Give a job its times, take what it uses and return that."""
        at_once = self.lanes[job.lane]
        last = list(islice((moved for moved, number in reversed(lanes[job.lane]) if number < job.number), at_once))
        free = last[-1] if len(last) == at_once else 0
        job.start = max(job.issued, free)
        begin = job.start + job.setup_cycles
        pieces = self._pieces(job, begin, uses)
        job.moved = pieces[-1][1] if pieces else begin
        insort(lanes[job.lane], (job.moved, job.number))
        for resource in job.shared:
            uses[resource].extend(pieces)
        return pieces

    def _fix(self, job: Job, pieces: list[Use]) -> None:
        job.is_fixed = True
        insort(self._lanes[job.lane], (job.moved, job.number))
        for resource in job.shared:
            self._uses[resource].extend(pieces)

    def _pieces(self, job: Job, begin: int, uses: dict[Resource, list[Use]]) -> list[Use]:
        """Stretches of constant rate from `begin` until all bytes are moved."""
        changes = sorted(self._changes(job, begin, uses).items())
        shared = job.shared
        used = dict.fromkeys(shared, Fraction(0))
        left, pieces = Fraction(job.traffic), list[Use]()
        for (time, deltas), after in zip_longest(changes, changes[1:]):
            for resource, delta in deltas:
                used[resource] += delta
            left_over = ((r, max(Fraction(0), self.rates[r] - taken)) for r, taken in used.items())
            rate = min([job.rate, *(free / shared.count(r) for r, free in left_over)])
            if not (rate and left):
                continue
            needed = time - int(-left // rate)
            if after is None or needed <= after[0]:
                return [*pieces, (time, needed, left / (needed - time))]
            pieces.append((time, after[0], rate))
            left -= rate * (after[0] - time)
        if left:
            raise BadPackageError("a copy gets no bandwidth and never ends")
        return pieces

    def _changes(
        self, job: Job, begin: int, uses: dict[Resource, list[Use]]
    ) -> dict[int, list[tuple[Resource, Fraction]]]:
        """When the use of what the job shares changes from `begin` on: time -> (resource, difference)."""
        changes: dict[int, list[tuple[Resource, Fraction]]] = {begin: []}
        for resource in set(job.shared):
            for start, end, rate in uses.get(resource, ()):
                if end > begin:
                    changes.setdefault(max(start, begin), []).append((resource, rate))
                    changes.setdefault(end, []).append((resource, -rate))
        return changes
