"""Goes through a program's commands once: raises its kernels and turns every command into an action."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from birc.runtime.faults import MachineFault
from birc.runtime.machine import Machine
from birc.runtime.memory import byte_range
from birc.runtime.program import Box, Descriptor, Kernel, Program
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

    def __init__(
        self, program: Program, machine: Machine, workers: Workers, blocking: Blocking
    ) -> None:
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
        provenance = self._provenance
        copies = [start_copy(self._program, issue, die) for die in self._dies(issue)]
        equal = issue.command.dies == _BOTH_DIES and all(provenance.is_equal(copy.source) for copy in copies)
        for copy in copies:
            action = MakeCopy(copy)
            if provenance.copied(copy, len(self.actions)):
                self._constant_copies[len(self.actions)] = action
            self.actions.append(action)
            self._events.finish(copy)
            if copy.source_die != copy.target_die and copy.source == copy.target:
                provenance.made_equal(copy.target)
        one = len({copy.source for copy in copies}) == len({copy.target for copy in copies}) == 1
        if equal and one and issue.command.mnemonic == "copy":
            provenance.made_equal(copies[0].target)

    def _run(self, issue: Issue) -> None:
        """One kernel on all its dies."""
        kernel = issue.fields["kernel"]
        slots, provenance = self._slots[kernel], self._provenance
        runs: list[tuple[int, Bindings, RaisedKernel | CannotRaiseError]] = []
        used: list[Bindings] = []
        for die in self._dies(issue):
            bound = self._states[die].bindings()
            taken = {slot: bound[slot] for slot in sorted(slots.loaded | slots.stored) if slot in bound}
            used.append(taken)
            read = {
                slot: provenance.original(binding, die) if slot not in slots.stored else binding
                for slot, binding in taken.items()
            }
            for slot in slots.loaded & slots.stored & taken.keys():
                provenance.read(taken[slot], die)
            runs.append((die, read, self._raise(kernel, read, die)))
        same = issue.command.dies == _BOTH_DIES and used[0] == used[1] and runs[0][1] == runs[1][1]
        spcs = [self._states[die].spcs(self._machine.spcs_per_die) for die, _, _ in runs]
        same = same and spcs[0] == spcs[1]
        same = same and all(provenance.is_equal(runs[0][1][slot]) for slot in slots.loaded & used[0].keys())
        filled = all(self._is_filled(run[2], kernel, taken) for run, taken in zip(runs, used, strict=True))
        for (die, read, raised), taken in zip(runs, used, strict=True):
            if isinstance(raised, CannotRaiseError) or spcs[0][: raised.spcs] != tuple(range(raised.spcs)):
                same = False
                self._step(kernel, die, taken)
            elif same and filled and die == 1:
                results = tuple(taken[slot] for slot in sorted(slots.stored))
                self.actions.append(TakeResults(raised, kernel, results, raised.spcs))
            else:
                self.actions.append(RunRaised(raised, kernel, die, read, self._workers, self._operands[die]))
            for slot in slots.stored & taken.keys():
                provenance.written(taken[slot], die)
        if same and filled:
            for slot in slots.stored & used[0].keys():
                provenance.made_equal(used[0][slot])

    def _is_filled(self, raised: RaisedKernel | CannotRaiseError, kernel: int, bindings: Bindings) -> bool:
        """Whether a kernel writes all of every tensor that it stores to."""
        if isinstance(raised, CannotRaiseError):
            return False
        stores = self._slots[kernel].stores
        return all(
            slot in bindings and is_dense(bindings[slot].descriptor) and fills(raised, stores, slot, bindings[slot])
            for slot in stores
        )

    def _step(self, kernel: int, die: int, bindings: Bindings) -> None:
        """A kernel that is executed step by step: it reads everything where it is."""
        for binding in bindings.values():
            self._provenance.read(binding, die)
        spcs = self._states[die].spcs(self._machine.spcs_per_die)
        described = self._program.kernels[kernel]
        everything = self._states[die].bindings()
        walk = KernelWalk(described)
        self.actions.append(RunStepping(kernel, described, self._machine, walk, die, spcs, everything))

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
