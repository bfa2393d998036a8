"""Products that follow each other as one kernel of the machine: the second takes rows as the first one finishes them.

The shares of an attention and their product with the values, for one: each SPC makes the rows of tiles of both products
in the same order. The queues of the T-core go on from the first to the second without a barrier, operands of the second
are loaded ahead of it, and a vector program of its own finishes its tiles: it waits for one row of tiles after the
other, and the queue that loads `a` for the tiles of one chunk of its depth after the other. Where the second has
several columns of tiles it takes these for each row, or all rows for each of these: rows are awaited once, and are
there from then on. Other such pairs may come behind: each takes the place of the one before it. Those that store to the
other die come first, so that the link works beside the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from birc.compiler.ir.plan import BLOCK, TILE, Access, Contraction, Kernel, KernelStep, Step, Tiling, View
from birc.compiler.ir.plan_access import accesses_of
from birc.compiler.ir.plan_patch import slot_bytes
from birc.compiler.ir.plan_spread import spreads
from birc.compiler.ir.plan_verify_tiling import tiling_problems
from birc.compiler.ir.registers import epilogue_of
from birc.compiler.ir.semaphores import of_pairs, semaphores_there
from birc.compiler.ir.view_overlap import ViewOverlap
from birc.runtime.machine import Machine

FOLLOWING_REGISTERS: Final = 2
"""Registers that the first of two products leaves at least: sums of a tile, and what they are multiplied by."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a product takes of an SPC: vector programs, registers, and bytes of the input buffers, the first of each."""

    programs: int
    registers: int
    a_bytes: int
    b_bytes: int


def followed(machine: Machine) -> Machine:
    """The machine as a product sees it that another one follows: that has at least a vector program of its own."""
    programs, registers = machine.vector_programs - 1, machine.vector_registers - FOLLOWING_REGISTERS
    digest = f"{machine.digest} {programs} {registers}"
    return replace(machine, digest=digest, vector_programs=programs, vector_registers=registers)


def taken(kernel: Kernel, contraction: Contraction, tiling: Tiling, machine: Machine) -> Taken:
    """What a product takes whose rows of tiles are a block each, and which another one follows."""
    after = epilogue_of(kernel, tiling, machine.vector_registers)
    ahead = after.ahead(tiling.rows, tiling.columns, machine.vector_registers // tiling.programs)
    registers = tiling.programs * after.count(tiling.rows * tiling.columns, ahead)
    a_bytes, b_bytes = slot_bytes(kernel, contraction, tiling, machine)
    return Taken(tiling.programs, registers, tiling.a_slots * a_bytes, tiling.b_slots * b_bytes)


def pairs_of(kernels: Sequence[Kernel]) -> list[tuple[Kernel, Kernel]]:
    """The kernels of a group in pairs of which the second follows the first."""
    return list(zip(kernels[::2], kernels[1::2], strict=True))


def in_turn(pairs: Sequence[tuple[Kernel, Kernel]]) -> list[tuple[Kernel, Kernel]]:
    """Pairs in the order in which an SPC takes them."""

    def stays(pair: tuple[Kernel, Kernel]) -> bool:
        return not any(access.view.away for kernel in pair for _, access in accesses_of(kernel))

    return sorted(pairs, key=stays)


def most_taken(pairs: Sequence[tuple[Kernel, Kernel]], machine: Machine) -> Taken:
    """What the first products of pairs that are one kernel take at most: all second ones find the rest."""
    seen = followed(machine)
    found = [taken(k, k.contraction, k.tiling, seen) for k, _ in pairs if k.contraction is not None and k.tiling]
    return Taken(
        max(t.programs for t in found),
        max(t.registers for t in found),
        max(t.a_bytes for t in found),
        max(t.b_bytes for t in found),
    )


def left_by(first: Taken, machine: Machine) -> Machine:
    """The machine as a product sees it that follows a first one."""
    return replace(
        machine,
        digest=f"{machine.digest} {first}",
        vector_programs=machine.vector_programs - first.programs,
        vector_registers=machine.vector_registers - first.registers,
        gib_a_bytes=machine.gib_a_bytes - first.a_bytes,
        gib_b_bytes=machine.gib_b_bytes - first.b_bytes,
    )


def group_problems(steps: Sequence[Step], machine: Machine) -> Iterator[str]:
    """What is wrong with tiled steps of which all but the first follow the one before."""
    kernels = [step for step in steps if isinstance(step, KernelStep)]
    if len(kernels) < len(steps) or len(steps) % 2 or any(s.beside for s in kernels) or kernels[0].follows:
        yield "follows what is no step of one kernel a die, or is no pair with the step before"
        return
    if len({tuple(kernel is None for kernel in step.kernels) for step in kernels}) > 1:
        yield "follows a step on other dies"
        return
    for column in dict.fromkeys(zip(*(step.kernels for step in kernels), strict=True)):
        of_die = [kernel for kernel in column if kernel is not None]
        yield from kernels_problems(of_die, machine)


def kernels_problems(kernels: Sequence[Kernel], machine: Machine) -> Iterator[str]:
    """Why tiled kernels, pair after pair, cannot be one of the machine."""
    pairs = pairs_of(kernels)
    problems = [what for pair in pairs for what in following_problems(*pair, machine)]
    yield from problems
    if problems or len(pairs) < 2:
        return
    most = most_taken(pairs, machine)
    rest = left_by(most, machine)
    for _, second in pairs:
        yield from (f"behind several products {what}" for what in tiling_problems(second, rest))
    yield from _semaphore_problems(len(pairs), most, machine)
    for number, pair in enumerate(pairs):
        for later in pairs[number + 1 :]:
            yield from _order_of_pairs(pair, later)


def _semaphore_problems(pairs: int, first: Taken, machine: Machine) -> Iterator[str]:
    needed, there = of_pairs(pairs, first.programs), semaphores_there(machine)
    if needed > there:
        yield f"products that follow each other need {needed} semaphores, an SPC has {there}"


def _order_of_pairs(pair: tuple[Kernel, Kernel], later: tuple[Kernel, Kernel]) -> Iterator[str]:
    """Pairs one behind the other wait for each other on their SPC alone: they share nothing that one of them writes."""
    (made, used), (made_later, used_later) = _views(pair), _views(later)
    overlap = ViewOverlap()
    for one, others in ((view, used_later | made_later) for view in made):
        yield from (_sharing(one) for other in others if overlap.may_meet(one, other))
    for one in made_later:
        yield from (_sharing(one) for other in used if overlap.may_meet(one, other))


def _sharing(view: View) -> str:
    return f"pairs of products one behind the other both use %{view.buffer}, which one of them writes"


def _views(pair: tuple[Kernel, Kernel]) -> tuple[set[View], set[View]]:
    """What a pair writes and what it reads."""
    found = [(op, access.view) for kernel in pair for op, access in accesses_of(kernel)]
    return {view for op, view in found if op == "vst"}, {view for op, view in found if op != "vst"}


def following_problems(first: Kernel, second: Kernel, machine: Machine) -> Iterator[str]:
    """Why a tiled product cannot follow another one."""
    if first.contraction is None or second.contraction is None:
        yield "follows another kernel, but not both are products"
        return
    problems = [*_reading_problems(first, second, second.contraction), *_order_problems(first, second)]
    yield from problems
    if problems or first.tiling is None or second.tiling is None:
        return
    seen = followed(machine)
    yield from (f"is followed: {what}" for what in tiling_problems(first, seen))
    most = taken(first, first.contraction, first.tiling, seen)
    yield from _semaphore_problems(1, most, machine)
    rest = left_by(most, machine)
    if min(rest.vector_programs, rest.vector_registers, rest.gib_a_bytes, rest.gib_b_bytes) < 1:
        yield "follows a product that leaves no programs, registers or input buffers"
        return
    yield from (f"behind another product {what}" for what in tiling_problems(second, rest))


def _reading_problems(first: Kernel, second: Kernel, contraction: Contraction) -> Iterator[str]:
    """It reads what the first one writes as `a`, and in its epilogue, row by row, and writes nothing that that uses."""
    stores = {access.view.buffer: access for op, access in accesses_of(first) if op == "vst"}
    used = {access.view.buffer for _, access in accesses_of(first)}
    a, column = contraction.a, contraction.column
    of_rows = stores.get(a.view.buffer)
    rows = contraction.rows
    if contraction.further:
        yield "follows a product, but has other panels beside what that stores"
    if of_rows is None or (of_rows.view, of_rows.index[:rows]) != (a.view, a.index[:rows]):
        yield f"follows a product, but its a is not what that stores row by row: %{a.view.buffer}"
    for op, access in accesses_of(second):
        name = access.view.buffer
        if op == "vst" and name in used:
            yield f"writes %{name}, which the product before it uses"
        if op not in ("a", "vst") and name in stores and (op != "vld" or not _is_of_row(access, stores[name], column)):
            yield f"{op}: reads %{name} of the product before it, which is not there row by row"


def _is_of_row(read: Access, stored: Access, column: str) -> bool:
    """Whether a load reads what was stored at the same point, and moves with no column."""
    moving = {name for index in read.index for name, _ in index.terms}
    return (read.view, read.index) == (stored.view, stored.index) and column not in moving


def _order_problems(first: Kernel, second: Kernel) -> Iterator[str]:
    """Both take the same rows of tiles in the same order: the first one as blocks, the second one tile by tile."""
    ahead, behind = first.tiling, second.tiling
    if ahead is None or behind is None or first.contraction is None or second.contraction is None:
        yield "follows another product before both have tilings"
        return
    last = first.phases[-1]
    is_last_store = last.statements[-1].op == "vst" and {*last.loops} <= {first.contraction.column}
    is_row = ahead.rows == 1 and (ahead.turns == BLOCK or ahead.columns == 1)
    if not (is_row and is_last_store) or ahead.taps or ahead.stream:
        yield "follows a product whose rows of tiles are not a block each that ends with a store of the row"
    if (behind.rows, behind.programs, behind.turns) != (1, 1, TILE) or behind.taps or behind.stream:
        yield "follows another product, but its blocks are not tiles of a row, each finished by one program"
    if len(second.phases) != 1:
        yield "follows another product with an epilogue about whole rows"
    if first.contraction.row_dims != second.contraction.row_dims:
        yield "follows another product with other rows"
        return
    columns = (first.contraction.column, second.contraction.column)
    one, other = (
        [(d.name, spread[d.name]) for d in kernel.par_dims if d.name != column]
        for kernel, spread, column in zip(
            (first, second), (spreads(first, ahead), spreads(second, behind)), columns, strict=True
        )
    )
    of_columns = [spreads(first, ahead)[columns[0]], spreads(second, behind)[columns[1]]]
    is_one = all(spread.spcs == 1 for spread in of_columns) and of_columns[0].share == ahead.columns
    if one != other or not is_one:
        yield "follows another product, but takes other rows of tiles than that, or in another order"
