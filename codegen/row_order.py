"""Rows of tiles that one product makes and another one reads: the loop that counts their programs, and their order.

Both products take the rows of each vector program in one order. The loop of the second over rows of different programs
is cut in two, so that the inner one counts the programs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from birc.codegen.changed_code import Item, numbered
from birc.runtime.errors import InternalError
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.program import (
    Affine,
    Axis,
    Box,
    Instruction,
    Loop,
    Operand,
    Sync,
    affine,
)

Chosen = Callable[[Instruction], bool]


@dataclass(frozen=True, slots=True)
class Passed:
    """What the second product takes of the first: the slot of the rows that it loads.

    `stored` is the slot of these in the first product, `last` that of what it stores last of a row; `leading` are the
    axes of all that count rows, not columns. `others` are slots from which the epilogue of the second product loads.
    """

    stored: int
    last: int
    loaded: int
    others: frozenset[int]
    leading: int

    def moved(self, first: int, second: int) -> Passed:
        """The same where the slots of both products begin at other numbers."""
        others = frozenset(second + slot for slot in self.others)
        return Passed(first + self.stored, first + self.last, second + self.loaded, others, self.leading)

    @property
    def ends_with_shares(self) -> bool:
        """Whether the last store of what the second product loads of a row is the one that it waits for."""
        return bool(self.others) or self.stored == self.last

    def is_stored(self, item: Instruction) -> bool:
        """Whether an instruction of the first product stores what the second one loads."""
        return item.mnemonic == "vst" and slot_of(item) == self.stored

    def is_told(self, item: Instruction) -> bool:
        """Whether an instruction of the first product is the last store of a row."""
        return item.mnemonic == "vst" and slot_of(item) == self.last

    def ends_of_rows(self, ahead: Sequence[Item]) -> list[Instruction]:
        """The instructions of the first product that store the last of what the second one loads of a row.

        Of those of the same rows in the same loops over rows it is the last one of the text. Without `others` to be
        awaited it is the last store of the row.
        """
        slot = self.stored if self.others else self.last
        ends: dict[object, Instruction] = {}
        for item, loops in chosen_of(ahead, lambda i: i.mnemonic == "vst" and slot_of(i) == slot):
            again = self.again(item, loops)
            over_rows = tuple(id(loop) for depth, loop in enumerate(loops) if not again >> depth & 1)
            ends[over_rows, box_of(item).axes[: self.leading]] = item
        return list(ends.values())

    def is_load(self, item: Instruction) -> bool:
        """Whether an instruction of the second product loads what the first one stored of a row."""
        return item.mnemonic == "tlda" and slot_of(item) == self.loaded

    def is_other(self, item: Instruction) -> bool:
        """Whether an instruction of the second product's epilogue does."""
        return item.mnemonic == "vld" and slot_of(item) in self.others

    def again(self, item: Instruction, loops: Sequence[Loop]) -> int:
        """The mask of the loops that come back to a row of which an instruction loads, or stores.

        They are those over chunks of its depth, and over columns of tiles.
        """
        return _standing(box_of(item).axes[: self.leading], loops)

    def repeated(self, item: Instruction, loops: Sequence[Loop]) -> int:
        """The mask of the loops that come back to the same part of a row: those over other columns of tiles."""
        return _standing(box_of(item).axes, loops)


def _standing(axes: Sequence[Axis], loops: Sequence[Loop]) -> int:
    """The mask of the loops of an SPC with which no axis moves."""
    moving = {depth for axis in axes for depth, _ in axis.start.terms}
    return sum(1 << depth for depth, loop in enumerate(loops) if loop.level != "spc" and depth not in moving)


def counting_programs(
    ahead: Sequence[Item], behind: Sequence[Item], passed: Passed, programs: int
) -> tuple[int | None, tuple[Item, ...]]:
    """The code of the second product with a loop that counts the vector programs of the first, and its depth."""
    if programs == 1:
        return None, tuple(behind)
    moves = {
        (axis, side.start.coefficient(depth))
        for item, loops in chosen_of(ahead, passed.is_told)
        for depth, loop in enumerate(loops)
        if loop.level == "program"
        for axis, side in enumerate(box_of(item).axes[: passed.leading])
        if side.start.coefficient(depth)
    }
    found = {
        depth
        for item, loops in chosen_of(behind, passed.is_load)
        for depth, loop in enumerate(loops)
        for axis, side in enumerate(box_of(item).axes[: passed.leading])
        if (axis, side.start.coefficient(depth)) in moves and loop.level == "tile" and loop.extent % programs == 0
    }
    if len(moves) != 1 or len(found) != 1:
        raise InternalError("the programs of a product do not take rows that the one behind it counts by a loop")
    (depth,) = found
    return depth + 1, tuple(_cut_loop(item, depth, programs, 0) for item in behind)


def _cut_loop(item: Item, depth: int, inner: int, at: int, *, inside: bool = False) -> Item:
    """The code in which the loop at a depth around the loads of rows is two, the inner one of some iterations."""
    if isinstance(item, Loop):
        is_cut = at == depth and any(True for _ in chosen_of((item,), lambda i: i.mnemonic == "tlda"))
        body = tuple(_cut_loop(i, depth, inner, at + 1, inside=inside or is_cut) for i in item.body)
        if is_cut:
            body = (replace(item, extent=inner, body=body),)
            return replace(item, extent=item.extent // inner, body=body)
        return replace(item, body=body)
    return _renamed(item, depth, inner) if inside else item


def _renamed(item: Instruction, depth: int, inner: int) -> Instruction:
    """An instruction inside a loop that has become two."""

    def number(value: Affine) -> Affine:
        terms: dict[int, int] = {}
        for at, factor in value.terms:
            if at == depth:
                terms[at] = factor * inner
            terms[at + (at >= depth)] = factor
        return affine(value.constant, terms)

    def mask(bits: int) -> int:
        below = bits & ((1 << depth) - 1)
        both = 3 << depth if bits >> depth & 1 else 0
        return below | both | (bits >> (depth + 1)) << (depth + 2)

    def sync(value: Sync) -> Sync:
        return Sync(number(value.semaphore), mask(value.first), mask(value.last))

    def operand(name: str, value: Operand) -> Operand:
        return mask(value) if name == "first" and isinstance(value, int) else numbered(value, number)

    fields = BY_MNEMONIC[item.mnemonic].fields
    operands = tuple(operand(f.name, value) for f, value in zip(fields, item.operands, strict=True))
    return replace(item, operands=operands, waits=tuple(map(sync, item.waits)), posts=tuple(map(sync, item.posts)))


def check_order(ahead: Sequence[Item], behind: Sequence[Item], passed: Passed, loop: int | None) -> None:
    """The rows that each vector program of the first product finishes come in the order in which they are awaited."""
    made: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    wanted: dict[int, list[tuple[int, ...]]] = defaultdict(list)

    for item, loops, variables in executed(ahead, passed.is_told):
        finished, stored = made[_sum(variables, loops, "program")], rows_of(item, variables, passed.leading)
        if finished[-1:] != [stored]:  # column by column
            finished.append(stored)
    for item, loops, variables in executed(behind, passed.is_load):
        if not any(at for depth, at in enumerate(variables) if passed.again(item, loops) >> depth & 1):
            wanted[0 if loop is None else variables[loop]].append(rows_of(item, variables, passed.leading))
    if made != wanted:
        raise InternalError("a product takes rows of the one in front of it in another order")


def _sum(variables: tuple[int, ...], loops: tuple[Loop, ...], what: str) -> int:
    """The sum of the iterations of the loops of a kind or level."""
    return sum(at for at, loop in zip(variables, loops, strict=True) if what in (loop.kind, loop.level))


def rows_of(item: Instruction, variables: tuple[int, ...], leading: int) -> tuple[int, ...]:
    """Where the rows begin that an instruction touches, and how many they are, along each axis."""
    axes = box_of(item).axes[:leading]
    return tuple(n for axis in axes for n in (axis.start.at(variables), axis.extent))


def executed(
    items: Sequence[Item], chosen: Chosen, around: tuple[Loop, ...] = (), variables: tuple[int, ...] = ()
) -> Iterator[tuple[Instruction, tuple[Loop, ...], tuple[int, ...]]]:
    """Chosen instructions in the order of the program on the first SPC, each with its loops and their iterations."""
    for item in items:
        if isinstance(item, Instruction):
            if chosen(item):
                yield item, around, variables
        elif any(True for _ in chosen_of((item,), chosen)):
            for iteration in range(1 if item.level == "spc" else item.extent):
                yield from executed(item.body, chosen, (*around, item), (*variables, iteration))


def chosen_of(
    items: Sequence[Item], chosen: Chosen, around: tuple[Loop, ...] = ()
) -> Iterator[tuple[Instruction, tuple[Loop, ...]]]:
    """The chosen instructions, and the loops around each."""
    for item in items:
        if isinstance(item, Loop):
            yield from chosen_of(item.body, chosen, (*around, item))
        elif chosen(item):
            yield item, around


def box_of(item: Instruction) -> Box:
    """What an instruction touches in memory."""
    return next(operand for operand in item.operands if isinstance(operand, Box))


def slot_of(item: Instruction) -> int:
    """The slot of what an instruction touches in memory."""
    return next((operand.slot for operand in item.operands if isinstance(operand, Box)), -1)
