"""Tile extents and SPC mapping of kernels that run on the vector cores alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from birc.compiler.ir.plan import OWN_DIMENSIONS, SPC_BANDS, Dimension, Kernel, Tiling
from birc.compiler.ir.plan_access import accesses, step_alone
from birc.compiler.ir.plan_spread import spreads
from birc.compiler.ir.plan_verify_tiling import tiling_problems
from birc.compiler.ir.registers import assign, vector_registers
from birc.compiler.passes.restrict import even_part
from birc.runtime.errors import DoesNotFitError
from birc.runtime.machine import Machine

LEAST_TILE_ELEMENTS = 512
"""Tiles are not made smaller than that to keep more SPCs busy."""
INNER_SHARES = (32, 128)
"""Elements of a square tile along what is innermost in memory alone: one granule of 32-bit elements, and four."""
LEAST_GAIN = 2.0
"""How much less a vector program has to do for a tile that is shorter than a register holds."""


def tile_vector_kernel(kernel: Kernel, machine: Machine) -> Tiling:
    """Whole reduced dimensions in a tile, then as much of the inner ones as a register holds, on all SPCs if it can."""
    registers = assign(kernel.phases).count
    if registers > machine.vector_registers:
        raise DoesNotFitError(f"{registers} vector registers, there are {machine.vector_registers}", where=kernel.name)
    tile = _tile(kernel, machine.vector_tile_elements)
    per_sample = kernel.has_own_parts
    outer = _outer(kernel)
    reduced = _reduced(kernel)
    free = [d for d in outer if d.name not in reduced]
    wanted = machine.vector_programs if per_sample else machine.spcs_per_die
    while _tiles(free, tile) < wanted and math.prod(tile.values()) > LEAST_TILE_ELEMENTS:
        largest = next((d for d in free if tile[d.name] > 1), None)
        if largest is None:
            break
        tile[largest.name] = -(-tile[largest.name] // 2)
    whole = _mapped(kernel, machine, tile, registers)
    shorter = (
        _mapped(kernel, machine, {**tile, d.name: extent}, registers)
        for d in [d for d in free if tile[d.name] > 1][:1]
        for extent in range(-(-tile[d.name] // 2), tile[d.name])
    )
    best = min(shorter, key=lambda t: _elements_of_a_program(kernel, t), default=whole)
    gain = _elements_of_a_program(kernel, whole) / _elements_of_a_program(kernel, best)
    return best if gain >= LEAST_GAIN else whole


def _mapped(kernel: Kernel, machine: Machine, tile: dict[str, int], registers: int) -> Tiling:
    """The tiles on SPCs and vector programs."""
    outer = _outer(kernel)
    counts = [-(-d.extent // tile[d.name]) for d in outer]
    per_sample = kernel.has_own_parts
    spcs = (1,) * len(counts) if per_sample else best_split(counts, machine.spcs_per_die)
    shares = [-(-count // split) for count, split in zip(counts, spcs, strict=True)]
    most = min(machine.vector_programs, machine.vector_registers // max(1, registers))
    mapping = {d.name: split for d, split in zip(outer, spcs, strict=True) if split > 1}
    if per_sample:
        mapping = {d.name: d.extent for d in kernel.par_dims if d.name in OWN_DIMENSIONS}
    return Tiling(
        tuple(tile.items()),
        tuple(mapping.items()),
        programs=shared_programs(shares, most),
    )


def with_square_tiles(kernel: Kernel, machine: Machine) -> Iterator[Tiling]:
    """Tilings for kernels that turn what they move, in whose tiles the first innermost dimension has some length.

    What is innermost where it is loaded is not where it is stored. A tile that is long along one of both alone touches
    a granule for each element of the other.
    """
    outer = _outer(kernel)
    inner = dict.fromkeys(d.name for a in accesses(kernel) for d in outer if step_alone(kernel, a, d.name) == 1)
    if len(inner) < 2 or _reduced(kernel):
        return
    registers = assign(kernel.phases).count
    first = next(d for d in outer if d.name in inner)
    for share in INNER_SHARES:
        tile = _tile(kernel, machine.vector_tile_elements, {first.name: even_part(first.extent, share)})
        yield _mapped(kernel, machine, tile, registers)


def with_most_programs(kernel: Kernel, tiling: Tiling, machine: Machine) -> Tiling:
    """The tiling with the fewest vector programs that leave each as little to do as all of them would.

    They need not share a dimension evenly: in the last round some have nothing to do.
    """
    tile, spcs = dict(tiling.tile), dict(tiling.spcs)
    counts = {d.name: -(-d.extent // tile[d.name]) for d in _outer(kernel)}
    shares = [-(-count // spcs.get(name, 1)) for name, count in counts.items()]
    most = min(machine.vector_programs, machine.vector_registers // max(1, assign(kernel.phases).count))
    longest = max(shares, default=1)
    return replace(tiling, programs=min(range(1, most + 1), key=lambda programs: (-(-longest // programs), programs)))


def with_tiles_together(kernel: Kernel, tiling: Tiling, machine: Machine) -> Iterator[Tiling]:
    """The tiling with several tiles of a program under way together, as far as there are registers."""
    spread = spreads(kernel, tiling)
    tiles = max((spread[d.name].share for d in _outer(kernel)), default=1)
    if any(phase.loops for phase in kernel.phases) or tiling.once:
        return
    most = machine.vector_registers // (tiling.programs * max(1, assign(kernel.phases).count))
    for together in range(2, min(machine.outstanding_loads_per_warp, most, tiles // tiling.programs) + 1):
        yield replace(tiling, rows=together)


def with_tile_ahead(kernel: Kernel, tiling: Tiling, machine: Machine) -> Iterator[Tiling]:
    """The tilings with loads a tile ahead: the fewest programs that leave each as little to do as registers let."""
    if len(kernel.phases) > 1 or kernel.phases[0].loops or tiling.once:
        return
    registers = vector_registers(kernel.phases, once=False, ahead=True).count
    most = min(machine.vector_programs, machine.vector_registers // registers)
    for split in _splits_along_one(kernel, tiling, machine):
        spread = spreads(kernel, replace(split, programs=1))
        tiles = max((spread[d.name].share for d in _outer(kernel)), default=1)
        for programs in sorted(range(1, most + 1), key=lambda programs: (-(-tiles // programs), programs)):
            way = replace(split, programs=programs, ahead=True)
            if not any(True for _ in tiling_problems(replace(kernel, tiling=way), machine)):
                yield way
                break


def _splits_along_one(kernel: Kernel, tiling: Tiling, machine: Machine) -> Iterator[Tiling]:
    """The tiling, and those whose SPCs have one tile along all dimensions but one, which then are enough for these."""
    yield tiling
    if kernel.has_own_parts:
        return
    tile = dict(tiling.tile)
    counts = {d.name: -(-d.extent // tile.get(d.name, 1)) for d in _outer(kernel)}
    for name, count in counts.items():
        others = math.prod(counts.values()) // count
        if others <= machine.spcs_per_die:
            spcs = counts | {name: min(count, machine.spcs_per_die // others)}
            split = replace(tiling, spcs=tuple((d, n) for d, n in spcs.items() if n > 1))
            if split != tiling:
                yield split


def banded(kernel: Kernel) -> set[str]:
    """The dimensions of which an SPC has a band."""
    axes = [index for access in accesses(kernel) for index in access.index if SPC_BANDS in dict(index.terms)]
    return {d.name for d in _outer(kernel) if any(d.name in dict(index.terms) for index in axes)}


def keeps_to_bands(kernel: Kernel, tiling: Tiling) -> bool:
    """Whether no tile reaches beyond a band, where what it would read lies on another SPC."""
    spread = spreads(kernel, tiling)
    return all(spread[name].reached == spread[name].extent for name in banded(kernel))


def in_bands(kernel: Kernel, tiling: Tiling) -> Tiling:
    """A tiling that keeps to the bands, made from one that does not."""
    narrow = banded(kernel)
    tile = tuple((name, 1 if name in narrow else extent) for name, extent in tiling.tile)
    return replace(tiling, tile=tile, programs=1)


def _outer(kernel: Kernel) -> list[Dimension]:
    """The independent dimensions that no phase loops over: their tiles are spread over SPCs and programs."""
    looped = {name for phase in kernel.phases for name in phase.loops}
    return [d for d in kernel.par_dims if d.name not in looped and d.name not in OWN_DIMENSIONS]


def _elements_of_a_program(kernel: Kernel, tiling: Tiling) -> float:
    """Elements that a vector program of the busiest SPC works on, tile after tile."""
    tile, spcs = dict(tiling.tile), dict(tiling.spcs)
    counts = {d.name: -(-d.extent // tile[d.name]) for d in _outer(kernel)}
    tiles = math.prod(-(-count // spcs.get(name, 1)) for name, count in counts.items())
    return tiles * math.prod(tile.values()) / tiling.programs


def shared_programs(counts: Sequence[int], most: int) -> int:
    """The largest number of vector programs that can share one of the loops evenly."""
    return next((p for p in range(most, 1, -1) if any(count % p == 0 for count in counts)), 1)


def best_split(counts: Sequence[int], spcs: int) -> tuple[int, ...]:
    """SPCs per dimension, product at most `spcs`, that leave the fewest tiles on the busiest SPC."""
    return min(
        factorisations(counts, spcs),
        key=lambda split: (
            math.prod(-(-count // s) for count, s in zip(counts, split, strict=True)),
            math.prod(split),
        ),
    )


def factorisations(counts: Sequence[int], limit: int) -> Iterator[tuple[int, ...]]:
    """Every way to give each dimension at most as many SPCs as it has tiles, `limit` in all."""
    if not counts:
        yield ()
        return
    for first in range(1, min(counts[0], limit) + 1):
        for rest in factorisations(counts[1:], limit // first):
            yield (first, *rest)


def _reduced(kernel: Kernel) -> set[str]:
    """The dimensions that reductions across lanes collapse: a tile has all of each."""
    return {n for phase in kernel.phases for s in phase.statements if s.op.startswith("vred") for n in s.dims}


def _tile(kernel: Kernel, capacity: int, bound: Mapping[str, int] = MappingProxyType({})) -> dict[str, int]:
    """Tile extents: those of `bound`, then of reduced dimensions, then of the others from the inside out."""
    reduced = _reduced(kernel)
    tile = dict(bound)
    budget, last = capacity // math.prod(tile.values()), kernel.par_dims[-1]
    free = [d for d in reversed(kernel.par_dims) if d.name not in tile]
    for d in sorted(free, key=lambda d: d.name not in reduced):
        tile[d.name] = 1 if d.name in OWN_DIMENSIONS else even_part(d.extent, max(1, budget))
        budget //= max(tile[d.name], kernel.whole_extent if d == last else 1)
    return tile


def _tiles(dims: Sequence[Dimension], tile: dict[str, int]) -> int:
    """How many tiles the dimensions have together."""
    return math.prod(-(-d.extent // tile[d.name]) for d in dims)
