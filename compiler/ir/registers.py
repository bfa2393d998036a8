"""Assigning vector registers to the values of a kernel's statements."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import count as counting

from birc.compiler.ir.late_choice import late_choice
from birc.compiler.ir.plan import BLOCK, Contraction, Kernel, Phase, Statement, Tiling
from birc.compiler.ir.plan_spread import spreads
from birc.compiler.ir.tile_order import IN_TURN, OPENING, OVERLAPPING, WINDING
from birc.runtime.errors import InternalError

MOST_LOADS_AHEAD = 4
"""Loads of a phase that go ahead, each with registers of its own; no program has more of them in flight."""

ENOUGH_AHEAD = 4
"""Tiles by which loads go ahead that are there in time: the T-core takes 84 cycles for one, a load some 300."""


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
        # A value from before a looped phase is read again in its next iteration: it stays until the phase ends.
        made_here = {statement.result for statement in phase.statements}
        for s, statement in enumerate(phase.statements):
            for argument in dict.fromkeys(statement.arguments):
                is_last = argument in numbers and last_use[str(argument)] == (p, s)
                if is_last and (not phase.loops or argument in made_here):
                    free.append(numbers[str(argument)])
            if statement.result and statement.result not in numbers and statement.result not in kept:
                take(statement.result)
                if statement.result not in last_use:
                    raise InternalError(f"value {statement.result} is never used")
    return Registers(numbers, count)


def vector_registers(phases: tuple[Phase, ...], once: bool, ahead: bool = False) -> Registers:
    """The registers of a program of a vector kernel, for one of the tiles that it has under way together.

    When it executes the first phase `once`, those values stay in theirs; when it loads `ahead`, what it loads does.
    """
    if not once and not ahead:
        return assign(phases)
    own = [s.result for s in phases[0].statements if once or s.op == "vld"]
    numbers = {name: number for number, name in enumerate(own)}
    rest = assign(phases[int(once) :], numbers)
    numbers |= {name: len(own) + number for name, number in rest.numbers.items()}
    return Registers(numbers, len(own) + rest.count)


def tile_slots(phases: tuple[Phase, ...], sums_wait: bool = True) -> dict[str, int]:
    """The values of a contraction that have a register for each tile of a block, and which of that tile's it is.

    They are the sums (unless these do not wait for each other), and what one phase computes of a tile and a later one
    reads. A slot whose value was read for the last time is taken again, first of all by the result of that statement.
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
            if statement.op == "vacc" and sums_wait:
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
    tiles. The loads in `held` go ahead by whole rows: each lies in the register of its tile, until what is computed
    with it takes that. Where rows overlap, the loads of the `loads_ahead` last tiles of a row go ahead, all at once.
    Where tiles go past rows or columns that stay, what is the same for all of them is in `lasting`: it is made before
    them, and what they read of it keeps its registers.
    """

    phases: tuple[Phase, ...]
    registers: Registers
    slots: dict[str, int]
    loads: dict[str, int]
    held: frozenset[str] = frozenset()
    loads_ahead: int = 0
    lasting: frozenset[str] = frozenset()

    @property
    def is_rowwise(self) -> bool:
        """Whether some of it is about whole rows: it walks the columns more than once."""
        return len(self.phases) > 1

    @property
    def holds_late_mask(self) -> bool:
        """Whether what tiles hold is a mask of the last columns alone."""
        first = self.phases[0]
        late = late_choice(first, first.loops[0]) if len(first.loops) == 1 else None
        return late is not None and late.mask.result in self.held

    def count(self, tiles: int, ahead: int = 1) -> int:
        """Registers of one vector program that takes blocks of so many tiles, with loads so many tiles ahead."""
        of_loads = max(self.loads.values()) + 1 if self.loads else 0
        return self.registers_of_tiles(tiles) + max(ahead, self.loads_ahead) * of_loads

    def registers_of_tiles(self, tiles: int) -> int:
        """Of these, those that hold no loads that go ahead."""
        of_tiles = max(self.slots.values()) + 1 if self.slots else 0
        return self.registers.count + tiles * of_tiles

    def ahead(self, rows: int, columns: int, most: int) -> int:
        """How many column tiles of a block loads go ahead when a program has `most` registers."""
        if not self.loads or self.loads_ahead:
            return self.loads_ahead or 1
        return max(
            n for n in range(1, columns + 1) if columns % n == 0 and (n == 1 or self.count(rows * columns, n) <= most)
        )


def epilogue_of(kernel: Kernel, tiling: Tiling, registers: int) -> Epilogue:
    """The epilogue of a contraction by a tiling, on a machine with so many registers.

    Loads are held in registers of tiles where there are none for loads that go ahead by a few tiles. (Held loads are
    all issued before the first of them is used, and only a few are in flight.) A mask that begins late is held by the
    tiles that it covers: the others have none.
    """
    if tiling.order == OVERLAPPING and kernel.contraction is not None:
        step = dict(tiling.tile).get(kernel.contraction.column, 1)
        return overlapped_epilogue(kernel, tiling.columns, step)
    after = epilogue(kernel, tiling.turns == BLOCK)
    most, tiles = registers // tiling.programs, tiling.rows * tiling.columns
    passing = _passing(kernel, kernel.contraction, tiling) if kernel.contraction is not None else ()
    if passing:
        lasting = _with_lasting(after, passing)
        return lasting if tiling.order == WINDING or program_registers(lasting, tiling) <= most else after
    is_ahead = not after.loads or after.ahead(tiling.rows, tiling.columns, most) >= min(tiling.columns, ENOUGH_AHEAD)
    if not begins_early(kernel, tiling):
        return after
    holding = epilogue(kernel, by_block=True, holds=True)
    if is_ahead and after.count(tiles) <= most and not holding.holds_late_mask:
        return after
    return holding


def program_registers(after: Epilogue, tiling: Tiling, ahead: int = 1) -> int:
    """The registers of a vector program of a tiled product, with loads so many tiles ahead.

    Where columns open past rows that stay, each program has those of all rows, for what lasts of them.
    """
    sets = tiling.rows if tiling.order == OPENING and after.lasting else 1
    return sets * after.count(tiling.rows * tiling.columns, ahead)


def overlapped_epilogue(kernel: Kernel, columns: int, step: int) -> Epilogue:
    """The epilogue of rows of `columns` tiles of `step` that overlap: what belongs to a row has its own register."""
    after = epilogue(kernel, by_block=True)
    elsewhere = {**after.slots, **after.loads, "": 0}
    last = max((n for n, phase in enumerate(after.phases) if phase.loops), default=0)
    results = (s.result for phase in after.phases[: last + 1] for s in phase.statements)
    numbers = {name: number for number, name in enumerate(r for r in results if r not in elsewhere)}
    numbers |= _behind_rows(after.phases, last, numbers)
    late = late_choice(after.phases[0], next(iter(after.phases[0].loops), ""))
    plain = min(late.begin // step, columns - 1) if late is not None else 0
    ahead = columns - plain if after.loads else 0
    count = max(numbers.values(), default=-1) + 1
    return replace(after, registers=Registers(numbers, count), loads_ahead=ahead)


def _behind_rows(phases: tuple[Phase, ...], last: int, numbers: Mapping[str, int]) -> dict[str, int]:
    """Registers for what is computed behind the `last` phase over the tiles of a row: those of its tiles are free then.

    So is one whose value was read for the last time.
    """
    behind = [s for phase in phases[last + 1 :] for s in phase.statements]
    read = {argument: n for n, s in enumerate(behind) for argument in s.arguments if isinstance(argument, str)}
    of_tiles = [s.result for s in phases[last].statements if not s.op.startswith("vfold") and s.result not in read]
    free = [numbers[name] for name in of_tiles if name in numbers]
    fresh = counting(max(numbers.values(), default=-1) + 1)
    made: dict[str, int] = {}
    for n, s in enumerate(behind):
        free += [made[a] for a in dict.fromkeys(s.arguments) if isinstance(a, str) and a in made and read[a] == n]
        if s.result:
            made[s.result] = free.pop() if free else next(fresh)
    return made


def _passing(kernel: Kernel, contraction: Contraction, tiling: Tiling) -> tuple[str, ...]:
    """The dimensions along which the tiles of a program go past what stays: rows past a column, columns past a row."""
    if tiling.order == WINDING:
        return contraction.row_dims
    if tiling.turns == BLOCK or tiling.order not in (IN_TURN, OPENING):
        return ()
    if tiling.hoist == "b":
        return contraction.row_dims if tiling.programs > 1 or tiling.columns == 1 else ()
    passes = spreads(kernel, tiling)[contraction.column].share > 1
    has_one_row = tiling.columns == 1 and (tiling.programs > 1 or tiling.rows == 1)
    return contraction.column_dims if passes and has_one_row else ()


def _with_lasting(after: Epilogue, passing: Collection[str]) -> Epilogue:
    """The epilogue of single tiles in which what does not move along some dimensions is made before them."""
    statements, moving = after.phases[0].statements, set[str]()
    for s in statements:
        moves = s.access is not None and any(name in passing for i in s.access.index for name, _ in i.terms)
        if moves or s.op in ("vacc", "vst") or any(argument in moving for argument in s.arguments):
            moving.add(s.result)
    before = tuple(s for s in statements if s.result not in moving)
    behind = tuple(s for s in statements if s.result in moving)
    registers = assign((Phase(before), Phase(behind, tuple(passing))))
    return replace(after, registers=registers, lasting=frozenset(s.result for s in before))


def begins_early(kernel: Kernel, tiling: Tiling) -> bool:
    """Whether a tile goes through the first phase of an epilogue about whole rows as soon as its sums are there.

    The depth is resident then, and a block is one row of tiles.
    """
    tile = dict(tiling.tile)
    streamed = kernel.red_dims[: len(kernel.red_dims) - tiling.resident]
    is_whole = all(d.extent <= tile.get(d.name, 1) for d in streamed)
    return tiling.turns == BLOCK and tiling.rows == 1 and is_whole and len(kernel.phases) > 1


def epilogue(kernel: Kernel, by_block: bool, holds: bool = False) -> Epilogue:
    """The epilogue of a contraction, which `holds` loads if it can: only one that begins early may.

    Loads come first in their phase, so that they overlap the T-core. When a program takes whole blocks there are
    registers for a few of them only; the others stay where they are read.
    """
    if not by_block or kernel.contraction is None:
        phases = tuple(_in_front(phase, phase.statements) for phase in kernel.phases)
        return Epilogue(phases, assign(phases), {}, {})
    held = _held(kernel.phases) if holds else {}
    slots, loads = tile_slots(kernel.phases, sums_wait=not held) | held, {}
    ahead = [_ahead(phase, slots) for phase in kernel.phases]
    phases = tuple(_in_front(phase, first) for phase, first in zip(kernel.phases, ahead, strict=True))
    for phase, first in zip(phases, ahead, strict=True):
        if phase.loops or len(phases) == 1:
            loads.update({statement.result: number for number, statement in enumerate(first)})
    return Epilogue(phases, assign(phases, {**slots, **loads}), slots, loads, frozenset(held))


def _held(phases: tuple[Phase, ...]) -> dict[str, int]:
    """The loads of the first phase that can lie in registers of their tiles, and in which: at most one in each.

    It is read for the last time when the first value that is computed for the register is made, or before.
    """
    slots = tile_slots(phases, sums_wait=False)
    last_use = {
        a: (p, n) for p, phase in enumerate(phases) for n, s in enumerate(phase.statements) for a in s.arguments
    }
    held: dict[str, int] = {}
    begun: set[int] = set()
    for number, statement in enumerate(phases[0].statements if phases[0].loops else ()):
        slot = slots.get(statement.result)
        if slot is None or slot in begun:
            continue
        begun.add(slot)
        fitting = (
            s.result
            for s in phases[0].statements[:number]
            if s.op == "vld" and s.result not in held and last_use[s.result] <= (0, number)
        )
        held.update(dict.fromkeys(list(fitting)[:1], slot))
    return held


def _ahead(phase: Phase, slots: Collection[str]) -> list[Statement]:
    """The loads of a phase that go ahead."""
    return [s for s in phase.statements if s.op == "vld" and s.result not in slots][:MOST_LOADS_AHEAD]


def _in_front(phase: Phase, first: Collection[Statement]) -> Phase:
    """The phase with those of its loads that are in `first` before all else."""
    return replace(phase, statements=tuple(sorted(phase.statements, key=lambda s: s.op != "vld" or s not in first)))
