"""`simulate`: the execution of a whole program in time."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from fractions import Fraction

from birc.runtime.counts import Counts
from birc.runtime.errors import InternalError, UsageError
from birc.runtime.machine import Machine
from birc.runtime.program import Affine, Kernel, Program
from birc.runtime.timing.commands import Processors
from birc.runtime.timing.dies import Run
from birc.runtime.timing.kernels import KernelTimer, SpcClass
from birc.runtime.timing.result import LEDGER_CLASSES, CopyTiming, Ledger, RunTiming, TimingResult, WalkResult
from birc.runtime.timing.steps import affine_range, instructions_in

_WALK_CLASSES = ("tcore", "vector", "wait_hbm", "wait_l2_noc", "wait_dependency")


def simulate(
    program: Program, machine: Machine, *, extrapolate: bool = True, timer: KernelTimer | None = None
) -> TimingResult:
    """Execute `program` on `machine` in time, without values.

    With `extrapolate` (the default) exact repetitions are computed instead of walked; the result is the
    same. A `timer` of the machine that timed other programs walks nothing twice. Raises `UsageError` when the
    machine has fewer dies than the program needs and `BadPackageError` for a program that never ends.
    """
    _require_dies(program, machine)
    timer = timer or KernelTimer(machine, extrapolate)
    walked_before = timer.walked
    processors = Processors(program, machine, timer)
    latency = processors.execute()
    return _Summary(program, machine, processors, latency, timer.walked - walked_before).result()


def latency_and_hbm_bytes(
    program: Program, machine: Machine, *, timer: KernelTimer, most_cycles: float = math.inf
) -> tuple[int, Fraction] | None:
    """The latency that `simulate` finds, and the bytes through HBM; None when it takes more than `most_cycles`.

    Raises what `simulate` raises.
    """
    _require_dies(program, machine)
    processors = Processors(program, machine, timer, classifies=False)
    latency = processors.execute_within(most_cycles)
    if latency is None:
        return None
    members = Counter(id(work.member) for run in processors.runs for _, _, work in run.work)
    by_id = {id(work.member): work.member for run in processors.runs for _, _, work in run.work}
    of_kernels = sum((timer.moved_bytes(by_id[key]).hbm_bytes * count for key, count in members.items()), Fraction(0))
    return latency, of_kernels + sum(job.traffic * len(job.hbm) for _, _, job, _ in processors.jobs)


def _require_dies(program: Program, machine: Machine) -> None:
    if program.dies > machine.dies:
        raise UsageError(f"the program needs {program.dies} dies, {machine.name} has {machine.dies}")


class _Summary:
    """Collects what the command processors recorded."""

    def __init__(self, program: Program, machine: Machine, processors: Processors, latency: int, walked: int) -> None:
        self.program = program
        self.machine = machine
        self.processors = processors
        self.latency = latency
        self.walked = walked
        self.ledger: Ledger = dict.fromkeys(LEDGER_CLASSES, Fraction(0))
        self.traffic: defaultdict[str, Fraction] = defaultdict(Fraction)
        self.executed_macs: defaultdict[str, int] = defaultdict(int)
        self.counts = Counts()

    def result(self) -> TimingResult:
        """The whole result; checks that every cycle is in one class."""
        runs = tuple(self._run(run) for run in self.processors.runs)
        self._idle()
        self._copies()
        self._check()
        walks = [(member.result, len(members)) for run in self.processors.runs for member, members in _members(run)]
        return TimingResult(
            latency_cycles=self.latency,
            spcs=self.machine.spcs,
            ledger=self.ledger,
            runs=runs,
            copies=tuple(self._copy_timings()),
            counts=self.counts,
            traffic=dict(self.traffic),
            executed_macs=dict(self.executed_macs),
            useful_macs=sum(run.useful_macs for run in runs),
            tcore_cycles=sum(walk.tcore_cycles(self.machine) * count for walk, count in walks),
            alu_cycles=sum(walk.alu_cycles * count for walk, count in walks),
            sfu_cycles=sum(walk.sfu_cycles * count for walk, count in walks),
            dependency_cycles=self._dependency_cycles(),
            walked=self.walked,
            executed=self.counts.total().executions,
        )

    def _run(self, run: Run) -> RunTiming:
        issue = run.issue
        number = issue.operand("kernel")
        kernel = self.program.kernels[number]
        ledger: Ledger = dict.fromkeys(LEDGER_CLASSES, Fraction(0))
        traffic: defaultdict[str, Fraction] = defaultdict(Fraction)
        cycles_by_format: defaultdict[str, int] = defaultdict(int)
        macs_by_format: defaultdict[str, int] = defaultdict(int)
        awaited: defaultdict[str, int] = defaultdict(int)
        for member, spcs in _members(run):
            result, count = member.result, len(spcs)
            for name, cycles in zip(_WALK_CLASSES[1:], result.classes[1:], strict=True):
                ledger[name] += cycles * count
            for name, num_bytes in result.traffic().items():
                traffic[name] += num_bytes * count
            self._count(number, result, count, cycles_by_format, macs_by_format)
            for semaphore, cycles in result.awaited:
                awaited[producer(kernel, semaphore)] += cycles * count
        self._split_matrix_cycles(issue.operand("macs"), cycles_by_format, macs_by_format, ledger)
        for name, spc_cycles in ledger.items():
            self.ledger[name] += spc_cycles
        for name, num_bytes in traffic.items():
            self.traffic[name] += num_bytes
        return RunTiming(
            command=issue.index,
            iteration=issue.iteration,
            kernel=number,
            name=kernel.name,
            start_cycles=run.start,
            end_cycles=run.end,
            spans=tuple((die, spc, work.start, work.end) for die, spc, work in run.work),
            useful_macs=issue.operand("macs"),
            executed_macs=sum(macs_by_format.values()),
            ledger=ledger,
            awaited=tuple(sorted(awaited.items(), key=lambda entry: (-entry[1], entry[0]))),
            traffic=dict(traffic),
        )

    def _count(
        self,
        kernel: int,
        result: WalkResult,
        count: int,
        cycles_by_format: defaultdict[str, int],
        macs_by_format: defaultdict[str, int],
    ) -> None:
        for variant, executions in result.executed:
            times = executions * count
            self.counts.add(
                kernel,
                variant.index,
                executions=times,
                bytes_read=variant.bytes_read * times,
                bytes_written=variant.bytes_written * times,
                macs=variant.macs * times,
            )
            if variant.format:
                cycles_by_format[variant.format] += variant.cycles * times
                macs_by_format[variant.format] += variant.macs * times
                self.executed_macs[variant.format] += variant.macs * times

    def _split_matrix_cycles(
        self, useful_macs: int, cycles: dict[str, int], macs: dict[str, int], ledger: Ledger
    ) -> None:
        """Matrix cycles are useful as far as the model's own multiply-adds fill them at peak rate.

        What a run declares beyond the multiply-adds of its T-core instructions was done by the vector cores.
        """
        executed = sum(macs.values())
        share = Fraction(min(useful_macs, executed), executed) if executed else Fraction(0)
        for name, format_cycles in cycles.items():
            rate = self.machine.format(name).macs_per_cycle_per_spc
            useful = share * macs[name] / rate
            ledger["tcore_useful"] += useful
            ledger["tcore_padding"] += format_cycles - useful

    def _idle(self) -> None:
        """The time of every SPC outside kernels."""
        for die in self.processors.dies:
            for spc in range(die.spcs):
                for span in die.gaps[spc]:
                    self.ledger[span.kind] += span.end - span.start
                self.ledger["finished_masked"] += self.latency - die.idle_at(spc)
        unused = self.machine.dies - self.program.dies
        self.ledger["finished_masked"] += unused * self.machine.spcs_per_die * self.latency

    def _check(self) -> None:
        total = sum(self.ledger.values())
        if total != self.machine.spcs * self.latency or min(self.ledger.values()) < 0:
            raise InternalError(
                f"the ledger holds {total} SPC cycles of {self.machine.spcs} x {self.latency}",
                where=self.program.name,
            )

    def _copies(self) -> None:
        one_way: defaultdict[int, Fraction] = defaultdict(Fraction)
        for die, _, work in (entry for run in self.processors.runs for entry in run.work):
            one_way[die] += self.processors.timer.moved_bytes(work.member).sent_bytes
        for issue, die, job, num_bytes in self.processors.jobs:
            self.counts.add_copy(issue.index, num_bytes)
            self.traffic["hbm"] += job.traffic * len(job.hbm)
            if job.lane[0] == "link":
                one_way[die] += job.traffic
            if job.enters_spcs:
                self.traffic["noc in"] += job.traffic
                self.traffic["l2"] += 0 if job.hbm else job.traffic
        self.traffic["d2d"] = sum(one_way.values(), Fraction(0))
        self.traffic["d2d one way"] += max(one_way.values(), default=0)

    def _copy_timings(self) -> list[CopyTiming]:
        return [
            CopyTiming(
                command=issue.index,
                iteration=issue.iteration,
                mnemonic=issue.command.mnemonic,
                die=die,
                issued_cycles=job.issued,
                end_cycles=job.end,
                num_bytes=num_bytes,
                in_hbm=bool(job.hbm),
            )
            for issue, die, job, num_bytes in self.processors.jobs
        ]

    def _dependency_cycles(self) -> int:
        """The longest chain of one SPC: kernel after kernel what its busiest pipe alone needs."""
        longest = 0
        for die in self.processors.dies:
            for work in die.work:
                chain = sum(entry.member.result.least_cycles(self.machine) for entry in work)
                barriers = max(0, len(work) - 1) * self.machine.spc_barrier_cycles
                first = work[0].start if work else 0
                longest = max(longest, first + chain + barriers)
        return longest


def _members(run: Run) -> list[tuple[SpcClass, list[int]]]:
    """The classes of a run with their SPCs, over all dies."""
    found: dict[int, tuple[SpcClass, list[int]]] = {}
    for _, spc, work in run.work:
        found.setdefault(id(work.member), (work.member, []))[1].append(spc)
    return list(found.values())


def producer(kernel: Kernel, semaphore: int) -> str:
    """The instructions that post a semaphore, for naming what a wait is for."""
    if semaphore < 0:
        return "pipeline"
    names = [
        instruction.mnemonic
        for instruction, extents in instructions_in(kernel.nests)
        for sync in instruction.posts
        if _can_be(sync.semaphore, extents, semaphore)
    ]
    return "+".join(dict.fromkeys(names)) or f"semaphore {semaphore}"


def _can_be(number: Affine, extents: tuple[int, ...], value: int) -> bool:
    low, high = affine_range(number, dict(enumerate(extents)))
    return low <= value <= high
