"""The tile phase: every kernel gets tile extents, blocking and a mapping to SPCs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from birc.compiler.ir.found_once import found_once
from birc.compiler.ir.kernel_form import of_dimension, of_index
from birc.compiler.ir.plan import Access, Kernel, KernelStep, Plan, Step, Tiling
from birc.compiler.ir.plan_beside import seen_by_steps
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.lifetimes import streamed
from birc.compiler.passes.row_parts import PARTS, TiledParts, in_row_parts
from birc.compiler.passes.tile_contraction import TiledDepth, contraction_tilings
from birc.compiler.passes.tile_dealt import dealt
from birc.compiler.passes.tile_finer import finer
from birc.compiler.passes.tile_shifted import with_shifted_rows
from birc.compiler.passes.tile_slots import fewer_slots
from birc.compiler.passes.tile_vector import (
    banded,
    in_bands,
    keeps_to_bands,
    tile_vector_kernel,
    with_most_programs,
    with_square_tiles,
    with_tile_ahead,
    with_tiles_together,
)
from birc.compiler.passes.tile_window import TiledWindow, window_tilings
from birc.runtime.errors import DoesNotFitError
from birc.runtime.machine import Machine

Tiled = TiledDepth | TiledParts | TiledWindow
Some = TypeVar("Some", TiledDepth, TiledDepth | TiledParts | TiledWindow)
Solved = dict[object, Tiled]
Clock = Callable[[Kernel, Memories, Machine, float], int]
"""The cycles of a tiled kernel; some number above the last argument when they are more."""

MOST_TIMED = 6
"""Tilings of a product that are timed: of BERT's and ResNet's products the fastest is among the first four."""


def tile(plan: Plan, machine: Machine, solved: Solved | None = None, clock: Clock | None = None) -> Plan:
    """The plan with a tiling on every kernel; kernels of equal structure are solved once.

    What is `solved` for a machine is kept there, for other plans. A `clock` gives the cycles of a tiled kernel: it
    decides between the tilings of a product that are estimated best, and on its slots, else the estimate does.
    """
    memories, known = memories_of(plan), {} if solved is None else solved

    def of_step(step: Step, seen: Machine) -> Step:
        if not isinstance(step, KernelStep):
            return step
        return replace(step, kernels=tuple(k and tiled(k, seen, memories, known, clock) for k in step.kernels))

    return replace(plan, steps=tuple(map(of_step, plan.steps, seen_by_steps(plan, machine))))


def memories_of(plan: Plan) -> Memories:
    """Where the buffers of a plan lie: what kernels do not read tile by tile stays in HBM."""
    read = streamed(plan)
    return Memories(
        {b.name: b.dtype for b in plan.buffers},
        frozenset(b.name for b in plan.buffers if b.space == "tb"),
        frozenset(b.name for b in plan.buffers if b.role == "input" or (b.role == "constant" and b.name not in read)),
        constants_of(plan),
    )


def constants_of(plan: Plan) -> frozenset[str]:
    """The names of a plan's constants."""
    return frozenset(b.name for b in plan.buffers if b.role == "constant")


def tiled(
    kernel: Kernel, machine: Machine, memories: Memories, solved: Solved, clock: Clock | None, most: int = MOST_TIMED
) -> Kernel:
    """A kernel with its tiling, which is looked up in `solved` and added to it.

    When fewer than `MOST_TIMED` tilings are timed the slots are not looked at.
    """
    if kernel.contraction is not None:  # what products read again and again is copied to the chip
        memories = replace(memories, far=frozenset())
    key = signature(kernel, memories), machine
    return found_once(solved, key, lambda: _solve(kernel, machine, memories, clock, most)).of(kernel)


def _solve(kernel: Kernel, machine: Machine, memories: Memories, clock: Clock | None, timed: int) -> Tiled:
    most = 1 if clock is None else timed
    tilings: list[Tiled] = []
    if kernel.contraction is not None:
        products = contraction_tilings(kernel, kernel.contraction, machine, memories, most)
        tilings += [*products, *(dealt(kernel, products, machine) if clock is not None else ())]
    else:
        tilings += window_tilings(kernel, machine, memories, most)
        if not tilings or clock is not None:
            whole = tile_vector_kernel(kernel, machine)
            tilings += [TiledDepth(0, tiling) for tiling in _ways(kernel, whole, machine, clock)]
            kept = [t for t in tilings if isinstance(t, TiledWindow) or keeps_to_bands(kernel, t.tiling)]
            tilings = kept or [TiledDepth(0, in_bands(kernel, whole))]
            if clock is not None and not banded(kernel):
                tilings += _in_parts(kernel, machine, clock)
    candidates = list(dict.fromkeys(tilings))
    if clock is None or (kernel.contraction is None and len(candidates) == 1):
        return candidates[0]

    def cycles(tiling: Tiled, most: float) -> int:
        return clock(tiling.of(kernel), memories, machine, most)

    first, *others = candidates
    fastest, least = _fastest(others, first, cycles(first, math.inf), cycles)
    if kernel.contraction is None or not isinstance(fastest, TiledDepth):
        return fastest
    chosen = fastest
    if memories.comes_ahead(kernel.contraction):
        eager = replace(chosen, tiling=replace(chosen.tiling, eager=True))
        chosen, least = _fastest([eager], chosen, least, cycles)
    chosen, least = _fastest(with_shifted_rows(kernel, chosen, machine), chosen, least, cycles)
    chosen, least = _fastest(finer(kernel, chosen, least, machine), chosen, least, cycles)
    if timed < MOST_TIMED:
        return chosen
    return fewer_slots(kernel, chosen, least, machine, cycles)


def _fastest(
    tilings: Iterable[Some], chosen: Some, least: int, cycles: Callable[[Some, float], int]
) -> tuple[Some, int]:
    """The tiling with the least cycles, the first of those, and they: the one `chosen` until now takes `least`."""
    for tiling in tilings:
        if (took := cycles(tiling, least - 1)) < least:
            chosen, least = tiling, took
    return chosen, least


def _ways(kernel: Kernel, whole: Tiling, machine: Machine, clock: Clock | None) -> list[Tiling]:
    """The ways to give the tiles of a vector kernel to programs; if a clock tells, several together or one ahead."""
    ways = [whole, with_most_programs(kernel, whole, machine)]
    if clock is not None:
        for square in with_square_tiles(kernel, machine):
            ways += [square, with_most_programs(kernel, square, machine)]
        more = (with_tiles_together, with_tile_ahead)
        ways += [other for way in tuple(ways) for others in more for other in others(kernel, way, machine)]
    return ways


def _in_parts(kernel: Kernel, machine: Machine, clock: Clock) -> Iterator[TiledParts]:
    """The tilings with rows in parts, where it has rows and there are registers."""
    for parts in PARTS:
        cut = in_row_parts(kernel, parts)
        try:
            whole = tile_vector_kernel(cut, machine) if cut is not None else None
        except DoesNotFitError:
            continue
        if cut is not None and whole is not None:
            yield from (TiledParts(parts, tiling) for tiling in _ways(cut, whole, machine, clock))


def signature(kernel: Kernel, memories: Memories) -> object:
    """What the tiling depends on: the space and the accesses, without names and places of buffers."""

    def access_key(access: Access | None) -> object:
        if access is None:
            return None
        view = access.view
        place = (memories.elements[view.buffer], memories.is_local(access), view.buffer in memories.far)
        return (view.dims, view.strides, view.lower, view.away, tuple(map(of_index, access.index)), *place)

    contraction = kernel.contraction
    return (
        tuple(map(of_dimension, kernel.space)),
        contraction
        and (
            tuple(map(access_key, contraction.operands)),
            contraction.rows,
            contraction.depth,
            contraction.row_dims,
            contraction.format,
            memories.comes_ahead(contraction),
        ),
        tuple(
            (phase.loops, tuple((s.op, s.arguments, s.dims, access_key(s.access)) for s in phase.statements))
            for phase in kernel.phases
        ),
    )
