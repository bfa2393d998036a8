"""Assigning vector registers to the values of a kernel's statements."""

from __future__ import annotations

from dataclasses import dataclass

from birc.compiler.ir.plan import Phase
from birc.runtime.errors import InternalError


@dataclass(frozen=True, slots=True)
class Registers:
    """The register of each value, and how many one vector program needs."""

    numbers: dict[str, int]
    count: int


def assign(phases: tuple[Phase, ...]) -> Registers:
    """Linear scan in statement order. A fold keeps its register to itself throughout the loops of its phase."""
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
                if isinstance(argument, str) and last_use[argument] == (p, s) and _may_free(argument, p, phases):
                    free.append(numbers[argument])
            if statement.result and statement.result not in numbers:
                take(statement.result)
                if statement.result not in last_use:
                    raise InternalError(f"value {statement.result} is never used")
    return Registers(numbers, count)


def _may_free(name: str, phase_number: int, phases: tuple[Phase, ...]) -> bool:
    """A value from before a looped phase is read again in its next iteration: it stays until the phase ends."""
    phase = phases[phase_number]
    made_here = any(s.result == name for s in phase.statements)
    return made_here or not phase.loops
