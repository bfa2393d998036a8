"""The command processors: when each kernel starts on each SPC, and what the SPCs wait for in between.

Commands are taken in the order of the stream, on every die of their mask. What a command waits for was issued
before it in the stream, so that its time is known when it is reached.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadPackageError
from birc.runtime.machine import Machine
from birc.runtime.program import MAX_BOX_RANK, Descriptor, Kernel, Program
from birc.runtime.timing.dies import Die, Meeting, Moment, Run, Span, Work
from birc.runtime.timing.dma import Copies, Job
from birc.runtime.timing.issues import Issue, dies_of, fills_buffers, issues, runs_before_preloads
from birc.runtime.timing.kernels import KernelTimer, SpcClass
from birc.runtime.timing.result import Lead
from birc.runtime.timing.routes import exact, streaming_bytes_per_cycle
from birc.runtime.timing.traffic import copy_bytes, payload_bytes

Started = tuple[Work, int | None, int]
"""What SPCs do in a kernel, since when B was loaded, and how many of them do so."""


class Processors:
    """Executes a program's command stream in time.

    Without `classifies` nobody asks what SPCs wait for between their kernels.
    """

    def __init__(self, program: Program, machine: Machine, timer: KernelTimer, *, classifies: bool = True) -> None:
        self.program = program
        self.machine = machine
        self.timer = timer
        self.classifies = classifies
        self.dies = [Die(number, machine.spcs_per_die) for number in range(program.dies)]
        self.active = [die for die in self.dies if dies_of(program.commands) >> die.number & 1]
        self.runs: list[Run] = []
        self.jobs: list[tuple[Issue, int, Job, int]] = []
        self.fixed_cycles = 0
        lanes = {("dma", die): machine.dma_engines_per_die for die in range(program.dies)}
        lanes |= {(lane, die): 1 for die in range(program.dies) for lane in ("link", "fill")}
        hbm_rate = streaming_bytes_per_cycle(machine, machine.hbm_sections_per_die)
        rates = {("hbm", die): hbm_rate for die in range(program.dies)}
        rates |= {("link", die): exact(machine.d2d_bytes_per_cycle) for die in range(program.dies)}
        self.port_rate = exact(min(machine.noc_bytes_per_cycle, machine.l2_to_gib_bytes_per_cycle))
        rates |= {("noc", die): machine.spcs_per_die * self.port_rate for die in range(program.dies)}
        self.copies = Copies(rates, lanes)
        self.link_rate = exact(machine.d2d_bytes_per_cycle)
        self.copy_rate = machine.spcs_per_die * exact(machine.noc_bytes_per_cycle)
        self.fills_buffers = fills_buffers(program)
        self.followed = runs_before_preloads(program) if self.fills_buffers else frozenset()

    def execute(self) -> int:
        """Run the whole stream; returns the latency in cycles."""
        for _ in self._executed():
            pass
        return self._latency()

    def execute_within(self, most_cycles: float) -> int | None:
        """The same; None as soon as it is more than so many cycles."""
        for dies in self._executed():
            for die in dies:
                if die.time > most_cycles or die.last_end > most_cycles:
                    return None
        return self._latency()

    def _executed(self) -> Iterator[list[Die]]:
        """Executes command after command; the dies of each."""
        for issue in issues(self.program):
            dies = [die for die in self.dies if issue.command.dies >> die.number & 1]
            self._execute(issue, dies)
            yield dies

    def _latency(self) -> int:
        self.copies.finish_all()
        ends = [job.end for _, _, job, _ in self.jobs]
        return max([*ends, *(max(die.time, die.last_end) for die in self.dies)])

    def _execute(self, issue: Issue, dies: list[Die]) -> None:
        machine = self.machine
        match issue.command.mnemonic:
            case "launch":
                for die in dies:
                    die.spend(die.time + machine.launch_cycles, "launch_barrier")
                    die.mask = issue.operand("spcs")
                    die.multicast = None
            case "bind":
                for die in dies:
                    die.spend(die.time + machine.bind_cycles, "launch_barrier")
                    bound = self.program.descriptors[issue.operand("descriptor")]
                    die.slots[issue.operand("slot")] = issue.advanced(bound, issue.operand("advance"))
            case "run":
                self._run(issue, dies)
            case "preload":
                self._preload(issue, dies)
            case "barrier":
                self._barrier(issue, dies)
            case "copy" | "transfer":
                self._copy(issue, dies)
            case "wait":
                for die in dies:
                    self._wait(issue, die)

    # Kernels.

    def _run(self, issue: Issue, dies: list[Die]) -> None:
        kernel = self.program.kernels[issue.operand("kernel")]
        number = len(self.runs)
        run = Run(issue, 0, 0)
        self.runs.append(run)
        for die in dies:
            classes, barrier = self._classes(die, kernel)
            started: list[Started] = []
            for member in classes:
                started += self._work(die, member, run, number, barrier)
            if started:
                span = (min(work.start for work, *_ in started), max(work.end for work, *_ in started))
                die.runs.append((number, *span))
                if span[1] > die.last_end or die.last_run < 0:
                    die.last_run, die.last_end = number, span[1]
                self._use_memory(die, started)
            die.preloads = {}
        if run.work:
            run.start = min(work.start for _, _, work in run.work)
            run.end = max(work.end for _, _, work in run.work)

    def _preload(self, issue: Issue, dies: list[Die]) -> None:
        """B of the next kernel is loaded from now on, or from when its SPC has room for it or its partners meet."""
        kernel = self.program.kernels[issue.operand("kernel")]
        for die in dies:
            classes, barrier = self._classes(die, kernel)
            if kernel.multicast != "none":
                barrier = max([barrier, *(self._free_at(die, spc) for member in classes for spc in member.spcs)])
            ahead: list[tuple[int, int, Fraction]] = []
            for member in classes:
                lead = self.timer.lead(member)
                early = {
                    spc: max(self._input_free_at(die, spc, lead), die.time, barrier, die.met_at) for spc in member.spcs
                }
                die.preloads |= early
                cycles = math.ceil(lead.noc_bytes / self.port_rate)
                ahead += [(begun, begun + cycles, lead.noc_bytes) for begun in set(early.values())]
                for begun, count in Counter(early.values()).items():
                    self.copies.kernel_uses(("hbm", die.number), begun, begun + lead.cycles, lead.hbm_bytes * count)
            if self.fills_buffers:
                self._use_ports(die, ahead)

    def _classes(self, die: Die, kernel: Kernel) -> tuple[tuple[SpcClass, ...], int]:
        """The classes of a kernel that is appended now, and a time before which it does not start."""
        spcs = tuple(spc for spc in range(die.spcs) if die.mask >> spc & 1)
        classes = self.timer.classes(kernel, die.slots, spcs)
        return classes, self._multicast_start(die, kernel.multicast, [spc for c in classes for spc in c.spcs])

    def _free_at(self, die: Die, spc: int) -> int:
        """When the SPC may start another kernel."""
        return die.idle_at(spc) + self.machine.spc_barrier_cycles if die.work[spc] else 0

    def _input_free_at(self, die: Die, spc: int, lead: Lead) -> int:
        """When the SPC may load B of the kernel after the last: the T-core is through with that, and the port free.

        Where both use HBM, they do so one after the other. Where it has no part in that, it has ended those before.
        """
        if not die.work[spc]:
            return 0
        work = die.work[spc][-1]
        if work.run != die.runs[-1][0] or (lead.hbm_bytes and self.timer.moved_bytes(work.member).hbm_bytes):
            return self._free_at(die, spc)
        return work.start + work.member.result.input_free_cycles + self.machine.spc_barrier_cycles

    def _multicast_start(self, die: Die, mode: str, spcs: list[int]) -> int:
        """The time before which a kernel with multicast does not start: its SPCs meet, after a change of mode
        at a die barrier."""
        changed = die.multicast not in (None, mode)
        die.multicast = mode
        if changed:
            return die.last_end + self.machine.multicast_switch_cycles
        if mode == "none":
            return 0
        return max((die.idle_at(spc) for spc in spcs), default=0)

    def _work(self, die: Die, member: SpcClass, run: Run, number: int, barrier: int) -> list[Started]:
        """Append a kernel to the queues of a class of SPCs, and classify the time since their last ones.

        Those that were alike until now are so again: returns what they do, and how many of them.
        """
        known: dict[Moment, tuple[Work, list[Span]]] = {}
        counts: Counter[Moment] = Counter()
        for spc in member.spcs:
            before = die.work[spc][-1] if die.work[spc] else None
            last, begun = (before.run, before.end) if before is not None else (-1, 0)
            moment = Moment(last, begun, die.preloads.get(spc))
            if moment not in known:
                known[moment] = self._begin(die, moment, member, number, barrier)
            work, gaps = known[moment]
            counts[moment] += 1
            die.gaps[spc] += gaps
            die.work[spc].append(work)
            run.work.append((die.number, spc, work))
        return [(known[moment][0], moment.early, count) for moment, count in counts.items()]

    def _begin(self, die: Die, moment: Moment, member: SpcClass, number: int, barrier: int) -> tuple[Work, list[Span]]:
        """What an SPC does in a kernel, and the time before."""
        queue_free = moment.begun + self.machine.spc_barrier_cycles if moment.last_run >= 0 else 0
        start = max(queue_free, die.time, barrier, die.met_at, moment.early or 0)
        if moment.early is not None:
            member = self.timer.ahead(member, start - moment.early)
        gaps = list(self._gap(die, moment, queue_free, start)) if self.classifies else []
        return Work(number, start, start + member.result.cycles, member), gaps

    def _use_memory(self, die: Die, started: list[Started]) -> None:
        """Note the kernel's use of HBM and link; SPCs of a class that started together are one entry."""
        for work, _, count in started:
            num_bytes, sent_bytes, _ = self.timer.moved_bytes(work.member)
            if die.preloads:  # The rest was noted when it began.
                num_bytes -= self.timer.lead(work.member).hbm_bytes
            self.copies.kernel_uses(("hbm", die.number), work.start, work.end, num_bytes * count)
            self.copies.kernel_uses(("link", die.number), work.start, work.end, sent_bytes * count)
        if self.fills_buffers:
            self._use_ports(die, [self._entered(die, work, early) for work, early, _ in started])

    def _entered(self, die: Die, work: Work, early: int | None) -> tuple[int, int, Fraction]:
        """From when to when how much enters an SPC in a kernel. Behind it the port may be that of the next one's B."""
        num_bytes = self.timer.moved_bytes(work.member).noc_bytes
        if early is not None:
            lead = self.timer.lead(work.member)
            num_bytes -= lead.noc_bytes if work.start >= early + lead.cycles else 0
        if (work.run, die.number) not in self.followed:
            return work.start, work.end, num_bytes
        cycles = max(work.member.result.input_free_cycles, math.ceil(num_bytes / self.port_rate))
        return work.start, min(work.end, work.start + cycles), num_bytes

    def _use_ports(self, die: Die, entered: list[tuple[int, int, Fraction]]) -> None:
        """Note what enters the SPCs, by start, end and bytes of one."""
        self.copies.busiest_uses(("noc", die.number), die.spcs, entered)

    def _gap(self, die: Die, moment: Moment, queue_free: int, start: int) -> Iterator[Span]:
        """Classify the time of an SPC between two of its kernels.

        In this order: another kernel runs in which this SPC has no part; the SPC's own barrier; what the
        command processor did, if it had not yet come to this kernel; the flags of other SPCs; other SPCs at a
        multicast.
        """
        time, place, reach = moment.begun, 0, moment.begun
        foreign = sorted(span for span in die.runs_after(moment.last_run) if span[1] > time and span[0] < start)
        while time < start:
            while place < len(foreign) and foreign[place][0] <= time:
                reach = max(reach, foreign[place][1])
                place += 1
            limit = min(start, foreign[place][0]) if place < len(foreign) else start
            if reach > time:
                span = Span(time, min(reach, start), "finished_masked")
            else:
                span = self._idle_span(die, time, queue_free, limit)
            yield span
            time = span.end

    def _idle_span(self, die: Die, time: int, queue_free: int, limit: int) -> Span:
        """The time from `time` on, up to `limit` at most, in which no other kernel runs."""
        if time < queue_free:
            return Span(time, min(queue_free, limit), "launch_barrier")
        if time < die.time:
            entry = die.log[bisect_right(die.log_starts, time) - 1]
            return Span(time, min(entry.end, limit), entry.kind, entry.awaited)
        meeting = die.meeting
        if meeting is not None and time < meeting.own:
            return Span(time, min(meeting.own, limit), "wait_dependency", meeting.last)
        if meeting is not None and time < meeting.stored:
            return Span(time, min(meeting.stored, limit), "wait_other_die", "flags of the other die")
        if meeting is not None and time < meeting.seen:
            return Span(time, min(meeting.seen, limit), "launch_barrier")
        return Span(time, limit, "wait_dependency", "multicast partners")

    def _barrier(self, issue: Issue, dies: list[Die]) -> None:
        machine = self.machine
        if issue.operand("scope") == "spcs":
            for die in dies:
                stored = die.last_end
                seen = max(stored, die.time) + machine.cross_spc_flag_cycles
                die.meeting = Meeting(self._run_name(die.last_run), stored, stored, seen)
            return
        if issue.operand("scope") == "all_spcs":
            stored = max(die.last_end for die in self.dies)
            seen = max(stored, *(die.time for die in self.dies)) + machine.cross_die_flag_cycles
            for die in dies:
                die.meeting = Meeting(self._run_name(die.last_run), die.last_end, stored, seen)
            return
        for die in dies:
            die.spend(die.last_end, "wait_dependency", self._run_name(die.last_run))
        cycles = machine.die_barrier_cycles
        if issue.operand("scope") == "device":
            together = max(max(die.time, die.last_end) for die in self.dies)
            cycles += machine.cross_die_flag_cycles
            for die in dies:
                die.spend(together, "wait_other_die", "device barrier")
        for die in dies:
            die.spend(die.time + cycles, "launch_barrier")

    def _run_name(self, number: int) -> str:
        if number < 0:
            return ""
        return self.program.kernels[self.runs[number].issue.operand("kernel")].name

    # Copies.

    def _copy(self, issue: Issue, dies: list[Die]) -> None:
        transfer = issue.command.mnemonic == "transfer"
        event = issue.operand("event")
        descriptors = self.program.descriptors
        source, target = descriptors[issue.operand("src")], descriptors[issue.operand("dst")]
        jobs = []
        for die in dies:
            job = self._job(die, source, target, transfer)
            self.copies.submit(job)
            self.jobs.append((issue, die.number, job, _payload(source)))
            jobs.append((job, issue))
            if not transfer:
                die.events.setdefault(event, []).append((job, issue))
        if transfer:
            for die in self.dies:
                die.events.setdefault(event, []).extend(jobs)

    def _job(self, die: Die, source: Descriptor, target: Descriptor, transfer: bool) -> Job:
        machine = self.machine
        if transfer and self.program.dies != 2:
            raise BadPackageError(f"a transfer needs two dies, the program has {self.program.dies}")
        other = 1 - die.number if transfer else die.number
        sides = ((source, die.number), (target, other))
        enters_spcs = target.space == "tb"
        if enters_spcs:  # Each SPC gets a part; what several get is brought to each.
            traffic = machine.spcs_per_die * max(self._traffic(view, len(target.dims)) for view in (source, target))
        else:
            traffic = max(self._traffic(descriptor) for descriptor, _ in sides)
        hbm = tuple(number for descriptor, number in sides if descriptor.space == "hbm")
        return Job(
            lane=("link" if transfer else "fill" if enters_spcs else "dma", die.number),
            issued=die.time,
            setup_cycles=machine.dma_start_cycles,
            traffic=traffic,
            hbm=hbm,
            rate=self.link_rate if transfer else self.copy_rate,
            done_after=machine.cross_die_flag_cycles if transfer else 0,
            enters_spcs=enters_spcs,
        )

    def _traffic(self, view: Descriptor, rank: int = MAX_BOX_RANK) -> int:
        """Bytes of the granules that the last `rank` axes of a view touch."""
        element_bytes = dtype(view.dtype).bits // 8
        return copy_bytes(view.dims[-rank:], view.strides[-rank:], element_bytes, self.machine.granule_bytes)

    def _wait(self, issue: Issue, die: Die) -> None:
        event = issue.operand("event")
        pending = die.events.pop(event, [])
        if not pending:
            raise BadPackageError(f"die {die.number} waits for event {event}, which nothing before it sets")
        self.copies.forget(min(other.time for other in self.active))
        self.copies.finish([job for job, _ in pending])
        last, started = max(pending, key=lambda entry: entry[0].end)
        kind = "wait_other_die" if last.lane[0] == "link" else "wait_hbm" if last.hbm else "wait_l2_noc"
        die.spend(last.end, kind, f"{started.command.mnemonic} {started.index}")


def _payload(view: Descriptor) -> int:
    return payload_bytes(view.dims, dtype(view.dtype).bits // 8)
