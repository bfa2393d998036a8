"""Executes a program step by step: in its one sequential order, or in a random order that the machine allows.

The sequential order defines what a program means. In random order each queue, copy engine and command
processor works on its own as far as semaphores, events and barriers allow; a program is right when every
such order gives the values of the sequential one. Loads and stores happen at once when an instruction
executes.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

import numpy as np

from birc.runtime.counts import Counts
from birc.runtime.errors import UsageError
from birc.runtime.faults import MachineFault
from birc.runtime.machine import Machine
from birc.runtime.memory import Memory
from birc.runtime.program import Program
from birc.runtime.stepping.agents import (
    Agent,
    CommandProcessor,
    CopyEngine,
    Device,
    KernelQueue,
    perform,
)
from birc.runtime.stepping.commands import CommandState, Events, Issue, issues, start_copy
from birc.runtime.stepping.spc import Spc
from birc.runtime.stepping.walk import KernelWalk

Order = Literal["sequential", "random"]

# In random order the first agent in a rotation that is ready acts, so some agents run far ahead of others;
# the rotation changes after this many steps on average.
_STEPS_PER_ROTATION = 8


class StepEngine:
    """Executes one program; `seed` chooses among the random orders."""

    __slots__ = ("_machine", "_order", "_program", "_seed", "_walks")

    def __init__(self, program: Program, machine: Machine, seed: int = 0, order: Order = "sequential") -> None:
        if program.dies > machine.dies:
            raise UsageError(f"the program needs {program.dies} dies, {machine.name} has {machine.dies}")
        self._program = program
        self._machine = machine
        self._seed = seed
        self._order = order
        self._walks = tuple(KernelWalk(kernel) for kernel in program.kernels)

    def run(self, memory: Memory) -> Counts:
        """Execute the whole program on `memory`; returns what was executed.

        Raises `MachineFault` for an instruction that cannot be carried out and for a deadlock, naming who
        waits for what.
        """
        device = Device(self._program, self._machine, memory, Counts(), self._walks, Events(self._program.dies))
        if self._order == "sequential":
            _run_sequentially(device)
        else:
            _run_randomly(device, np.random.default_rng(self._seed))
        return device.counts


def _run_sequentially(device: Device) -> None:
    """Commands one after the other; each at once and to its end, die after die, SPC after SPC."""
    states = [CommandState(device.program) for _ in range(device.program.dies)]
    for issue in issues(device.program):
        for die, state in enumerate(states):
            if issue.concerns(die):
                _execute_at_once(device, state, issue, die)


def _execute_at_once(device: Device, state: CommandState, issue: Issue, die: int) -> None:
    match issue.command.mnemonic:
        case "launch":
            state.launch(issue)
        case "bind":
            state.bind(issue)
        case "run":
            for spc in state.spcs(device.machine.spcs_per_die):
                _run_kernel(device, state, issue.fields["kernel"], die, spc)
        case "copy" | "transfer":
            copy = start_copy(device.program, issue, die)
            for num_bytes in copy.pieces(device.memory):
                device.counts.add_copy(issue.index, num_bytes)
            device.events.finish(copy)
        case "wait":
            event = issue.fields["event"]
            if not device.events.is_set(die, event):
                raise MachineFault(f"die {die} waits for event {event}, which nothing before it sets")
            device.events.clear(die, event)


def _run_kernel(device: Device, state: CommandState, kernel: int, die: int, spc: int) -> None:
    described = device.program.kernels[kernel]
    running = Spc(device.memory, device.machine, described, state.bindings(), die=die, spc=spc)
    for step in device.walks[kernel].steps(spc):
        missing = running.semaphores.missing(step)
        if missing:
            place = f"kernel {described.name}, instruction {step.index} {step.instruction.mnemonic}"
            raise MachineFault(
                f"in sequential order iteration {step.variables} waits for semaphore {missing[0]} for ever",
                where=place,
            )
        perform(device, running, kernel, step)
    running.semaphores.check_restored()


def _run_randomly(device: Device, rng: np.random.Generator) -> None:
    fixed = _fixed_agents(device)
    rotation = 0
    while True:
        agents: list[Agent] = [*fixed]
        while any(queue.advance() for queue in device.spcs.values()):
            pass  # What one SPC ends may be what another waits for.
        for queue in device.spcs.values():
            agents.extend(queue.agents())
        if rng.random() < 1 / _STEPS_PER_ROTATION:
            rotation = int(rng.integers(1 << 30))
        start = rotation % len(agents)
        chosen = next((agent for agent in (*agents[start:], *agents[:start]) if agent.ready()), None)
        if chosen is None:
            break
        chosen.act()
    blocked = [place for agent in agents if (place := agent.blocked_on())]
    if blocked:
        raise MachineFault(f"deadlock: {'; '.join(blocked)}")


def _fixed_agents(device: Device) -> list[Agent]:
    """The agents that exist all the time; gives the device its queues."""
    agents: list[Agent] = []
    for die in range(device.program.dies):
        for spc in range(device.machine.spcs_per_die):
            device.spcs[die, spc] = KernelQueue(device, die, spc)
        device.copies.append(deque())
        device.transfers.append(deque())
        agents.append(CommandProcessor(device, die))
        agents += [CopyEngine(device, device.copies[die]) for _ in range(device.machine.dma_engines_per_die)]
        agents.append(CopyEngine(device, device.transfers[die]))
    return agents
