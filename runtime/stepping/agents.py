"""The things of the machine that act on their own: instruction queues, copy engines, command processors.

Each agent does its own work in order. `ready` tells whether its next piece of work can be done now, `act`
does it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from birc.runtime.counts import Counts
from birc.runtime.faults import MachineFault
from birc.runtime.machine import Machine
from birc.runtime.memory import Memory
from birc.runtime.program import Program
from birc.runtime.stepping.commands import CommandState, Copy, Events, Issue, issues, start_copy
from birc.runtime.stepping.instructions import execute
from birc.runtime.stepping.spc import Binding, Spc
from birc.runtime.stepping.walk import KernelWalk, Step


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

    def idle(self, die: int) -> bool:
        """Whether no SPC of a die has a kernel to execute."""
        return all(queue.idle for (of_die, _), queue in self.spcs.items() if of_die == die)


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


class KernelQueue:
    """The kernels appended to one SPC: they run one after the other, the queues of one at the same time."""

    __slots__ = ("_device", "_die", "_pending", "_running", "_spc", "_state")

    def __init__(self, device: Device, die: int, spc: int) -> None:
        self._device = device
        self._die = die
        self._spc = spc
        self._pending: deque[tuple[int, Mapping[int, Binding]]] = deque()
        self._running: list[StepQueue] = []
        self._state: Spc | None = None

    @property
    def idle(self) -> bool:
        return self._state is None and not self._pending

    def append(self, kernel: int, bindings: Mapping[int, Binding]) -> None:
        """Add a kernel with the slots as they are now."""
        self._pending.append((kernel, bindings))

    def agents(self) -> list[StepQueue]:
        """The queues of the running kernel that have work left; starts the next kernel when one has ended."""
        self._running = [queue for queue in self._running if not queue.finished]
        while not self._running:
            if self._state is not None:
                self._end()
            if not self._pending:
                break
            self._start(*self._pending.popleft())
        return self._running

    def _start(self, kernel: int, bindings: Mapping[int, Binding]) -> None:
        device = self._device
        described = device.program.kernels[kernel]
        state = Spc(device.memory, device.machine, described, bindings, die=self._die, spc=self._spc)
        queues = (StepQueue(device, state, kernel, name) for name in device.walks[kernel].queues)
        self._state = state
        self._running = [queue for queue in queues if not queue.finished]

    def _end(self) -> None:
        if self._state is not None:
            self._state.semaphores.check_restored()
        self._state = None


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
            case "run":
                for spc in self._state.spcs(device.machine.spcs_per_die):
                    device.spcs[self._die, spc].append(issue.fields["kernel"], self._state.bindings())
            case "copy":
                device.copies[self._die].append(start_copy(device.program, issue, self._die))
            case "transfer":
                device.transfers[self._die].append(start_copy(device.program, issue, self._die))
            case "wait":
                device.events.clear(self._die, issue.fields["event"])
            case "barrier":
                pass
            case other:
                raise MachineFault(f"the command processor does not know {other}")
