"""How kernels that fold a window on the vector cores are unrolled and tiled, chosen by an estimate of their cycles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from birc.compiler.ir.plan import OWN_DIMENSIONS, Dimension, Kernel, Statement, Tiling
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.registers import vector_registers
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.restrict import even_part
from birc.compiler.passes.taps_beside import may_lie_beside
from birc.compiler.passes.tile_vector import banded, best_split
from birc.compiler.passes.unroll_window import Unrolling, Window, in_window_form, unrolled, with_loads_ahead
from birc.compiler.passes.window_cost import WindowWork
from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine

MOST_TAPS = 49
"""Windows of more taps are not unrolled: each is an instruction, or several."""
MOST_OUTPUTS = 8
"""Neighbouring outputs that are computed together, each in a register of its own."""
MOST_PRODUCTS = 80
"""Taps of all outputs computed together: more of them make long code for little."""
LEAST_BESIDE = 5
"""Of fewer taps side by side the reduction takes about as much time as their loads would be waited for."""
MOST_AHEAD = 5
"""Loads under way before the one that is needed next: each takes a register."""
PARTS = (1, 2, 3, 4, 6, 8, 12, 16)
"""In how many parts a dimension may be cut where one tile does not hold it, or SPCs would be idle."""
MOST_PARTS = 5
"""Extents of tiles that are tried along a dimension, the largest that fit."""
MOST_WORSE = 1.3
"""How much more than the best estimate a tiling may have that is worth a closer look."""
LEAST_ELEMENTS = 256
"""Smaller tiles do not fill the lanes for a cycle."""


@dataclass(frozen=True, slots=True)
class TiledWindow:
    """A tiling of the kernel as `how` unrolls it."""

    how: Unrolling
    tiling: Tiling

    def of(self, kernel: Kernel) -> Kernel:
        """The kernel unrolled, with the tiling."""
        found = in_window_form(kernel, self.how.beside)
        return kernel if found is None else replace(unrolled(*found, self.how), tiling=self.tiling)


def window_tilings(kernel: Kernel, machine: Machine, memories: Memories, most: int) -> list[TiledWindow]:
    """The unrollings and tilings with the least estimated cycles, the best first; none when the kernel is no window.

    Of those that compute as many outputs together with as many programs there is one.
    """
    if in_window_form(kernel) is None:
        return []
    best: dict[object, tuple[float, int, TiledWindow]] = {}
    for number, (cycles, tiled) in enumerate(_candidates(kernel, machine, memories)):
        how = tiled.how
        kind = (*sorted(count for _, count in how.outputs), how.once, how.beside, tiled.tiling.programs)
        if kind not in best or cycles < best[kind][0]:
            best[kind] = cycles, number, tiled
    found = sorted(best.values(), key=lambda one: one[:2])[:most]
    return [tiled for cycles, _, tiled in found if cycles <= MOST_WORSE * found[0][0]]


def _candidates(kernel: Kernel, machine: Machine, memories: Memories) -> Iterator[tuple[float, TiledWindow]]:
    """Ways to unroll and tile a kernel that is a window, with their estimated cycles."""
    many = [d.name for d in kernel.red_dims if d.extent >= LEAST_BESIDE and may_lie_beside(kernel, d.name)]
    for beside in ("", *many):
        found = in_window_form(kernel, beside)
        if found is None:
            continue
        changed, window = found
        fused = all(_loads_floats(statement, memories) for statement in window.before)
        for way in _unrollings(changed, window, fused):
            form = unrolled(changed, window, way)
            if way.once == (len(form.phases) > 1):
                yield from _tiled(replace(way, beside=beside), WindowWork(form, machine, memories))


def _unrollings(kernel: Kernel, window: Window, fused: bool) -> Iterator[Unrolling]:
    """Ways to unroll a kernel that is a window."""
    taps = math.prod(d.extent for d in kernel.red_dims)
    sliding = _sliding(kernel, window)
    if taps > MOST_TAPS or not sliding:
        return
    for counts in itertools.product(*(_groups(d.extent) for d in sliding)):
        if math.prod(counts) > MOST_OUTPUTS or math.prod(counts) * taps > max(MOST_PRODUCTS, taps):
            continue
        outputs = tuple((d.name, count) for d, count in zip(sliding, counts, strict=True))
        # Along the dimension with most outputs first: each operand is then needed for a short time. Where the weights
        # are there anyway the other order has fewer sums at a time.
        order = tuple(sorted((name for name, _ in outputs), key=dict(outputs).__getitem__))
        yield Unrolling(outputs, order, 1, fused)
        yield Unrolling(outputs, order[::-1], 1, fused, once=True)


def _tiled(how: Unrolling, work: WindowWork) -> Iterator[tuple[float, TiledWindow]]:
    """For each number of programs the best tiling of one unrolled kernel, with its estimated cycles."""
    machine = work.machine
    tiled = {d.name for d in work.dims} - {name for name, extent in work.bound.items() if extent == 1}
    if any(len(dict(i.terms).keys() & tiled) > 1 for access in accesses(work.kernel) for i in access.index):
        return  # a box moves along an axis with one tiled dimension only
    forms = _by_programs(how, work)
    best: dict[int, tuple[float, dict[str, int], tuple[int, ...]]] = {}
    of_bands = banded(work.kernel)
    for tile in _tiles(work.dims, work.bound, machine.vector_tile_elements):
        split = _on_spcs(work, tile)
        if split is None or any(d.extent % tile[d.name] for d in work.dims if d.name in of_bands):
            continue
        of_tile = work.of_tile(tile)
        counts = [-(-d.extent // tile[d.name]) for d in work.dims]
        shares = [-(-count // s) for count, s in zip(counts, split, strict=True)]
        for programs, form in forms.items():
            if of_bands and all(share % programs for share in shares):
                continue
            slots = min(machine.outstanding_loads_per_warp, form.ahead + 1)
            cycles = _tiles_taken(shares, programs) * of_tile.cycles(programs, slots)
            if programs not in best or cycles < best[programs][0]:
                best[programs] = cycles, tile, split
    for programs, (cycles, tile, split) in best.items():
        mapping = [(d.name, s) for d, s in zip(work.dims, split, strict=True) if s > 1]
        mapping += [(d.name, d.extent) for d in work.kernel.par_dims if d.name in OWN_DIMENSIONS]
        tiling = Tiling(tuple(tile.items()), tuple(mapping), programs=programs, once=how.once)
        yield cycles + work.begin_cycles, TiledWindow(forms[programs], tiling)


def _on_spcs(work: WindowWork, tile: Mapping[str, int]) -> tuple[int, ...] | None:
    """SPCs per dimension; None when a program would have several tiles of what it loads once."""
    counts = tuple(-(-d.extent // tile[d.name]) for d in work.dims)
    per_sample = work.kernel.has_own_parts
    split = (1,) * len(counts) if per_sample else _split(counts, work.fixed, work.machine.spcs_per_die)
    if any(count > s and is_fixed for count, s, is_fixed in zip(counts, split, work.fixed, strict=True)):
        return None
    return split


def _tiles_taken(shares: Sequence[int], programs: int) -> int:
    """The tiles of an SPC, rounded up where the programs cannot share a dimension evenly."""
    tiles, longest = math.prod(shares), max(shares)
    if any(share % programs == 0 for share in shares):
        return tiles
    return tiles // longest * -(-longest // programs) * programs


def _loads_floats(statement: Statement, memories: Memories) -> bool:
    if statement.op != "vld" or statement.access is None:
        return False
    view = statement.access.view
    return dtype(view.seen or memories.elements[view.buffer]).is_float


def _sliding(kernel: Kernel, window: Window) -> tuple[Dimension, ...]:
    """The dimensions of the outputs along which windows slide."""
    reduced = {d.name for d in kernel.red_dims}
    names = {
        name
        for s in window.before
        if s.access is not None
        for index in s.access.index
        if any(name in reduced for name, _ in index.terms)
        for name, _ in index.terms
    }
    return tuple(d for d in kernel.par_dims if d.name in names - OWN_DIMENSIONS)


def _groups(extent: int) -> list[int]:
    """The numbers of neighbours that an extent has whole groups of."""
    return [count for count in range(1, min(extent, MOST_OUTPUTS) + 1) if extent % count == 0]


def _by_programs(how: Unrolling, work: WindowWork) -> dict[int, Unrolling]:
    """For each number of vector programs that find registers the unrolling with most loads ahead."""
    found: dict[int, Unrolling] = {}
    machine = work.machine
    for ahead in range(1, MOST_AHEAD + 1):
        registers = vector_registers(with_loads_ahead(work.kernel, ahead).phases, how.once).count
        for programs in range(1, min(machine.vector_programs, machine.vector_registers // registers) + 1):
            found[programs] = replace(how, ahead=ahead)
    return found


@cache
def _split(counts: tuple[int, ...], fixed: tuple[bool, ...], spcs: int) -> tuple[int, ...]:
    """SPCs per dimension; those in `fixed` get one for each tile, where there are enough."""
    each = math.prod(count for count, is_fixed in zip(counts, fixed, strict=True) if is_fixed)
    if each > spcs:
        return best_split(counts, spcs)
    free = best_split([1 if is_fixed else count for count, is_fixed in zip(counts, fixed, strict=True)], spcs // each)
    return tuple(count if is_fixed else s for count, is_fixed, s in zip(counts, fixed, free, strict=True))


def _tiles(all_dims: Sequence[Dimension], bound: Mapping[str, int], capacity: int) -> Iterator[dict[str, int]]:
    """Extents of tiles: those of `bound`, and a few parts of each other dimension, of inner ones first."""
    dims = [d for d in all_dims if d.name not in bound]
    capacity //= math.prod(bound.values())
    if not capacity:  # taps side by side alone are more than a register holds
        return
    found: list[tuple[int, ...]] = [()]
    for place in reversed(range(len(dims))):
        inner = tuple(d.extent for d in dims[place + 1 :])
        found = list(
            dict.fromkeys(
                (part, *tile)
                for tile in found
                for part in _parts(dims[place].extent, capacity // math.prod(tile), tile == inner)
            )
        )
    least = min(-(-LEAST_ELEMENTS // math.prod(bound.values())), math.prod(d.extent for d in dims))
    for tile in found:
        if math.prod(tile) >= least:
            extents = {**bound, **{d.name: extent for d, extent in zip(dims, tile, strict=True)}}
            yield {d.name: extents[d.name] for d in all_dims}


def _parts(extent: int, most: int, is_free: bool) -> list[int]:
    """The extents that a tile may have along a dimension; fewer when an inner one is cut."""
    parts = sorted({even_part(extent, -(-extent // number)) for number in PARTS}, reverse=True)
    fitting = [part for part in parts if part <= most] or [even_part(extent, most)]
    chosen = fitting[: MOST_PARTS if is_free else 2]
    return chosen if 1 in chosen else [*chosen, 1]
