"""A product behind another one as one kernel: the second waits for one row of tiles of the first after the other.

The code of both stays as it was written, with programs, registers, semaphores and slots of their own, and with rings in
different parts of the input buffers. The last store of a row of tiles tells, by a semaphore of the vector program that
finished it, the queue that loads `a`, and by another one the program that finishes the tiles of the second product.
Both take the rows of each of these programs in one order. The loop of the second over rows of different programs is cut
in two, so that the inner one counts the programs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from birc.codegen.contraction_kernel import ACC_FREE
from birc.codegen.slots import Slots
from birc.compiler.ir.plan_following import Taken
from birc.runtime.errors import InternalError
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.program import (
    Affine,
    Axis,
    Box,
    Instruction,
    Kernel,
    Loop,
    Operand,
    Register,
    RingAddress,
    Sync,
    Window,
    affine,
)

Item = Loop | Instruction
Chosen = Callable[[Instruction], bool]


@dataclass(frozen=True, slots=True)
class Passed:
    """What the second product takes of the first: the slot of the rows that it loads.

    `last` is the slot of what is stored last of a row; `leading` are the axes of all that count rows, not columns.
    `others` are slots from which the epilogue of the second product loads.
    """

    last: int
    loaded: int
    others: frozenset[int]
    leading: int


def follow(
    first: tuple[Kernel, Slots], second: tuple[Kernel, Slots], passed: Passed, taken: Taken
) -> tuple[Kernel, Slots]:
    """One kernel of two products. Raises `InternalError` where they take their rows in different orders."""
    (ahead, slots), (behind, own) = first, second
    programs = range(taken.programs)
    told = len(ahead.semaphores) + len(behind.semaphores) - 1
    epilogue_told = told + len(programs) if passed.others else None
    loop, nests = _cut(first[0].nests, behind.nests, passed, len(programs))
    _check_order(ahead.nests, nests, passed, loop)
    place = _Place(taken, len(ahead.semaphores), len(slots.views), passed, told, epilogue_told, loop)
    tell = [told] if epilogue_told is None else [told, epilogue_told]
    merged = (
        *(_telling(item, passed.last, tell, ()) for item in ahead.nests),
        *(place.moved(item, ()) for item in nests),
    )
    semaphores = [*ahead.semaphores, *(s for n, s in enumerate(behind.semaphores) if n != ACC_FREE)]
    semaphores += [0] * (len(tell) * len(programs))
    return replace(ahead, nests=merged, semaphores=tuple(semaphores)), Slots([*slots.views, *own.views])


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the second product finds what is its own, and what it waits for; `loop` counts the programs."""

    taken: Taken
    semaphores: int
    slots: int
    passed: Passed
    told: int
    epilogue_told: int | None
    loop: int | None

    def moved(self, item: Item, around: tuple[Loop, ...]) -> Item:
        """An instruction or a loop of the second product, which was written to begin at zero everywhere."""
        if isinstance(item, Loop):
            return replace(item, body=tuple(self.moved(inner, (*around, item)) for inner in item.body))
        row = BY_MNEMONIC[item.mnemonic]
        waits = tuple(map(self._sync, item.waits))
        slot = _slot(item)
        if item.mnemonic == "tlda" and slot == self.passed.loaded:
            chunks = sum(1 << depth for depth, loop in enumerate(around) if loop.kind == "red")
            waits = (*waits, Sync(self._number(self.told), first=chunks))
        elif item.mnemonic == "vld" and slot in self.passed.others and self.epilogue_told is not None:
            waits = (*waits, Sync(self._number(self.epilogue_told)))
        first_byte = {"load_a": self.taken.a_bytes, "load_b": self.taken.b_bytes}
        rings = [self.taken.a_bytes, self.taken.b_bytes] if row.pipe == "mma" else [first_byte.get(row.engine, 0)]
        operands = tuple(self._operand(operand, rings) for operand in item.operands)
        program = item.program + self.taken.programs if row.engine == "vector" else item.program
        return replace(item, operands=operands, waits=waits, posts=tuple(map(self._sync, item.posts)), program=program)

    def _operand(self, operand: Operand, rings: list[int]) -> Operand:
        """An operand; `rings` are the first bytes of the input buffers that those that are left lie in."""
        match operand:
            case Register(number):
                return Register(number + self.taken.registers)
            case Box(slot):
                return replace(operand, slot=slot + self.slots)
            case RingAddress(base):
                return replace(operand, base=base + rings.pop(0))
        return operand

    def _number(self, first: int) -> Affine:
        """The semaphore of the vector program that finished the current row."""
        return affine(first, {} if self.loop is None else {self.loop: 1})

    def _sync(self, sync: Sync) -> Sync:
        """The accumulator is one: the second product finds it free when the last sum of the first is drained."""
        number = sync.semaphore
        if number == Affine(ACC_FREE):
            return sync
        beyond = number.constant > ACC_FREE
        return replace(sync, semaphore=number + (self.semaphores - beyond))


def _telling(item: Item, last: int, tell: Sequence[int], around: tuple[Loop, ...]) -> Item:
    """The code of the first product, whose stores of what is last of a row tell so."""
    if isinstance(item, Loop):
        return replace(item, body=tuple(_telling(inner, last, tell, (*around, item)) for inner in item.body))
    if item.mnemonic != "vst" or _slot(item) != last:
        return item
    program = {depth: 1 for depth, loop in enumerate(around) if loop.level == "program"}
    return replace(item, posts=(*item.posts, *(Sync(affine(first, program)) for first in tell)))


def _cut(
    ahead: Sequence[Item], behind: Sequence[Item], passed: Passed, programs: int
) -> tuple[int | None, tuple[Item, ...]]:
    """The code of the second product with a loop that counts the vector programs of the first, and its depth."""
    if programs == 1:
        return None, tuple(behind)
    moves = {
        (axis, side.start.coefficient(depth))
        for item, loops in _chosen(ahead, lambda i: i.mnemonic == "vst" and _slot(i) == passed.last)
        for depth, loop in enumerate(loops)
        if loop.level == "program"
        for axis, side in enumerate(_box(item).axes[: passed.leading])
        if side.start.coefficient(depth)
    }
    found = {
        depth
        for item, loops in _chosen(behind, lambda i: i.mnemonic == "tlda" and _slot(i) == passed.loaded)
        for depth, loop in enumerate(loops)
        for axis, side in enumerate(_box(item).axes[: passed.leading])
        if (axis, side.start.coefficient(depth)) in moves and loop.level == "tile" and loop.extent % programs == 0
    }
    if len(moves) != 1 or len(found) != 1:
        raise InternalError("the programs of a product do not take rows that the one behind it counts by a loop")
    (depth,) = found
    return depth + 1, tuple(_cut_loop(item, depth, programs, 0) for item in behind)


def _cut_loop(item: Item, depth: int, inner: int, at: int, *, inside: bool = False) -> Item:
    """The code in which the loop at a depth around the loads of rows is two, the inner one of some iterations."""
    if isinstance(item, Loop):
        is_cut = at == depth and any(True for _ in _chosen((item,), lambda i: i.mnemonic == "tlda"))
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
        match value:
            case Register(at):
                return Register(number(at))
            case Box(slot, axes, fill):
                return Box(slot, tuple(Axis(number(a.start), a.extent, a.step) for a in axes), fill)
            case RingAddress(base, stride, index, modulo):
                return RingAddress(number(base), stride, number(index), modulo)
            case Window():
                return replace(value, top=number(value.top), left=number(value.left))
            case int() if name == "first":
                return mask(value)
        return value

    fields = BY_MNEMONIC[item.mnemonic].fields
    operands = tuple(operand(f.name, value) for f, value in zip(fields, item.operands, strict=True))
    return replace(item, operands=operands, waits=tuple(map(sync, item.waits)), posts=tuple(map(sync, item.posts)))


def _check_order(ahead: Sequence[Item], behind: Sequence[Item], passed: Passed, loop: int | None) -> None:
    """The rows that each vector program of the first product finishes come in the order in which they are awaited."""
    made: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    wanted: dict[int, list[tuple[int, ...]]] = defaultdict(list)

    def stores(item: Instruction) -> bool:
        return item.mnemonic == "vst" and _slot(item) == passed.last

    def loads(item: Instruction) -> bool:
        return item.mnemonic == "tlda" and _slot(item) == passed.loaded

    for item, loops, variables in _executed(ahead, stores):
        program = _of(variables, loops, "program")
        made[program].append(_rows(item, variables, passed.leading))
    for item, loops, variables in _executed(behind, loads):
        if not _of(variables, loops, "red"):
            wanted[0 if loop is None else variables[loop]].append(_rows(item, variables, passed.leading))
    if made != wanted:
        raise InternalError("a product takes rows of the one in front of it in another order")


def _of(variables: tuple[int, ...], loops: tuple[Loop, ...], what: str) -> int:
    """The sum of the iterations of the loops of a kind or level."""
    return sum(at for at, loop in zip(variables, loops, strict=True) if what in (loop.kind, loop.level))


def _rows(item: Instruction, variables: tuple[int, ...], leading: int) -> tuple[int, ...]:
    """Where the rows begin that an instruction touches, and how many they are, along each axis."""
    axes = _box(item).axes[:leading]
    return tuple(n for axis in axes for n in (axis.start.at(variables), axis.extent))


def _executed(
    items: Sequence[Item], chosen: Chosen, around: tuple[Loop, ...] = (), variables: tuple[int, ...] = ()
) -> Iterator[tuple[Instruction, tuple[Loop, ...], tuple[int, ...]]]:
    """Chosen instructions in the order of the program on the first SPC, each with its loops and their iterations."""
    for item in items:
        if isinstance(item, Instruction):
            if chosen(item):
                yield item, around, variables
        elif any(True for _ in _chosen((item,), chosen)):
            for iteration in range(1 if item.level == "spc" else item.extent):
                yield from _executed(item.body, chosen, (*around, item), (*variables, iteration))


def _chosen(
    items: Sequence[Item], chosen: Chosen, around: tuple[Loop, ...] = ()
) -> Iterator[tuple[Instruction, tuple[Loop, ...]]]:
    """The chosen instructions, and the loops around each."""
    for item in items:
        if isinstance(item, Loop):
            yield from _chosen(item.body, chosen, (*around, item))
        elif chosen(item):
            yield item, around


def _box(item: Instruction) -> Box:
    """What an instruction touches in memory."""
    return next(operand for operand in item.operands if isinstance(operand, Box))


def _slot(item: Instruction) -> int:
    """The slot of what an instruction touches in memory."""
    return next((operand.slot for operand in item.operands if isinstance(operand, Box)), -1)
