"""Products behind others as one kernel: the second of a pair waits for one row of tiles of the first after the other.

The code of all stays as it was written, with programs, registers, semaphores and slots of their own, and with rings in
different parts of the input buffers. The stores of what `a` has of a row of tiles tell, by a semaphore of the vector
program that finishes it, the queue that loads `a` chunk by chunk (passed_tiles.py); the last store of the row tells, by
another one, the program that finishes the tiles of the second product.
Both wait for a row in its first column of tiles; for the others it is there.

A pair behind another one takes its place: the columns of its first product wait for the last operation of the other's
first product, those of its second for the last operation of all. Its first row is loaded ahead of the last rows of the
other one (rows_ahead.py). Each of its programs waits until all programs of the
other's first product have stored the last of their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from birc.codegen.changed_code import Around, Item, changed
from birc.codegen.passed_tiles import telling_of
from birc.codegen.row_order import Passed, check_order, chosen_of, counting_programs
from birc.codegen.rows_ahead import load_row_ahead
from birc.codegen.slots import Slots
from birc.compiler.ir.plan_following import Taken
from birc.compiler.ir.semaphores import A_FREE, A_FULL, ACC_FREE, ACC_FULL, B_FREE, B_FULL
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.program import Box, Instruction, Kernel, Operand, Register, RingAddress, Sync, affine

Syncs = tuple[Sync, ...]
More = Callable[[Instruction, Around], tuple[Syncs, Syncs]]
"""What an instruction inside loops waits for and posts, too."""

NOTHING = Taken(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two products of which the second follows the first, the vector programs of that, and what it passes on."""

    first: tuple[Kernel, Slots]
    second: tuple[Kernel, Slots]
    programs: int
    passed: Passed


def as_one_kernel(pairs: Sequence[Pair], taken: Taken) -> tuple[Kernel, Slots]:
    """One kernel of pairs whose first products take so much of an SPC at most.

    Raises `InternalError` where two products take their rows in different orders.
    """
    writer = _Writer(taken)
    for pair in pairs:
        writer.add(pair)
    nests = tuple(item for product in writer.products for item in product)
    return replace(pairs[0].first[0], nests=nests, semaphores=tuple(writer.semaphores)), writer.slots


@dataclass(slots=True)
class _Writer:
    """The kernel while it is written.

    Pairs have semaphores in common, by what these say, but for those that count free slots: these begin at their
    number. The first one is that of the accumulator, which is free. `passed` is what the last pair written
    passes on, in its place, from so many `programs`.
    """

    taken: Taken
    products: list[list[Item]] = field(default_factory=list)
    semaphores: list[int] = field(default_factory=lambda: [1])
    common: dict[object, int] = field(default_factory=dict)
    slots: Slots = field(default_factory=Slots)
    passed: Passed | None = None
    programs: int = 0

    def add(self, pair: Pair) -> None:
        """Append a pair, behind the one before."""
        ahead, behind, passed = pair.first[0].nests, pair.second[0].nests, pair.passed
        loop, behind = counting_programs(ahead, behind, passed, pair.programs)
        check_order(ahead, behind, passed, loop)
        rows = self._common("rows", self.taken.programs)
        others = self._common("others", self.taken.programs) if passed.others else None
        told = telling_of(ahead, behind, passed)

        def telling(item: Instruction, around: Around) -> tuple[Syncs, Syncs]:
            program = _program(around)
            posts = told.posts(item, around, affine(rows, program))
            if others is not None and passed.is_told(item):
                posts += (Sync(affine(others, program)),)
            return (), posts

        def told_so(item: Instruction, around: Around) -> tuple[Syncs, Syncs]:
            terms = {} if loop is None else {loop: 1}
            if passed.is_load(item):
                return told.waits(item, around, affine(rows, terms)), ()
            if others is not None and passed.is_other(item):
                return (Sync(affine(others, terms), first=passed.again(item, around)),), ()
            return (), ()

        places = [len(self.slots.views)]
        products = [self._moved(pair.first, ahead, NOTHING, telling)]
        places.append(len(self.slots.views))
        products.append(self._moved(pair.second, behind, self.taken, told_so))
        if self.passed is not None:
            self._wait_for_pair(self.passed, products, pair.programs)
        self.products += products
        self.passed, self.programs = passed.moved(*places), pair.programs

    def _wait_for_pair(self, before: Passed, products: list[list[Item]], programs: int) -> None:
        """The products of a pair wait for those of the pair before: rows of `a` do so by those of second products.

        The first one need not wait for its turn behind the last of these.
        """
        columns = [self._common(("columns", number), 1) for number in range(2)]
        begin, most = self._common("programs", self.taken.programs**2), self.taken.programs
        told = [columns[:1], columns[1:]]
        row = self._common("row", 1)
        if (changed_code := load_row_ahead(self.products[-1], products[0], before, row)) is not None:
            self.products[-1], products[0] = changed_code
            told[0].append(row)
        ahead, behind = (_at_last(items, _is_product, of) for items, of in zip(self.products[-2:], told, strict=True))
        # A program of the pair before has a semaphore for each of the programs that wait for it.
        ends = range(begin, begin + programs * most, most)
        self.products[-2:] = _at_last(ahead, before.is_told, ends, 1), behind
        products[:] = (_at_first(items, _is_columns, [number]) for items, number in zip(products, columns, strict=True))
        products[0] = _at_first(products[0], _is_vector, range(begin, begin + self.programs), most)

    def _common(self, what: object, count: int) -> int:
        """So many semaphores that say something of every pair; the number of the first."""
        if what not in self.common:
            self.common[what] = len(self.semaphores)
            self.semaphores += [0] * count
        return self.common[what]

    def _moved(self, part: tuple[Kernel, Slots], nests: Sequence[Item], taken: Taken, more: More) -> list[Item]:
        """The code of a product, which was written to begin at zero everywhere."""
        code, own = part
        is_first = taken == NOTHING
        numbers = {ACC_FREE: 0}
        for number in (A_FULL, B_FULL):
            numbers[number] = self._common((number, is_first), 1)
        for number in (A_FREE, B_FREE):
            numbers[number] = len(self.semaphores)
            self.semaphores.append(code.semaphores[number])
        numbers[ACC_FULL] = self._common((ACC_FULL, is_first), self.taken.programs if is_first else 1)
        place = _Place(taken, numbers, len(self.slots.views))
        self.slots.views += own.views
        return changed(nests, lambda item, around: _with(place.moved(item), *more(item, around)))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a product finds what is its own: behind what is `taken`, semaphores by number, slots from the first one."""

    taken: Taken
    semaphores: dict[int, int]
    slots: int

    def moved(self, item: Instruction) -> Instruction:
        """An instruction in its place."""
        row = BY_MNEMONIC[item.mnemonic]
        first_byte = {"load_a": self.taken.a_bytes, "load_b": self.taken.b_bytes}
        rings = [self.taken.a_bytes, self.taken.b_bytes] if row.pipe == "mma" else [first_byte.get(row.engine, 0)]
        return replace(
            item,
            operands=tuple(self._operand(operand, rings) for operand in item.operands),
            waits=tuple(map(self._sync, item.waits)),
            posts=tuple(map(self._sync, item.posts)),
            program=item.program + self.taken.programs if row.engine == "vector" else item.program,
        )

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

    def _sync(self, sync: Sync) -> Sync:
        number = sync.semaphore
        return replace(sync, semaphore=number + (self.semaphores[number.constant] - number.constant))


def _at_first(
    nests: Sequence[Item], chosen: Callable[[Instruction], bool], semaphores: Sequence[int], stride: int = 0
) -> list[Item]:
    """The code in which the first execution of chosen instructions waits for some semaphores.

    Those of the next vector program are a `stride` further on.
    """
    waiting: list[Instruction] = []

    def change(item: Instruction, around: Around) -> Instruction:
        if waiting or not chosen(item):
            return item
        waiting.append(item)
        first = _loops_of_a_queue(item, around)
        own = dict.fromkeys(_program(around), stride)
        return _with(item, tuple(Sync(affine(number, own), first=first) for number in semaphores), ())

    return changed(nests, change)


def _at_last(
    nests: Sequence[Item], chosen: Callable[[Instruction], bool], semaphores: Sequence[int], stride: int = 0
) -> list[Item]:
    """The code in which the last execution of chosen instructions posts some semaphores.

    Those of the next vector program are a `stride` further on.
    """
    left = [True for _ in chosen_of(nests, chosen)]

    def change(item: Instruction, around: Around) -> Instruction:
        if not chosen(item):
            return item
        left.pop()
        last = _loops_of_a_queue(item, around)
        own = dict.fromkeys(_program(around), stride)
        posts = tuple(Sync(affine(number, own), last=last) for number in semaphores)
        return item if left else _with(item, (), posts)

    return changed(nests, change)


def _with(item: Instruction, waits: Syncs, posts: Syncs) -> Instruction:
    """The instruction with more waits and posts."""
    return replace(item, waits=(*item.waits, *waits), posts=(*item.posts, *posts)) if waits or posts else item


def _program(around: Around) -> dict[int, int]:
    """By its depth the loop whose iterations are executed by different programs."""
    return {depth: 1 for depth, loop in enumerate(around) if loop.level == "program"}


def _loops_of_a_queue(item: Instruction, around: Around) -> int:
    """The mask of the loops whose iterations a queue of an SPC executes one after the other."""
    programs = _program(around) if _is_vector(item) else {}
    return sum(1 << depth for depth, loop in enumerate(around) if loop.level != "spc" and depth not in programs)


def _is_columns(item: Instruction) -> bool:
    return BY_MNEMONIC[item.mnemonic].engine == "load_b"


def _is_product(item: Instruction) -> bool:
    return BY_MNEMONIC[item.mnemonic].pipe == "mma"


def _is_vector(item: Instruction) -> bool:
    return BY_MNEMONIC[item.mnemonic].engine == "vector"
