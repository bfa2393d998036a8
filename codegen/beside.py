"""Two kernels as one: each keeps its nests, with programs, registers, semaphores and slots of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from birc.codegen.changed_code import Around, Item, changed
from birc.codegen.slots import Slots
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.program import Box, Instruction, Kernel, Operand, Register, Sync


@dataclass(frozen=True, slots=True)
class Place:
    """The first vector program, register, semaphore and slot of a kernel."""

    program: int = 0
    register: int = 0
    semaphore: int = 0
    slot: int = 0

    def moved(self, item: Instruction, _: Around) -> Instruction:
        """An instruction of the kernel, which was written to begin at zero everywhere."""
        is_vector = BY_MNEMONIC[item.mnemonic].engine == "vector"
        return replace(
            item,
            operands=tuple(map(self._operand, item.operands)),
            waits=tuple(map(self._sync, item.waits)),
            posts=tuple(map(self._sync, item.posts)),
            program=item.program + self.program if is_vector else item.program,
        )

    def _operand(self, operand: Operand) -> Operand:
        match operand:
            case Register(number):
                return Register(number + self.register)
            case Box(slot):
                return replace(operand, slot=slot + self.slot)
        return operand

    def _sync(self, sync: Sync) -> Sync:
        return replace(sync, semaphore=sync.semaphore + self.semaphore)


def as_one(parts: Sequence[tuple[Kernel, Slots]], firsts: Sequence[tuple[int, int]]) -> tuple[Kernel, Slots]:
    """One kernel of several that run side by side, and its slots; `firsts` are the first program and register of each.

    What stands first in the text comes first for none of them: no queue has instructions of two.
    """
    nests: list[Item] = []
    semaphores: list[int] = []
    slots = Slots()
    for (code, own), (program, register) in zip(parts, firsts, strict=True):
        place = Place(program, register, len(semaphores), len(slots.views))
        nests += changed(code.nests, place.moved)
        semaphores += code.semaphores
        slots.views += own.views
    first = parts[0][0]
    return replace(first, nests=tuple(nests), semaphores=tuple(semaphores)), slots
