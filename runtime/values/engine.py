"""The values engine: executes a program's commands in order, each kernel on whole arrays.

Its results are those of the sequential order. Each kernel is raised once for what is bound to its slots, apart from
the addresses, so that a stack of layers shares one form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from birc.runtime.conversion import memory_type
from birc.runtime.counts import Counts
from birc.runtime.errors import UsageError
from birc.runtime.faults import MachineFault
from birc.runtime.machine import Machine
from birc.runtime.memory import Memory, byte_range, origin_address
from birc.runtime.program import Box, Descriptor, Kernel, Program
from birc.runtime.stepping.commands import CommandState, Copy, Events, issues, start_copy
from birc.runtime.stepping.instructions import execute as execute_step
from birc.runtime.stepping.spc import Binding, Spc
from birc.runtime.stepping.walk import KernelWalk
from birc.runtime.values.blocks import Blocking
from birc.runtime.values.constants import ConstantRanges
from birc.runtime.values.frame import Tensor
from birc.runtime.values.index_space import CannotRaiseError
from birc.runtime.values.kernels import ConstantOperands, RaisedKernel, execute, prepare
from birc.runtime.values.schedule import Setting
from birc.runtime.values.workers import Workers

Bindings = Mapping[int, Binding]
Action = Callable[[Memory, Counts], None]


@dataclass(frozen=True, slots=True)
class Fallback:
    """A kernel that is slower than it should be, and why."""

    kernel: str
    reason: str
    raised: bool  # False when it is executed step by step


class ValuesEngine:
    """Executes one program, as often as asked.

    `threads` is the number of threads for large kernels, by default the cores of the process; `blocking` says how
    these are cut. After a run `fallbacks` lists the kernels that could not be executed on whole arrays throughout. Constant images must
    hold the same data whenever the same memory is run again.
    """

    def __init__(
        self,
        program: Program,
        machine: Machine,
        threads: int | None = None,
        blocking: Blocking | None = None,
    ) -> None:
        if program.dies > machine.dies:
            raise UsageError(f"the program needs {program.dies} dies, {machine.name} has {machine.dies}")
        self.fallbacks: tuple[Fallback, ...] = ()
        self._program = program
        self._machine = machine
        self._workers = Workers(threads)
        self._blocking = blocking or Blocking()
        self._walks = tuple(KernelWalk(kernel) for kernel in program.kernels)
        self._slots = tuple(_slots(kernel) for kernel in program.kernels)
        self._raised: dict[object, RaisedKernel | CannotRaiseError] = {}
        self._operands = tuple(ConstantOperands() for _ in range(program.dies))
        self._actions: list[Action] | None = None

    def run(self, memory: Memory) -> Counts:
        """Execute the whole program on `memory`; returns what was executed.

        Raises `MachineFault` for an instruction that cannot be carried out.
        """
        if self._actions is None:
            self._actions = self._prepare()
        for die, operands in enumerate(self._operands):
            operands.begin(memory.hbm[die])
        counts = Counts()
        with self._workers.engaged():
            for action in self._actions:
                action(memory, counts)
        return counts

    def _prepare(self) -> list[Action]:
        """The commands in order, each ready to be executed."""
        program = self._program
        constants = ConstantRanges(program, self._machine, self._slots)
        states = [CommandState(program) for _ in range(program.dies)]
        events = Events(program.dies)
        actions: list[Action] = []
        for issue in issues(program):
            for die, state in enumerate(states):
                if not issue.concerns(die):
                    continue
                match issue.command.mnemonic:
                    case "launch":
                        state.launch(issue)
                    case "bind":
                        state.bind(issue)
                    case "run":
                        spcs = state.spcs(self._machine.spcs_per_die)
                        kernel = issue.fields["kernel"]
                        actions.append(self._run(kernel, die, spcs, state.bindings(), constants))
                    case "copy" | "transfer":
                        copy = start_copy(program, issue, die)
                        events.finish(copy)
                        actions.append(_copying(copy))
                    case "wait":
                        event = issue.fields["event"]
                        if not events.is_set(die, event):
                            raise MachineFault(f"die {die} waits for event {event}, which nothing before sets")
                        events.clear(die, event)
        return actions

    def _run(
        self, kernel: int, die: int, spcs: tuple[int, ...], bindings: Bindings, constants: ConstantRanges
    ) -> Action:
        """One run of a kernel on one die."""
        loaded, stored = self._slots[kernel]
        used = {slot: bindings[slot] for slot in sorted(loaded | stored) if slot in bindings}
        overlaps = frozenset(
            (load, store)
            for load in loaded & used.keys()
            for store in stored & used.keys()
            if _overlap(used[load], used[store])
        )
        constant = frozenset(slot for slot in loaded & used.keys() if constants.hold(used[slot], die))
        views = tuple((slot, replace(binding.descriptor, address=0)) for slot, binding in used.items())
        key = (kernel, views, overlaps, constant)
        if key not in self._raised:
            self._raised[key] = self._raise(kernel, dict(views), overlaps, constant)
        raised = self._raised[key]
        if isinstance(raised, CannotRaiseError) or spcs[: raised.spcs] != tuple(range(raised.spcs)):
            return self._stepping(kernel, die, spcs, bindings)
        return self._executing(raised, kernel, die, used)

    def _raise(
        self,
        kernel: int,
        descriptors: dict[int, Descriptor],
        overlaps: frozenset[tuple[int, int]],
        constant: frozenset[int],
    ) -> RaisedKernel | CannotRaiseError:
        workers = self._workers
        setting = Setting(
            descriptors,
            self._program.tensor_buffer_bytes,
            overlaps,
            constant,
            workers.threads,
            workers.product_threads,
            self._blocking,
        )
        name = self._program.kernels[kernel].name
        try:
            raised = prepare(self._program.kernels[kernel], setting)
        except CannotRaiseError as error:
            self.fallbacks += (Fallback(name, error.reason, raised=False),)
            return error
        self.fallbacks += tuple(Fallback(name, reason, raised=True) for reason in raised.reasons)
        return raised

    def _executing(self, raised: RaisedKernel, kernel: int, die: int, bindings: Bindings) -> Action:
        """A raised kernel with its addresses."""

        def action(memory: Memory, counts: Counts) -> None:
            tensors = {slot: _tensor(memory, binding, die) for slot, binding in bindings.items()}
            execute(raised, tensors, self._workers, self._operands[die])
            for number, entry in raised.counts.items():
                counts.add(
                    kernel,
                    number,
                    executions=entry.executions,
                    bytes_read=entry.bytes_read,
                    bytes_written=entry.bytes_written,
                    macs=entry.macs,
                )

        return action

    def _stepping(self, kernel: int, die: int, spcs: tuple[int, ...], bindings: Bindings) -> Action:
        """A kernel that is executed instruction by instruction, SPC after SPC."""

        def action(memory: Memory, counts: Counts) -> None:
            described = self._program.kernels[kernel]
            for spc in spcs:
                state = Spc(memory, self._machine, described, bindings, die=die, spc=spc)
                for step in self._walks[kernel].steps(spc):
                    effect = execute_step(state, step)
                    counts.add(
                        kernel,
                        step.index,
                        bytes_read=effect.bytes_read,
                        bytes_written=effect.bytes_written,
                        macs=effect.macs,
                    )

        return action


def _copying(copy: Copy) -> Action:
    def action(memory: Memory, counts: Counts) -> None:
        for num_bytes in copy.pieces(memory):
            counts.add_copy(copy.issue.index, num_bytes)

    return action


def _slots(kernel: Kernel) -> tuple[frozenset[int], frozenset[int]]:
    """The slots that a kernel loads from, and those that it stores to."""
    loaded, stored = set(), set()
    for instruction in kernel.instructions():
        for operand in instruction.operands:
            if isinstance(operand, Box):
                (stored if instruction.mnemonic == "vst" else loaded).add(operand.slot)
    return frozenset(loaded), frozenset(stored)


def _overlap(one: Binding, other: Binding) -> bool:
    """Whether two bound tensors have memory in common."""
    if one.descriptor.space != other.descriptor.space:
        return False
    first, end = byte_range(one.descriptor, one.byte_offset)
    other_first, other_end = byte_range(other.descriptor, other.byte_offset)
    return first < other_end and other_first < end


def _tensor(memory: Memory, binding: Binding, die: int) -> Tensor:
    """A bound tensor in a memory. Raises `MachineFault` when it leaves the memory."""
    descriptor = binding.descriptor
    memory_type(descriptor.dtype)
    space = memory.tb[die].reshape(-1) if descriptor.space == "tb" else memory.space(descriptor.space, die)
    size = memory.tb[die].shape[1] if descriptor.space == "tb" else space.size
    first, end = byte_range(descriptor, binding.byte_offset)
    if first < 0 or end > size:
        raise MachineFault(f"a descriptor reaches bytes {first} to {end} of {descriptor.space}, which has {size}")
    return Tensor(space, origin_address(descriptor) + binding.byte_offset)
