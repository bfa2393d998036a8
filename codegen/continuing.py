"""Parts of a product behind each other as one kernel: the queues go from one part to the next without a barrier.

The code of each stays as it was written, with the same programs, registers and semaphores: what counts free slots of
the input buffers counts on, and so do the rings. Slots for the same view are one. Where all that parts load of `a` is
the same for all of them, and stays until the end of a part, it is loaded once, by the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from birc.codegen.changed_code import Around, Item, changed
from birc.codegen.slots import Slots
from birc.compiler.ir.plan import Tiling
from birc.compiler.ir.semaphores import A_FREE, A_FULL
from birc.runtime.errors import InternalError
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.program import Affine, Box, Instruction, Kernel, Loop, Operand, RingAddress, Sync, affine

QUEUES: Final = ("load_a", "load_b")
"""Those that load the operands."""
SlotBytes = tuple[int, int]
"""Of a tile of `a`, and of one of `b`."""


def as_one_kernel(parts: Sequence[tuple[Kernel, Slots]], tiling: Tiling, slot_bytes: SlotBytes) -> tuple[Kernel, Slots]:
    """One kernel of parts that have a tiling in common, and its slots."""
    codes = [code for code, _ in parts]
    if any(code.semaphores != codes[0].semaphores for code in codes):
        raise InternalError("parts of a product with different semaphores", where=codes[0].name)
    slots = Slots()
    numbers = [[slots.number(view) for view in own.views] for _, own in parts]
    bound = [_in_slots(code.nests, of) for code, of in zip(codes, numbers, strict=True)]
    loads = [_loads(nests) for nests in bound]
    is_same = tiling.hoist == "a" and all(of.of_a == loads[0].of_a for of in loads)
    stays = is_same and loads[0].a_count <= tiling.a_slots
    nests: list[Item] = []
    a_passed = b_passed = 0
    for number, (of_part, loaded) in enumerate(zip(bound, loads, strict=True)):
        part = _Part(tiling, slot_bytes, (a_passed, b_passed), stays and number > 0, stays and number + 1 < len(bound))
        nests += part.items(of_part)
        a_passed += 0 if stays else loaded.a_count
        b_passed += loaded.b_count
    return replace(codes[0], nests=tuple(nests)), slots


@dataclass(frozen=True, slots=True)
class _Loads:
    """The loads of a part: the instructions that load `a`, and how many tiles of each operand an SPC loads."""

    of_a: tuple[Instruction, ...]
    a_count: int
    b_count: int


@dataclass(frozen=True, slots=True)
class _Part:
    """A part behind others that made so many loads of each operand.

    `has_a` where `a` is there from before, `leaves_a` where it stays for those that come.
    """

    tiling: Tiling
    slot_bytes: SlotBytes
    passed: tuple[int, int]
    has_a: bool
    leaves_a: bool

    def items(self, items: Sequence[Item]) -> list[Item]:
        """The code of the part in its place; loops in which nothing is left are gone."""
        found: list[Item] = []
        for item in items:
            if isinstance(item, Loop):
                body = tuple(self.items(item.body))
                found += [replace(item, body=body)] if body else []
            elif not (self.has_a and BY_MNEMONIC[item.mnemonic].engine == "load_a"):
                found.append(self._moved(item))
        return found

    def _moved(self, item: Instruction) -> Instruction:
        row = BY_MNEMONIC[item.mnemonic]
        places = [0, 1] if row.pipe == "mma" else [1 if row.engine == "load_b" else 0]
        waits = tuple(s for s in item.waits if not (self.has_a and _is(s, A_FULL)))
        posts = tuple(s for s in item.posts if not (self.leaves_a and _is(s, A_FREE)))
        return replace(item, operands=tuple(self._operand(o, places) for o in item.operands), waits=waits, posts=posts)

    def _operand(self, operand: Operand, places: list[int]) -> Operand:
        """An operand; `places` say of which of the input buffers are the addresses that are left."""
        if not isinstance(operand, RingAddress):
            return operand
        place = places.pop(0)
        slots = (self.tiling.a_slots, self.tiling.b_slots)[place]
        size, passed = self.slot_bytes[place], self.passed[place] % slots
        if not passed:
            return operand
        index = operand.index
        if operand.modulo == 1:
            base = operand.base
            index = affine(base.constant // size, {depth: factor // size for depth, factor in base.terms})
        return RingAddress(Affine(), size, index + passed, slots)


def _is(sync: Sync, semaphore: int) -> bool:
    return sync.semaphore == Affine(semaphore)


def _in_slots(nests: Sequence[Item], numbers: Sequence[int]) -> list[Item]:
    """The code with other numbers for its slots."""

    def bound(item: Instruction, _: Around) -> Instruction:
        operands = (replace(o, slot=numbers[o.slot]) if isinstance(o, Box) else o for o in item.operands)
        return replace(item, operands=tuple(operands))

    return changed(nests, bound)


def _loads(items: Sequence[Item]) -> _Loads:
    """What a part loads."""
    found = list(_executed(items))
    of_a, of_b = ([one for one in found if BY_MNEMONIC[one[0].mnemonic].engine == queue] for queue in QUEUES)
    return _Loads(tuple(item for item, _ in of_a), sum(times for _, times in of_a), sum(times for _, times in of_b))


def _executed(items: Sequence[Item], times: int = 1) -> Iterator[tuple[Instruction, int]]:
    """The instructions, and how often an SPC executes each."""
    for item in items:
        if isinstance(item, Loop):
            yield from _executed(item.body, times * (1 if item.level == "spc" else item.extent))
        else:
            yield item, times
