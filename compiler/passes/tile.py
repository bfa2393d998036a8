"""The tile phase: every kernel gets tile extents, blocking and a mapping to SPCs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from birc.compiler.ir.plan import Access, Kernel, KernelStep, Plan
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.lifetimes import streamed
from birc.compiler.passes.tile_contraction import TiledDepth, contraction_tilings
from birc.compiler.passes.tile_slots import fewer_slots
from birc.compiler.passes.tile_vector import (
    in_bands,
    keeps_to_bands,
    tile_vector_kernel,
    with_most_programs,
    with_tiles_together,
)
from birc.compiler.passes.tile_window import TiledWindow, window_tilings
from birc.runtime.machine import Machine

Solved = dict[object, TiledDepth | TiledWindow]
Clock = Callable[[Kernel, Memories], int]

MOST_TIMED = 6
"""Tilings of a product that are timed: of BERT's and ResNet's products the fastest is among the first four."""


def tile(plan: Plan, machine: Machine, solved: Solved | None = None, clock: Clock | None = None) -> Plan:
    """The plan with a tiling on every kernel; kernels of equal structure are solved once.

    What is `solved` for a machine is kept there, for other plans. A `clock` gives the cycles of a tiled kernel: it
    decides between the tilings of a product that are estimated best, and on its slots, else the estimate does.
    """
    read = streamed(plan)
    memories = Memories(
        {b.name: b.dtype for b in plan.buffers},
        frozenset(b.name for b in plan.buffers if b.space == "tb"),
        frozenset(b.name for b in plan.buffers if b.role == "input" or (b.role == "constant" and b.name not in read)),
    )
    known: Solved = {} if solved is None else solved

    steps = tuple(
        KernelStep(tuple(kernel and tiled(kernel, machine, memories, known, clock) for kernel in step.kernels))
        if isinstance(step, KernelStep)
        else step
        for step in plan.steps
    )
    return replace(plan, steps=steps)


def tiled(kernel: Kernel, machine: Machine, memories: Memories, solved: Solved, clock: Clock | None) -> Kernel:
    """A kernel with its tiling, which is looked up in `solved` and added to it."""
    if kernel.contraction is not None:  # what products read again and again is copied to the chip
        memories = replace(memories, far=frozenset())
    key = signature(kernel, memories)
    if key not in solved:
        solved[key] = _solve(kernel, machine, memories, clock)
    return solved[key].of(kernel)


def _solve(kernel: Kernel, machine: Machine, memories: Memories, clock: Clock | None) -> TiledDepth | TiledWindow:
    most = 1 if clock is None else MOST_TIMED
    tilings: list[TiledDepth | TiledWindow] = []
    if kernel.contraction is not None:
        tilings += contraction_tilings(kernel, kernel.contraction, machine, memories, most)
    else:
        tilings += window_tilings(kernel, machine, memories, most)
        if not tilings or clock is not None:
            whole = tile_vector_kernel(kernel, machine)
            ways = [whole, with_most_programs(kernel, whole, machine)]
            if clock is not None:
                ways += [more for way in tuple(ways) for more in with_tiles_together(kernel, way, machine)]
            tilings += [TiledDepth(0, tiling) for tiling in ways]
            kept = [t for t in tilings if isinstance(t, TiledWindow) or keeps_to_bands(kernel, t.tiling)]
            tilings = kept or [TiledDepth(0, in_bands(kernel, whole))]
    candidates = list(dict.fromkeys(tilings))
    if clock is None or (kernel.contraction is None and len(candidates) == 1):
        return candidates[0]

    def cycles(tiling: TiledDepth | TiledWindow) -> int:
        return clock(tiling.of(kernel), memories)

    measured = {tiling: cycles(tiling) for tiling in candidates}
    chosen = min(measured, key=lambda tiling: measured[tiling])
    if kernel.contraction is None or not isinstance(chosen, TiledDepth):
        return chosen
    return fewer_slots(kernel, chosen, measured[chosen], machine, cycles)


def signature(kernel: Kernel, memories: Memories) -> object:
    """What the tiling depends on: the space and the accesses, without names and places of buffers."""

    def access_key(access: Access | None) -> object:
        if access is None:
            return None
        view = access.view
        place = (memories.elements[view.buffer], memories.is_local(access), view.buffer in memories.far)
        return (view.dims, view.strides, view.lower, access.index, *place)

    contraction = kernel.contraction
    return (
        kernel.space,
        contraction
        and (
            access_key(contraction.a),
            access_key(contraction.b),
            contraction.rows,
            contraction.depth,
            contraction.row_dims,
            contraction.format,
        ),
        tuple(
            (phase.loops, tuple((s.op, s.arguments, s.dims, access_key(s.access)) for s in phase.statements))
            for phase in kernel.phases
        ),
    )
