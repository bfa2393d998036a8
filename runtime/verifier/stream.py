"""The command stream unrolled, as the command processors execute it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from birc.runtime.assembly import command_text
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.program import Command, CommandLoop, Descriptor, Operand, Program

# Streams with more executed commands are cut down to the first iterations and the last one of each loop.
UNROLLED_WHOLE: Final = 100_000
FIRST_ITERATIONS: Final = 2


@dataclass(frozen=True, slots=True)
class Issue:
    """One execution of a command: its place in the text, and the iterations of the loops around it."""

    place: str
    command: Command
    iterations: tuple[int, ...]

    def operand(self, name: str) -> Operand:
        """The operand of the field called `name`."""
        for field, value in zip(BY_MNEMONIC[self.command.mnemonic].fields, self.command.operands, strict=True):
            if field.name == name:
                return value
        raise KeyError(name)

    def number(self, name: str) -> int:
        """An operand that is a whole number."""
        value = self.operand(name)
        if not isinstance(value, int):
            raise TypeError(name)
        return value

    def advanced(self, descriptor: Descriptor, name: str) -> Descriptor:
        """A descriptor moved by the operand `name`, bytes for each iteration of the loops around."""
        steps = self.operand(name)
        if not isinstance(steps, tuple):
            raise TypeError(name)
        moved = sum(step * at for step, at in zip(steps, self.iterations, strict=False))
        return replace(descriptor, address=descriptor.address + moved) if moved else descriptor

    @property
    def text(self) -> str:
        """Text for a finding: place, command, iterations."""
        at = f" at iteration {self.iterations}" if self.iterations else ""
        return f"{self.place} `{command_text(self.command)}`{at}"


def issues(program: Program) -> Iterator[Issue]:
    """Every execution of a command in the sequential order."""
    whole = _size(program.commands) <= UNROLLED_WHOLE
    return _unroll(program.commands, "command", (), whole)


def _size(commands: tuple[Command | CommandLoop, ...]) -> int:
    return sum(1 if isinstance(item, Command) else item.count * _size(item.body) for item in commands)


def _unroll(
    commands: tuple[Command | CommandLoop, ...], path: str, iterations: tuple[int, ...], whole: bool
) -> Iterator[Issue]:
    for index, item in enumerate(commands):
        place = f"{path} {index}" if path == "command" else f"{path}.{index}"
        if isinstance(item, Command):
            yield Issue(place, item, iterations)
            continue
        for iteration in range(item.count):
            if whole or iteration < FIRST_ITERATIONS or iteration == item.count - 1:
                yield from _unroll(item.body, place, (*iterations, iteration), whole)
