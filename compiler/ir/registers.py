"""Assigning vector registers to the values of a kernel's statements."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from birc.compiler.ir.plan import Kernel, Phase, Statement
from birc.runtime.errors import InternalError

MOST_LOADS_AHEAD = 4
"""Loads of a phase that go ahead, each with registers of its own; no program has more of them in flight."""


@dataclass(frozen=True, slots=True)
class Registers:
    """The register of each value, and how many one vector program needs."""

    numbers: dict[str, int]
    count: int


def assign(phases: tuple[Phase, ...], kept: Collection[str] = ()) -> Registers:
    """Linear scan in statement order. A fold keeps its register to itself throughout the loops of its phase.

    Values in `kept` lie elsewhere.
    """
    last_use: dict[str, tuple[int, int]] = {}
    for p, phase in enumerate(phases):
        for s, statement in enumerate(phase.statements):
            for argument in statement.arguments:
                if isinstance(argument, str):
                    last_use[argument] = (p, s)
    numbers: dict[str, int] = {}
    free: list[int] = []
    count = 0

    def take(name: str) -> None:
        nonlocal count
        if free:
            numbers[name] = free.pop()
        else:
            numbers[name] = count
            count += 1

    for p, phase in enumerate(phases):
        for statement in phase.statements:
            if statement.op.startswith("vfold"):
                take(statement.result)
        for s, statement in enumerate(phase.statements):
            for argument in dict.fromkeys(statement.arguments):
                if argument in numbers and last_use[str(argument)] == (p, s) and _may_free(str(argument), p, phases):
                    free.append(numbers[str(argument)])
            if statement.result and statement.result not in numbers and statement.result not in kept:
                take(statement.result)
                if statement.result not in last_use:
                    raise InternalError(f"value {statement.result} is never used")
    return Registers(numbers, count)


def vector_registers(phases: tuple[Phase, ...], once: bool) -> Registers:
    """The registers of a program of a vector kernel; when it executes the first phase `once`, those values stay."""
    if not once:
        return assign(phases)
    kept = {s.result: number for number, s in enumerate(phases[0].statements)}
    rest = assign(phases[1:], kept)
    numbers = kept | {name: len(kept) + number for name, number in rest.numbers.items()}
    return Registers(numbers, len(kept) + rest.count)


def _may_free(name: str, phase_number: int, phases: tuple[Phase, ...]) -> bool:
    """A value from before a looped phase is read again in its next iteration: it stays until the phase ends."""
    phase = phases[phase_number]
    made_here = any(s.result == name for s in phase.statements)
    return made_here or not phase.loops


def tile_slots(phases: tuple[Phase, ...]) -> dict[str, int]:
    """The values of a contraction that have a register for each tile of a block, and which of that tile's it is.

    They are the sums, and what one phase computes of a tile and a later one reads. A slot whose value was read for the
    last time is taken again, first of all by the result of that statement.
    """
    last_use: dict[str, tuple[int, int]] = {}
    crossing: set[str] = set()
    origins: dict[str, int] = {}
    for p, phase in enumerate(phases):
        for s, statement in enumerate(phase.statements):
            for argument in statement.arguments:
                if isinstance(argument, str):
                    last_use[argument] = (p, s)
                    if origins.get(argument, p) != p:
                        crossing.add(argument)
            if statement.op == "vacc":
                crossing.add(statement.result)
            if statement.result and phase.loops and not statement.op.startswith("vfold"):
                origins[statement.result] = p
    slots: dict[str, int] = {}
    for p, phase in enumerate(phases):
        for s, statement in enumerate(phase.statements):
            ended = [slots[a] for a in statement.arguments if a in slots and last_use[str(a)] == (p, s)]
            if statement.result in crossing:
                taken = {slot for name, slot in slots.items() if last_use[name] > (p, s)}
                slots[statement.result] = next(n for n in (*ended, *range(len(crossing))) if n not in taken)
            elif ended and statement.result in origins:
                slots[statement.result] = ended[0]
    return slots


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What follows the products of a contraction: its phases in the order of execution, and the registers they take.

    When a program takes whole blocks, `slots` are those of `tile_slots`, and `loads` number the loads of a phase that
    move along the columns: they go ahead of what they are for, by several tiles. Both are empty when it takes single
    tiles.
    """

    phases: tuple[Phase, ...]
    registers: Registers
    slots: dict[str, int]
    loads: dict[str, int]

    @property
    def is_rowwise(self) -> bool:
        """Whether some of it is about whole rows: it walks the columns more than once."""
        return len(self.phases) > 1

    def count(self, tiles: int, ahead: int = 1) -> int:
        """Registers of one vector program that takes blocks of so many tiles, with loads so many tiles ahead."""
        of_tiles = max(self.slots.values()) + 1 if self.slots else 0
        of_loads = max(self.loads.values()) + 1 if self.loads else 0
        return self.registers.count + tiles * of_tiles + ahead * of_loads

    def ahead(self, rows: int, columns: int, most: int) -> int:
        """How many column tiles of a block loads go ahead when a program has `most` registers."""
        if not self.loads:
            return 1
        return max(
            n for n in range(1, columns + 1) if columns % n == 0 and (n == 1 or self.count(rows * columns, n) <= most)
        )


def epilogue(kernel: Kernel, by_block: bool) -> Epilogue:
    """The epilogue of a contraction. Loads come first in their phase, so that they overlap the T-core.

    When a program takes whole blocks there are registers for a few of them only; the others stay where they are read.
    """
    if not by_block or kernel.contraction is None:
        phases = tuple(_in_front(phase, phase.statements) for phase in kernel.phases)
        return Epilogue(phases, assign(phases), {}, {})
    slots, loads = tile_slots(kernel.phases), {}
    ahead = [_ahead(phase, slots) for phase in kernel.phases]
    phases = tuple(_in_front(phase, first) for phase, first in zip(kernel.phases, ahead, strict=True))
    for phase, first in zip(phases, ahead, strict=True):
        if phase.loops or len(phases) == 1:
            loads.update({statement.result: number for number, statement in enumerate(first)})
    return Epilogue(phases, assign(phases, {**slots, **loads}), slots, loads)


def _ahead(phase: Phase, slots: Collection[str]) -> list[Statement]:
    """The loads of a phase that go ahead."""
    return [s for s in phase.statements if s.op == "vld" and s.result not in slots][:MOST_LOADS_AHEAD]


def _in_front(phase: Phase, first: Collection[Statement]) -> Phase:
    """The phase with those of its loads that are in `first` before all else."""
    return replace(phase, statements=tuple(sorted(phase.statements, key=lambda s: s.op != "vld" or s not in first)))
