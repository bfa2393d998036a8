"""The command stream unrolled: every execution of a command, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from birc.runtime.counts import static_commands
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.program import Command, CommandLoop, Descriptor, Program


@dataclass(frozen=True, slots=True)
class Issue:
    """One execution of a command: `index` in the text, `iteration` of the loops around it."""

    index: int
    command: Command
    iteration: tuple[int, ...]

    def operand(self, name: str) -> Any:
        """The operand of the field called `name`."""
        return self.command.operands[_place(self.command.mnemonic, name)]

    def advanced(self, descriptor: Descriptor, advance: tuple[int, ...]) -> Descriptor:
        """The descriptor with its address moved by `advance` bytes an iteration."""
        moved = sum(step * iteration for step, iteration in zip(advance, self.iteration, strict=False))
        return replace(descriptor, address=descriptor.address + moved) if moved else descriptor


@cache
def _place(mnemonic: str, name: str) -> int:
    """Where the operand of a field stands among those of a command."""
    return [field.name for field in BY_MNEMONIC[mnemonic].fields].index(name)


def issues(program: Program) -> Iterator[Issue]:
    """The unrolled command stream."""
    return _unrolled(program.commands, 0, ())


def dies_of(items: tuple[Command | CommandLoop, ...]) -> int:
    """The mask of the dies that commands are for."""
    mask = 0
    for item in items:
        mask |= item.dies if isinstance(item, Command) else dies_of(item.body)
    return mask


def fills_buffers(program: Program) -> bool:
    """Whether a copy goes into tensor buffers."""
    copies = (command for command in static_commands(program) if command.mnemonic == "copy")
    targets: Iterator[Any] = (command.operands[_place("copy", "dst")] for command in copies)
    return any(program.descriptors[target].space == "tb" for target in targets)


def runs_before_preloads(program: Program) -> frozenset[tuple[int, int]]:
    """The runs, by number and die, behind which the next kernel's B is loaded ahead."""
    found, last, number = set[tuple[int, int]](), dict[int, int](), 0
    for issue in issues(program):
        dies = [die for die in range(program.dies) if issue.command.dies >> die & 1]
        if issue.command.mnemonic == "preload":
            found |= {(last[die], die) for die in dies if die in last}
        elif issue.command.mnemonic == "run":
            last |= dict.fromkeys(dies, number)
            number += 1
    return frozenset(found)


def _unrolled(items: tuple[Command | CommandLoop, ...], index: int, iteration: tuple[int, ...]) -> Iterator[Issue]:
    for item in items:
        if isinstance(item, Command):
            yield Issue(index, item, iteration)
        else:
            for number in range(item.count):
                yield from _unrolled(item.body, index, (*iteration, number))
        index += _size(item)


def _size(item: Command | CommandLoop) -> int:
    return 1 if isinstance(item, Command) else sum(_size(inner) for inner in item.body)
