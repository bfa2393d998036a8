"""The things of the machine that act on their own: instruction queues, copy engines, command processors.

Each agent does its own work in order. `ready` tells whether its next piece of work can be done now, `act`
does it.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from birc.runtime.counts import Counts
from birc.runtime.faults import MachineFault
from birc.runtime.machine import Machine
from birc.runtime.memory import Memory
from birc.runtime.program import Program
from birc.runtime.stepping.commands import CommandState, Copy, Events, Issue, issues, start_copy
from birc.runtime.stepping.instructions import execute
from birc.runtime.stepping.spc import Binding, Spc
from birc.runtime.stepping.walk import KernelWalk, Step

AHEAD: Final = "load_b"
"""The queue of a kernel that a `preload` lets begin."""


class Agent(Protocol):
    """One thing that works in order."""

    def ready(self) -> bool:
        """Whether there is work that can be done now."""

    def act(self) -> None:
        """Do the next piece of work; `ready` must hold."""

    def blocked_on(self) -> str | None:
        """What it waits for, or None when it has nothing to do."""


@dataclass(slots=True)
class Device:
    """What all agents share."""

    program: Program
    machine: Machine
    memory: Memory
    counts: Counts
    walks: tuple[KernelWalk, ...]
    events: Events
    spcs: dict[tuple[int, int], KernelQueue] = field(default_factory=dict)
    copies: list[deque[Copy]] = field(default_factory=list)
    transfers: list[deque[Copy]] = field(default_factory=list)
    arrived: dict[int, set[int]] = field(default_factory=dict)
    passed: set[int] = field(default_factory=set)
    meetings: Counter[int] = field(default_factory=Counter)  # by die, how often its SPCs are to meet so far
    joint: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))  # those with the other die's

    def idle(self, die: int) -> bool:
        """Whether no SPC of a die has a kernel to execute."""
        return all(queue.idle for (of_die, _), queue in self.spcs.items() if of_die == die)

    def met(self, die: int, count: int) -> bool:
        """Whether all SPCs of a die have ended what was run before they met for the `count`th time."""
        return all(queue.is_through(count) for (of_die, _), queue in self.spcs.items() if of_die == die)

    def meet(self, die: int, *, everyone: bool) -> None:
        """The SPCs of a die are to meet, each other or `everyone`."""
        self.meetings[die] += 1
        if everyone:
            self.joint[die].append(self.meetings[die])

    def may_begin(self, die: int, count: int) -> bool:
        """Whether the SPCs of a die have met so often, and those of the other die as often as both were to."""
        joint = sum(number <= count for number in self.joint[die])
        others = [other for other in range(self.program.dies) if joint and other != die]
        heard = all(len(self.joint[other]) >= joint for other in others)
        return self.met(die, count) and heard and all(self.met(o, self.joint[o][joint - 1]) for o in others)


def perform(device: Device, spc: Spc, kernel: int, step: Step) -> None:
    """Execute a step whose waits can be met: waits, effect, posts. Faults say where."""
    try:
        spc.semaphores.take(step)
        effect = execute(spc, step)
        spc.semaphores.post(step)
    except MachineFault as fault:
        where = f"die {spc.die}, SPC {spc.spc}, kernel {device.program.kernels[kernel].name}"
        where = f"{where}, instruction {step.index} {step.instruction.mnemonic}, iteration {step.variables}"
        raise MachineFault(fault.what, where=where, hint=fault.hint) from fault
    device.counts.add(
        kernel,
        step.index,
        bytes_read=effect.bytes_read,
        bytes_written=effect.bytes_written,
        macs=effect.macs,
    )


class StepQueue:
    """One instruction queue of an SPC during one kernel."""

    __slots__ = ("_device", "_kernel", "_next", "_spc", "_steps", "name")

    def __init__(self, device: Device, spc: Spc, kernel: int, name: str) -> None:
        self.name = name
        self._device = device
        self._spc = spc
        self._kernel = kernel
        self._steps = device.walks[kernel].steps(spc.spc, name)
        self._next = next(self._steps, None)

    @property
    def finished(self) -> bool:
        return self._next is None

    def ready(self) -> bool:
        return self._next is not None and not self._spc.semaphores.missing(self._next)

    def act(self) -> None:
        if self._next is not None:
            perform(self._device, self._spc, self._kernel, self._next)
            self._next = next(self._steps, None)

    def blocked_on(self) -> str | None:
        if self._next is None:
            return None
        missing = ", ".join(map(str, self._spc.semaphores.missing(self._next)))
        step = self._next
        return f"{self.name} at {step.instruction.mnemonic} {step.variables} waits for semaphore {missing}"


@dataclass(slots=True)
class Appended:
    """A kernel in the queue of an SPC, which was `run`, or only preloaded until now.

    `meetings` are those of the SPCs before its run, `load_meetings` those before its preload; None without one.
    """

    kernel: int
    bindings: Mapping[int, Binding]
    is_run: bool
    meetings: int = 0
    load_meetings: int | None = None


@dataclass(slots=True)
class Begun:
    """A kernel of which at least the queue that loads B works, and what its queues have left."""

    entry: Appended
    state: Spc
    queues: list[StepQueue]

    def clear(self) -> None:
        """Drop the queues that are through."""
        self.queues = [queue for queue in self.queues if not queue.finished]

    @property
    def is_through_tcore(self) -> bool:
        """Whether the T-core and the queues that load for it are through."""
        return all(queue.name.startswith("vector") for queue in self.queues)


class KernelQueue:
    """The kernels appended to one SPC: they run one after the other, the queues of one at the same time.

    A preloaded one loads B beside the one before it, as soon as the T-core is through with that.
    """

    __slots__ = ("_begun", "_device", "_die", "_pending", "_spc")

    def __init__(self, device: Device, die: int, spc: int) -> None:
        self._device = device
        self._die = die
        self._spc = spc
        self._pending: deque[Appended] = deque()
        self._begun: deque[Begun] = deque()

    @property
    def idle(self) -> bool:
        """Whether all kernels that were run have ended."""
        return not any(entry.is_run for entry in self._entries())

    def is_through(self, meeting: int) -> bool:
        """Whether the kernels that were run before a meeting of the SPCs have ended."""
        return not any(entry.is_run and entry.meetings < meeting for entry in self._entries())

    def _entries(self) -> Iterator[Appended]:
        """The kernels that have not ended."""
        yield from (begun.entry for begun in self._begun)
        yield from self._pending

    def preload(self, kernel: int, bindings: Mapping[int, Binding]) -> None:
        """Add a kernel that loads B ahead of its run."""
        if self._not_run() is not None:
            raise MachineFault(f"kernel {kernel} is to load ahead behind another that was not run")
        self._pending.append(Appended(kernel, bindings, False, load_meetings=self._device.meetings[self._die]))

    def run(self, kernel: int, bindings: Mapping[int, Binding]) -> None:
        """Add a kernel with the slots as they are now, unless it is there and has loaded ahead."""
        ahead = self._not_run()
        if ahead is None:
            self._pending.append(Appended(kernel, bindings, True, self._device.meetings[self._die]))
            return
        if (ahead.kernel, ahead.bindings) != (kernel, bindings):
            raise MachineFault(f"kernel {kernel} is run, but kernel {ahead.kernel} loaded ahead, or with other slots")
        ahead.is_run, ahead.meetings = True, self._device.meetings[self._die]

    def _not_run(self) -> Appended | None:
        """The kernel that was preloaded and not run yet."""
        entries = list(self._entries())
        return entries[-1] if entries and not entries[-1].is_run else None

    def advance(self) -> bool:
        """End the kernel whose queues are through, or start the next one that may begin; whether either was so."""
        for begun in self._begun:
            begun.clear()
        if self._begun and self._begun[0].entry.is_run and not self._begun[0].queues:
            self._begun.popleft().state.semaphores.check_restored()
            return True
        if not self._pending or not self._may_begin(self._pending[0]):
            return False
        self._begun.append(self._start(self._pending.popleft()))
        return True

    def agents(self) -> list[StepQueue]:
        """The queues that have work left and may do it: of what only loads ahead, the one that loads B."""
        found: list[StepQueue] = []
        for place, begun in enumerate(self._begun):
            begun.clear()
            runs = place == 0 and self._may_run(begun.entry)
            found += [queue for queue in begun.queues if runs or queue.name == AHEAD]
        return found

    def _may_begin(self, entry: Appended) -> bool:
        """Whether a queue of the next kernel may work."""
        device, loads = self._device, entry.load_meetings
        may_load = loads is not None and device.may_begin(self._die, loads)
        if not self._begun:
            return may_load or self._may_run(entry)
        before = self._begun[0]
        return may_load and len(self._begun) == 1 and self._may_run(before.entry) and before.is_through_tcore

    def _may_run(self, entry: Appended) -> bool:
        """Whether a kernel was run, and the SPCs have met before it as often as they are to."""
        return entry.is_run and self._device.may_begin(self._die, entry.meetings)

    def _start(self, entry: Appended) -> Begun:
        device, kernel = self._device, entry.kernel
        described = device.program.kernels[kernel]
        state = Spc(device.memory, device.machine, described, entry.bindings, die=self._die, spc=self._spc)
        begun = Begun(entry, state, [StepQueue(device, state, kernel, name) for name in device.walks[kernel].queues])
        begun.clear()
        return begun


class CopyEngine:
    """A DMA engine, or one direction of the link: takes the oldest copy that waits and moves it piece by
    piece."""

    __slots__ = ("_device", "_now", "_pieces", "_queue")

    def __init__(self, device: Device, queue: deque[Copy]) -> None:
        self._device = device
        self._queue = queue
        self._now: Copy | None = None
        self._pieces: Iterator[int] = iter(())

    def ready(self) -> bool:
        return self._now is not None or bool(self._queue)

    def act(self) -> None:
        if self._now is None:
            self._now = self._queue.popleft()
            self._pieces = self._now.pieces(self._device.memory)
        num_bytes = next(self._pieces, None)
        if num_bytes is None:
            self._device.events.finish(self._now)
            self._now = None
        else:
            self._device.counts.add_copy(self._now.issue.index, num_bytes)

    def blocked_on(self) -> str | None:
        return None


class CommandProcessor:
    """Executes the commands of one die in order."""

    __slots__ = ("_device", "_die", "_issues", "_next", "_state")

    def __init__(self, device: Device, die: int) -> None:
        self._device = device
        self._die = die
        self._state = CommandState(device.program)
        self._issues = (issue for issue in issues(device.program) if issue.concerns(die))
        self._next = next(self._issues, None)

    def ready(self) -> bool:
        if self._next is None:
            return False
        match self._next.command.mnemonic:
            case "wait":
                return self._device.events.is_set(self._die, self._next.fields["event"])
            case "barrier":
                return self._barrier_open(self._next)
        return True

    def act(self) -> None:
        if self._next is not None:
            self._execute(self._next)
            self._next = next(self._issues, None)

    def blocked_on(self) -> str | None:
        if self._next is None:
            return None
        operands = " ".join(map(str, self._next.command.operands))
        return f"die {self._die}: command {self._next.index}, {self._next.command.mnemonic} {operands}"

    def _barrier_open(self, issue: Issue) -> bool:
        device = self._device
        if issue.fields["scope"] in ("spcs", "all_spcs"):
            return True
        if issue.fields["scope"] == "die":
            return device.idle(self._die)
        arrived = device.arrived.setdefault(issue.position, set())
        arrived.add(self._die)
        dies = range(device.program.dies)
        if len(arrived) == len(dies) and all(device.idle(die) for die in dies):
            device.passed.add(issue.position)
        return issue.position in device.passed

    def _execute(self, issue: Issue) -> None:
        device = self._device
        match issue.command.mnemonic:
            case "launch":
                self._state.launch(issue)
            case "bind":
                self._state.bind(issue)
            case "run" | "preload":
                for spc in self._state.spcs(device.machine.spcs_per_die):
                    queue = device.spcs[self._die, spc]
                    add = queue.run if issue.command.mnemonic == "run" else queue.preload
                    add(issue.fields["kernel"], self._state.bindings())
            case "copy":
                device.copies[self._die].append(start_copy(device.program, issue, self._die))
            case "transfer":
                device.transfers[self._die].append(start_copy(device.program, issue, self._die))
            case "wait":
                device.events.clear(self._die, issue.fields["event"])
            case "barrier":
                if issue.fields["scope"] in ("spcs", "all_spcs"):
                    device.meet(self._die, everyone=issue.fields["scope"] == "all_spcs")
            case other:
                raise MachineFault(f"the command processor does not know {other}")
