"""The first row of a product behind others is loaded ahead of the last rows that are loaded in front of it.

A queue works in order: behind the last loads of a product, which wait until another one has stored what they bring, the
first load of the product behind it would come late. It needs none of that, only a place in the input buffer. So it is
taken out of its loops, and stands where the last of those rows begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from birc.codegen.changed_code import Around, Item, numbered
from birc.codegen.row_order import Chosen, Passed, chosen_of
from birc.runtime.program import Affine, Instruction, Loop, Sync, affine


def load_row_ahead(
    ahead: Sequence[Item], behind: Sequence[Item], passed: Passed, semaphore: int
) -> tuple[list[Item], list[Item]] | None:
    """The code of two products with the first row of the one `behind` loaded in the one `ahead` of it.

    It waits for a semaphore. None where the rows that the first one loads, or that row, have no place of their own.
    """
    rows, first = list(chosen_of(ahead, passed.is_load)), next(chosen_of(behind, _is_row), None)
    if len(rows) != 1 or first is None:
        return None
    (row, around), (load, loops) = rows[0], first
    again = passed.again(row, around)
    place = max((depth + 1 for depth in range(len(around)) if not again >> depth & 1), default=0)
    is_plain = all(loop.limit is None for loop in (*around, *loops)) and not any(s.last for s in _syncs(load))
    if not is_plain or _spc_loops(around[:place]) != _spc_loops(loops):
        return None
    own = _inside(loops)
    first_load = _at_first(load, own)
    first_load = replace(first_load, waits=(*first_load.waits, Sync(Affine(semaphore))))
    moved = _where(first_load, _last_iteration(around[:place]))
    others = affine(0, dict.fromkeys(own, 1))
    return list(_with_in_front(ahead, row, place, moved)), list(_only_where(behind, load, others))


def _is_row(item: Instruction) -> bool:
    return item.mnemonic == "tlda"


def _syncs(item: Instruction) -> tuple[Sync, ...]:
    return (*item.waits, *item.posts)


def _spc_loops(loops: Around) -> list[tuple[int, int]]:
    """The loops of which each SPC has one iteration: their depths and extents."""
    return [(depth, loop.extent) for depth, loop in enumerate(loops) if loop.level == "spc"]


def _inside(loops: Around) -> list[int]:
    """The depths of the loops inside an SPC."""
    return [depth for depth, loop in enumerate(loops) if loop.level != "spc"]


def _last_iteration(loops: Around) -> Affine:
    """What is positive in the last iteration of all loops inside an SPC alone; a constant where there are none."""
    inside = _inside(loops)
    return affine(1 - sum(loops[depth].extent - 1 for depth in inside), dict.fromkeys(inside, 1))


def _where(item: Instruction, number: Affine) -> Item:
    """An instruction only where a number is positive."""
    return Loop("seq", 1, (item,), "tile", number) if number.terms else item


def _at_first(item: Instruction, loops: Sequence[int]) -> Instruction:
    """An instruction as it is in the first iteration of loops, outside of these."""

    def number(value: Affine) -> Affine:
        return affine(value.constant, {depth: factor for depth, factor in value.terms if depth not in loops})

    waits, posts = (tuple(Sync(number(s.semaphore)) for s in syncs) for syncs in (item.waits, item.posts))
    return replace(item, operands=tuple(numbered(o, number) for o in item.operands), waits=waits, posts=posts)


def _with_in_front(items: Sequence[Item], row: Instruction, depth: int, moved: Item) -> Iterator[Item]:
    """The code with another item in front of the one, inside so many loops, in which a row is loaded."""
    for item in items:
        is_there = any(True for _ in chosen_of((item,), _is(row)))
        if is_there and not depth:
            yield moved
        if is_there and depth and isinstance(item, Loop):
            yield replace(item, body=tuple(_with_in_front(item.body, row, depth - 1, moved)))
        else:
            yield item


def _only_where(items: Sequence[Item], load: Instruction, number: Affine) -> Iterator[Item]:
    """The code in which an instruction is executed where a number is positive; never, if that is a constant."""
    for item in items:
        if isinstance(item, Loop):
            yield replace(item, body=tuple(_only_where(item.body, load, number)))
        elif item is not load:
            yield item
        elif number.terms:
            yield _where(item, number)


def _is(one: Instruction) -> Chosen:
    return lambda item: item is one
