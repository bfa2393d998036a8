"""Goes through a program's commands once: raises its kernels and turns every command into an action."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from birc.runtime.faults import MachineFault
from birc.runtime.machine import Machine
from birc.runtime.memory import byte_range
from birc.runtime.program import OTHER_L2, Box, Descriptor, Kernel, Program
from birc.runtime.stepping.commands import CommandState, Events, Issue, issues, start_copy
from birc.runtime.stepping.spc import Binding
from birc.runtime.stepping.walk import KernelWalk
from birc.runtime.values.actions import (
    Action,
    Bindings,
    MakeCopy,
    RunRaised,
    RunStepping,
    TakeResults,
    fills,
)
from birc.runtime.values.blocks import Blocking
from birc.runtime.values.constants import ConstantRanges
from birc.runtime.values.index_space import CannotRaiseError
from birc.runtime.values.kernels import ConstantOperands, RaisedKernel, prepare
from birc.runtime.values.provenance import Provenance, is_dense
from birc.runtime.values.schedule import Setting
from birc.runtime.values.workers import Workers

_BOTH_DIES: Final = 0b11


@dataclass(frozen=True, slots=True)
class Fallback:
    """A kernel that is slower than it should be, and why."""

    kernel: str
    reason: str
    raised: bool  # False when it is executed step by step


@dataclass(frozen=True, slots=True)
class DieRun:
    """A kernel on one die: what is bound to its slots, and where it reads that instead."""

    die: int
    spcs: tuple[int, ...]
    bound: Bindings
    read: Bindings
    raised: RaisedKernel | CannotRaiseError


class KernelSlots:
    """The slots that a kernel loads from and stores to."""

    __slots__ = ("loaded", "stored", "stores")

    def __init__(self, kernel: Kernel) -> None:
        self.loaded: set[int] = set()
        self.stores: dict[int, tuple[int, ...]] = {}  # instructions by slot
        for number, instruction in enumerate(kernel.instructions()):
            for box in (operand for operand in instruction.operands if isinstance(operand, Box)):
                if instruction.mnemonic == "vst":
                    self.stores[box.slot] = (*self.stores.get(box.slot, ()), number)
                else:
                    self.loaded.add(box.slot)
        self.stored = frozenset(self.stores)


class Preparation:
    """The actions of a program, and the kernels that fell back."""

    def __init__(self, program: Program, machine: Machine, workers: Workers, blocking: Blocking) -> None:
        self.fallbacks: list[Fallback] = []
        self.actions: list[Action] = []
        self._program = program
        self._machine = machine
        self._workers = workers
        self._blocking = blocking
        self._slots = tuple(KernelSlots(kernel) for kernel in program.kernels)
        self._operands = tuple(ConstantOperands() for _ in range(program.dies))
        self._raised: dict[object, RaisedKernel | CannotRaiseError] = {}
        stored = [slots.stored for slots in self._slots]
        self._constants = ConstantRanges(program, stored)
        self._provenance = Provenance(program, self._constants)
        self._states = [CommandState(program) for _ in range(program.dies)]
        self._events = Events(program.dies)
        self._constant_copies: dict[int, MakeCopy] = {}  # by number of the action
        self._go_through()

    def _go_through(self) -> None:
        for issue in issues(self._program):
            match issue.command.mnemonic:
                case "run":
                    self._run(issue)
                case "copy" | "transfer":
                    self._copy(issue)
                case _:
                    self._control(issue)
        self._provenance.read_ports(self._program, self._program.outputs)
        for number, action in self._constant_copies.items():
            action.once = number not in self._provenance.needed

    def forget_operands(self) -> None:
        """Drop the packed constants: another memory may hold others."""
        for operands in self._operands:
            operands.clear()

    def _dies(self, issue: Issue) -> list[int]:
        return [die for die in range(self._program.dies) if issue.concerns(die)]

    def _control(self, issue: Issue) -> None:
        for die in self._dies(issue):
            match issue.command.mnemonic:
                case "launch":
                    self._states[die].launch(issue)
                case "bind":
                    self._states[die].bind(issue)
                case "wait":
                    event = issue.fields["event"]
                    if not self._events.is_set(die, event):
                        raise MachineFault(f"die {die} waits for event {event}, which nothing before it sets")
                    self._events.clear(die, event)

    def _copy(self, issue: Issue) -> None:
        """A copy or transfer on all its dies."""
        provenance, spcs = self._provenance, self._machine.spcs_per_die
        copies = [start_copy(self._program, issue, die) for die in self._dies(issue)]
        equal = issue.command.dies == _BOTH_DIES and all(provenance.is_equal(copy.source, spcs) for copy in copies)
        for copy in copies:
            action = MakeCopy(copy)
            if provenance.copied(copy, len(self.actions)):
                self._constant_copies[len(self.actions)] = action
            self.actions.append(action)
            self._events.finish(copy)
            if copy.source_die != copy.target_die and copy.source == copy.target:
                provenance.made_equal(copy.target, spcs)
        one = len({copy.source for copy in copies}) == len({copy.target for copy in copies}) == 1
        if equal and one and issue.command.mnemonic == "copy":
            provenance.made_equal(copies[0].target, spcs)

    def _run(self, issue: Issue) -> None:
        """One kernel on all its dies."""
        kernel = issue.fields["kernel"]
        stored = sorted(self._slots[kernel].stored)
        runs = [self._die_run(kernel, die) for die in self._dies(issue)]
        same = issue.command.dies == _BOTH_DIES and self._is_same(kernel, runs)
        for run in runs:
            if isinstance(run.raised, CannotRaiseError):
                self._step(kernel, run)
            elif same and run.die == 1:
                results = tuple(run.bound[slot] for slot in stored)
                self.actions.append(TakeResults(run.raised, kernel, results))
            else:
                self.actions.append(RunRaised(run.raised, kernel, run.die, run.read, self._operands[run.die]))
            for slot in stored:
                if slot in run.bound:
                    self._provenance.written(run.bound[slot], run.die)
        raised = runs[0].raised
        if same and isinstance(raised, RaisedKernel):
            for slot in stored:
                self._provenance.made_equal(runs[0].bound[slot], raised.spcs)

    def _die_run(self, kernel: int, die: int) -> DieRun:
        """A kernel on one die, with what it uses."""
        slots, everything = self._slots[kernel], self._states[die].bindings()
        spcs = self._states[die].spcs(self._machine.spcs_per_die)
        used = sorted(slots.loaded | slots.stored)
        bound = {slot: everything[slot] for slot in used if slot in everything}
        read = dict(bound)
        for slot in slots.loaded & bound.keys():
            if slot in slots.stored:
                self._provenance.read(bound[slot], die)
            else:
                read[slot] = self._provenance.original(bound[slot], die)
        raised = self._raise(kernel, read, die)
        if isinstance(raised, RaisedKernel) and spcs[: raised.spcs] != tuple(range(raised.spcs)):
            raised = CannotRaiseError("the launch leaves out SPCs that the kernel uses")
            name = self._program.kernels[kernel].name
            self.fallbacks.append(Fallback(name, raised.reason, raised=False))
        return DieRun(die, spcs, bound, read, raised)

    def _is_same(self, kernel: int, runs: Sequence[DieRun]) -> bool:
        """Whether two dies do the same with the same data, and leave nothing else in what they store to."""
        one, other = runs
        slots = self._slots[kernel]
        raised = one.raised
        if isinstance(raised, CannotRaiseError) or one.raised is not other.raised:
            return False
        if (one.spcs, one.bound, one.read) != (other.spcs, other.bound, other.read):
            return False
        if any(binding.descriptor.space == OTHER_L2 for binding in one.bound.values()):
            return False
        equal = all(self._provenance.is_equal(one.read[slot], raised.spcs) for slot in slots.loaded & one.read.keys())
        return equal and all(
            slot in one.bound
            and is_dense(one.bound[slot].descriptor)
            and fills(raised, slots.stores, slot, one.bound[slot])
            for slot in slots.stores
        )

    def _step(self, kernel: int, run: DieRun) -> None:
        """A kernel that is executed step by step: it reads everything where it is."""
        for binding in run.bound.values():
            self._provenance.read(binding, run.die)
        described = self._program.kernels[kernel]
        walk = KernelWalk(described)
        self.actions.append(RunStepping(kernel, described, self._machine, walk, run.die, run.spcs, run.bound))

    def _raise(self, kernel: int, bindings: Bindings, die: int) -> RaisedKernel | CannotRaiseError:
        """The raised form of a kernel, for its bindings apart from their addresses."""
        slots = self._slots[kernel]
        overlaps = frozenset(
            (load, store)
            for load in slots.loaded & bindings.keys()
            for store in slots.stored & bindings.keys()
            if _overlap(bindings[load], bindings[store])
        )
        constant = frozenset(
            slot for slot in slots.loaded & bindings.keys() if self._constants.hold(bindings[slot], die)
        )
        views = tuple((slot, replace(binding.descriptor, address=0)) for slot, binding in bindings.items())
        key = (kernel, views, overlaps, constant)
        if key not in self._raised:
            self._raised[key] = self._raise_anew(kernel, dict(views), overlaps, constant)
        return self._raised[key]

    def _raise_anew(
        self,
        kernel: int,
        descriptors: dict[int, Descriptor],
        overlaps: frozenset[tuple[int, int]],
        constant: frozenset[int],
    ) -> RaisedKernel | CannotRaiseError:
        setting = Setting(
            descriptors,
            self._program.tensor_buffer_bytes,
            overlaps,
            constant,
            self._workers.threads,
            self._workers.product_threads,
            self._blocking,
        )
        described = self._program.kernels[kernel]
        try:
            raised = prepare(described, setting)
        except CannotRaiseError as error:
            self.fallbacks.append(Fallback(described.name, error.reason, raised=False))
            return error
        self.fallbacks += (Fallback(described.name, reason, raised=True) for reason in raised.reasons)
        return raised


def _overlap(one: Binding, other: Binding) -> bool:
    """Whether two bound tensors have memory in common."""
    if one.descriptor.space != other.descriptor.space:
        return False
    first, end = byte_range(one.descriptor, one.byte_offset)
    other_first, other_end = byte_range(other.descriptor, other.byte_offset)
    return first < other_end and other_first < end
