"""Where an instruction stands: kernel, index, loops around, and what these make of affine numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from birc.runtime.assembly import instruction_text
from birc.runtime.isa import BY_MNEMONIC, InstructionRow
from birc.runtime.program import Affine, Instruction, Kernel, Loop, Operand, RingAddress

Interval = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Place:
    """One static instruction: `index` counts as `Kernel.instructions()`, `loops` stand around it, outermost
    first.

    `path` is its position among the nests, then in each body: two instructions share the loops of their
    common prefix.
    """

    kernel: str
    index: int
    instruction: Instruction
    loops: tuple[Loop, ...]
    path: tuple[int, ...]

    @property
    def row(self) -> InstructionRow:
        return BY_MNEMONIC[self.instruction.mnemonic]

    def operand(self, name: str) -> Operand:
        """The operand of the field called `name`."""
        for field, value in zip(self.row.fields, self.instruction.operands, strict=True):
            if field.name == name:
                return value
        raise KeyError(name)

    @property
    def label(self) -> str:
        """Text for a finding about an instruction whose operands cannot be printed."""
        return f"kernel {self.kernel}, instruction {self.index} `{self.instruction.mnemonic}`"

    def name(self, iteration: tuple[int, ...] | None = None) -> str:
        """Text for a finding: kernel, index, instruction and, where it is known, the iteration."""
        at = "" if iteration is None else f" at iteration ({', '.join(map(str, iteration))})"
        text = instruction_text(replace(self.instruction, waits=(), posts=()))
        return f"kernel {self.kernel}, instruction {self.index} `{text}`{at}"


def places(kernel: Kernel) -> Iterator[Place]:
    """Every static instruction of a kernel in text order."""
    counter = 0
    pending: list[tuple[Loop | Instruction, tuple[Loop, ...], tuple[int, ...]]] = []
    pending.extend((nest, (), (index,)) for index, nest in reversed(list(enumerate(kernel.nests))))
    while pending:
        item, loops, path = pending.pop()
        if isinstance(item, Instruction):
            yield Place(kernel.name, counter, item, loops, path)
            counter += 1
            continue
        children = reversed(list(enumerate(item.body)))
        pending.extend((child, (*loops, item), (*path, index)) for index, child in children)


def trip_limits(loops: tuple[Loop, ...]) -> tuple[int, ...]:
    """The largest trip count of each loop, over all iterations of the loops around it."""
    trips: list[int] = []
    for loop in loops:
        if loop.limit is None:
            trips.append(loop.extent)
            continue
        _, high = affine_interval(loop.limit, tuple(trips))
        trips.append(min(loop.extent, max(0, high)))
    return tuple(trips)


def affine_interval(affine: Affine, trips: tuple[int, ...]) -> Interval:
    """The smallest and the largest value (inclusive) while every loop runs through at most `trips`
    iterations.
    """
    low = high = affine.constant
    for depth, coefficient in affine.terms:
        span = coefficient * max(0, trips[depth] - 1)
        low += min(0, span)
        high += max(0, span)
    return low, high


def ring_interval(ring: RingAddress, trips: tuple[int, ...]) -> Interval:
    """The lowest and the highest address (inclusive) of a ring."""
    low, high = affine_interval(ring.base, trips)
    first, last = affine_interval(ring.index, trips)
    turns = (0, ring.modulo - 1) if first < 0 or last >= ring.modulo else (first, last)
    offsets = (ring.stride * turns[0], ring.stride * turns[1])
    return low + min(offsets), high + max(offsets)
