"""What an execution did: executions, bytes and multiply-adds of each instruction, bytes of each copy.

Every engine fills these from what it itself executed, so that they can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from birc.runtime.program import Command, CommandLoop, Program


@dataclass(slots=True)
class InstructionCounts:
    """The sums of one static instruction. Bytes are payload: elements in bounds times their size."""

    executions: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    macs: int = 0


@dataclass(slots=True)
class Counts:
    """`instructions` by (kernel index, index in `Kernel.instructions()`), summed over runs, dies and SPCs.

    `copies` holds bytes by the index of the copy or transfer in `static_commands`, summed over dies and
    loops. What was never executed has no entry.
    """

    instructions: dict[tuple[int, int], InstructionCounts] = field(default_factory=dict)
    copies: dict[int, int] = field(default_factory=dict)

    def add(
        self,
        kernel: int,
        instruction: int,
        *,
        executions: int = 1,
        bytes_read: int = 0,
        bytes_written: int = 0,
        macs: int = 0,
    ) -> None:
        """Count executions of an instruction; the other figures are their sums."""
        if not executions:
            return
        entry = self.instructions.setdefault((kernel, instruction), InstructionCounts())
        entry.executions += executions
        entry.bytes_read += bytes_read
        entry.bytes_written += bytes_written
        entry.macs += macs

    def add_copy(self, command: int, num_bytes: int) -> None:
        """Count the bytes of a copy or transfer."""
        self.copies[command] = self.copies.get(command, 0) + num_bytes

    def total(self) -> InstructionCounts:
        """The sums over all instructions."""
        entries = self.instructions.values()
        return InstructionCounts(
            sum(entry.executions for entry in entries),
            sum(entry.bytes_read for entry in entries),
            sum(entry.bytes_written for entry in entries),
            sum(entry.macs for entry in entries),
        )


def static_commands(program: Program) -> Iterator[Command]:
    """Every command of the program's text, in text order; a loop's body once."""
    pending: list[Command | CommandLoop] = list(reversed(program.commands))
    while pending:
        item = pending.pop()
        if isinstance(item, Command):
            yield item
        else:
            pending.extend(reversed(item.body))
