"""The command stream as each die's command processor sees it, and the copies that it starts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from birc.runtime.conversion import Array
from birc.runtime.faults import MachineFault
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.memory import Memory
from birc.runtime.program import Command, CommandLoop, Descriptor, Program
from birc.runtime.stepping.spc import Binding


@dataclass(frozen=True, slots=True)
class Issue:
    """One execution of a command: `position` in the unrolled stream, `index` of the command in the text.

    `iterations` are those of the command loops around it, outermost first.
    """

    position: int
    index: int
    command: Command
    iterations: tuple[int, ...]

    @property
    def fields(self) -> dict[str, Any]:
        """The operands by field name."""
        names = (field.name for field in BY_MNEMONIC[self.command.mnemonic].fields)
        return dict(zip(names, self.command.operands, strict=True))

    def concerns(self, die: int) -> bool:
        """Whether the command processor of this die executes it."""
        return bool(self.command.dies >> die & 1)

    def advanced(self, descriptor: Descriptor, advance: tuple[int, ...]) -> Binding:
        """A descriptor whose address has moved with the command loops."""
        if len(advance) > len(self.iterations):
            raise MachineFault(f"{len(advance)} advances inside {len(self.iterations)} command loops")
        moved = (step * iteration for step, iteration in zip(advance, self.iterations, strict=False))
        return Binding(descriptor, sum(moved))


def issues(program: Program) -> Iterator[Issue]:
    """The unrolled command stream, commands of all dies."""
    unrolled = _unroll(program.commands, 0, ())
    for position, (index, command, iterations) in enumerate(unrolled):
        yield Issue(position, index, command, iterations)


def _unroll(
    items: tuple[Command | CommandLoop, ...], index: int, iterations: tuple[int, ...]
) -> Iterator[tuple[int, Command, tuple[int, ...]]]:
    for item in items:
        if isinstance(item, Command):
            yield index, item, iterations
        else:
            for iteration in range(item.count):
                yield from _unroll(item.body, index, (*iterations, iteration))
        index += _size(item)


def _size(item: Command | CommandLoop) -> int:
    return 1 if isinstance(item, Command) else sum(_size(inner) for inner in item.body)


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy or transfer that was started: from a view on one die to a view on the same or another die, or to one in
    the tensor buffer of every SPC of the die.
    """

    issue: Issue
    event: int
    source: Binding
    source_die: int
    target: Binding
    target_die: int

    def pieces(self, memory: Memory) -> Iterator[int]:
        """Move one slice of the outermost dimension after the other, in one part after the other; yields the bytes
        moved.
        """
        for source, target in self._parts(memory):
            if source.shape != target.shape or source.dtype != target.dtype:
                raise MachineFault(f"copies {source.dtype} {list(source.shape)} to {target.dtype} {list(target.shape)}")
            for number in range(source.shape[0]) if source.ndim else [...]:
                target[number] = source[number]
                yield source[number].nbytes

    def _parts(self, memory: Memory) -> Iterator[tuple[Array, Array]]:
        """Views from which and to which is copied: of each SPC, where those are tensor buffers."""
        if self.source.descriptor.space == "tb":
            raise MachineFault("a copy cannot read a tensor buffer", hint="kernels load from it, each on its SPC")
        source = memory.view(self.source.descriptor, self.source_die, 0, self.source.byte_offset)
        target, die = self.target.descriptor, self.target_die
        if target.space != "tb":
            yield source, memory.view(target, die, 0, self.target.byte_offset)
            return
        if die != self.source_die:
            raise MachineFault("a transfer cannot reach a tensor buffer", hint="a copy on the other die can")
        spcs, rank = len(memory.tb[die]), len(target.dims)
        grid = source.shape[: max(0, source.ndim - rank)]
        if math.prod(grid) != spcs:
            raise MachineFault(f"copies {list(source.shape)} to {list(target.dims)} on each of {spcs} SPCs")
        for spc, place in enumerate(np.ndindex(*grid)):
            yield source[place], memory.view(target, die, spc, self.target.byte_offset)


def start_copy(program: Program, issue: Issue, die: int) -> Copy:
    """The copy that a `copy` or `transfer` command starts on a die."""
    fields = issue.fields
    source, target = program.descriptors[fields["src"]], program.descriptors[fields["dst"]]
    if issue.command.mnemonic == "copy":
        return Copy(
            issue,
            fields["event"],
            issue.advanced(source, fields["src_advance"]),
            die,
            issue.advanced(target, fields["dst_advance"]),
            die,
        )
    if program.dies != 2:
        raise MachineFault(f"a transfer needs two dies, the program has {program.dies}")
    return Copy(issue, fields["event"], Binding(source), die, Binding(target), 1 - die)


class Events:
    """The event flags of all dies. A transfer's event is set on both when the copies of all its dies are
    done."""

    __slots__ = ("_flags", "_transferred")

    def __init__(self, dies: int) -> None:
        self._flags: list[set[int]] = [set() for _ in range(dies)]
        self._transferred: dict[int, int] = {}

    def is_set(self, die: int, event: int) -> bool:
        return event in self._flags[die]

    def clear(self, die: int, event: int) -> None:
        self._flags[die].remove(event)

    def finish(self, copy: Copy) -> None:
        """Set the event of a copy that has moved its last byte."""
        if copy.issue.command.mnemonic == "copy":
            self._set(copy.source_die, copy.event)
            return
        done = self._transferred.get(copy.issue.position, 0) | 1 << copy.source_die
        self._transferred[copy.issue.position] = done
        if done == copy.issue.command.dies:
            for die in range(len(self._flags)):
                self._set(die, copy.event)

    def _set(self, die: int, event: int) -> None:
        if event in self._flags[die]:
            raise MachineFault(f"event {event} of die {die} is set again before it was waited for")
        self._flags[die].add(event)


class CommandState:
    """What a die's command processor remembers: the slots and the SPCs of the launch."""

    __slots__ = ("_program", "_slots", "_spcs")

    def __init__(self, program: Program) -> None:
        self._program = program
        self._slots: dict[int, Binding] = {}
        self._spcs = 0

    def launch(self, issue: Issue) -> None:
        self._spcs = issue.fields["spcs"]

    def bind(self, issue: Issue) -> None:
        fields = issue.fields
        descriptor = self._program.descriptors[fields["descriptor"]]
        self._slots[fields["slot"]] = issue.advanced(descriptor, fields["advance"])

    def bindings(self) -> Mapping[int, Binding]:
        """The slots as they are now."""
        return dict(self._slots)

    def spcs(self, spcs_per_die: int) -> tuple[int, ...]:
        """The SPCs of the launch. Raises `MachineFault` when there is none, or the machine has fewer."""
        if not self._spcs or self._spcs >> spcs_per_die:
            raise MachineFault(f"a kernel runs on the SPCs {self._spcs:#x}, a die has {spcs_per_die}")
        return tuple(spc for spc in range(spcs_per_die) if self._spcs >> spc & 1)
