"""Weights in the tensor buffers: products that wait for the NoC find their right operand near.

An SPC's share of the weights of a product is copied into its tensor buffer while kernels before are at work. Then its
T-core loads them from there, and the port to the NoC brings the left operand alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

from birc.compiler.ir.copies import row_major_strides
from birc.compiler.ir.found_once import found_once
from birc.compiler.ir.names import unused_name
from birc.compiler.ir.plan import OWN_DIMENSIONS, Access, Buffer, FillStep, Kernel, KernelStep, Plan, Step, View
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.plan_beside import together
from birc.compiler.passes.allocation.blocks import aligned
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.lifetimes import instances, lifetimes, most_at_once, reads_of, tables
from birc.compiler.passes.own_parts import can_be_cut, cut
from birc.compiler.passes.own_products import OVER
from birc.compiler.passes.schedule import redirect
from birc.compiler.passes.tile import memories_of, signature
from birc.runtime.dtypes import dtype
from birc.runtime.errors import InternalError
from birc.runtime.machine import Machine
from birc.runtime.program import MAX_BOX_RANK

Cycles = Callable[[Kernel, Memories], int]
"""What a kernel takes by its best tiling, with its operands where they are said to lie."""

SPARE = 1 / 3
"""Share of the port to the NoC that kernels are expected to leave to copies."""
MOST_ROOM = 3 / 4
"""Share of an SPC's memory that tensor buffers may take: L2 has the rest."""
LEAST_SAVED = 1 / 12
"""Of less there is nothing left where weights are loaded ahead of a kernel as it is."""
COPY_WEIGHT = 1 / 32
"""What a cycle of a copy costs others."""
NEAR = ".near"


@dataclass(frozen=True, slots=True)
class Near:
    """A kernel with its weights near: the parts of SPCs of what they were, and an SPC's own."""

    kernel: Kernel
    source: View
    target: View

    def num_bytes(self, element: str) -> int:
        """The bytes that each SPC gets, of elements of a type."""
        return math.prod(self.target.dims) * dtype(element).bits // 8


@dataclass(frozen=True, slots=True)
class Offer:
    """A step whose weights may be near: its kernels then, and what that saves; they are copied from step `begin` on."""

    number: int
    begin: int
    kernels: tuple[Near | None, ...]
    saved_cycles: int


Grid = tuple[tuple[str, int], ...]
"""How SPCs divide a product: the dimensions that are cut, each with its number of parts, the outer one first."""


def near_offers(plan: Plan, machine: Machine, cycles: Cycles) -> list[Offer]:
    """The products of a plan that are faster with their weights near, those first that gain most.

    Weights that HBM brings just in time are left where they are: copies would wait for them, and all behind these.
    """
    if plan.repeat > 1:
        return []
    memories = memories_of(plan)
    constants = {b.name for b in plan.buffers if b.role == "constant" and dtype(b.dtype).bits >= 8}
    alone = {group.start for group in together(plan.steps) if len(group) == 1}
    solved: dict[object, tuple[Grid, int] | None] = {}
    found: list[tuple[int, tuple[Near | None, ...], int]] = []
    for number, step in enumerate(plan.steps):
        if not isinstance(step, KernelStep) or number not in alone or not _have_weights(step, constants):
            continue
        first = step.kernel
        known = found_once(solved, signature(first, memories), partial(_best, first, memories, machine, cycles))
        if known is not None:
            grid, saved_cycles = known
            near = tuple(None if kernel is None else _near(kernel, grid) for kernel in step.kernels)
            found.append((number, near, saved_cycles))
    if not found:
        return []
    took = [_cycles_of(step, lambda kernel: cycles(kernel, memories)) for step in plan.steps]
    starts, brought = [0, *accumulate(took)], _brought(plan, machine)
    offers = []
    for number, near, saved_cycles in found:
        first_near = _first(near)
        num_bytes = first_near.num_bytes(memories.elements[first_near.source.buffer])
        needed_cycles = num_bytes / (SPARE * machine.noc_bytes_per_cycle)
        begin = _begin(plan, number, needed_cycles, took)
        if brought[number] <= starts[begin]:
            offers.append(Offer(number, begin, near, saved_cycles))
    return sorted(offers, key=lambda offer: (-offer.saved_cycles, offer.number))


def _have_weights(step: KernelStep, constants: Set[str]) -> bool:
    """Whether the right operand of a step's products is a constant of which parts can be copied, alike on all dies."""
    first = step.kernel.contraction
    for kernel in instances(step):
        if kernel.contraction is None or first is None or kernel.has_own_parts or kernel.space != step.kernel.space:
            return False
        view = kernel.contraction.b.view
        if view.seen or view.word or any(view.lower) or view.buffer not in constants:
            return False
        if (view.dims, view.strides) != (first.b.view.dims, first.b.view.strides):
            return False
    return True


def _first(kernels: Sequence[Near | None]) -> Near:
    """The instance of the first die that takes part."""
    return next(one for one in kernels if one is not None)


def _cycles_of(step: Step, cycles: Callable[[Kernel], int]) -> int:
    """What the kernels of a step take."""
    return max(map(cycles, instances(step))) if isinstance(step, KernelStep) else 0


def _brought(plan: Plan, machine: Machine) -> list[float]:
    """By step the cycles until HBM has brought the constants that kernels up to it read tile by tile, at least."""
    halves = {b.name: b.num_bytes / (2 if b.shared else 1) for b in plan.buffers if b.role == "constant"}
    found, num_bytes = list[float](), 0.0
    for step in plan.steps:
        for kernel in instances(step) if isinstance(step, KernelStep) else ():
            num_bytes += sum(halves.pop(name, 0.0) for name in reads_of(kernel) - tables(kernel))
        found.append(num_bytes / machine.streamed_hbm_bytes_per_cycle())
    return found


def _begin(plan: Plan, number: int, needed_cycles: float, took: Sequence[int]) -> int:
    """The last step in front of which a copy can begin that kernel `number` needs, and that takes so many cycles.

    Nothing comes between kernels on SPCs' own parts: they may become one.
    """
    begin, later = number, plan.steps[number]
    for place in range(number - 1, -1, -1):
        step = plan.steps[place]
        if not isinstance(step, KernelStep):
            continue
        if needed_cycles <= 0 and not (_has_own_parts(step) and _has_own_parts(later)):
            break
        begin, later = place, step
        needed_cycles -= took[place]
    return begin


def _not_behind(plan: Plan, begin: int, near: Set[int]) -> int:
    """Where a copy begins: in front of a kernel with weights near that comes before, not right behind it.

    There it would wait for the end of that kernel, to take the place of its weights.
    """
    before = next((n for n in range(begin - 1, -1, -1) if isinstance(plan.steps[n], KernelStep)), begin)
    return before if before in near else begin


def _has_own_parts(step: Step) -> bool:
    return isinstance(step, KernelStep) and step.kernel.has_own_parts


def with_near_weights(plan: Plan, offers: Sequence[Offer], machine: Machine) -> Plan | None:
    """The plan with weights near; None where tensor buffers have no room for them."""
    buffers = {b.name: b for b in plan.buffers}
    steps, taken = list(plan.steps), set(buffers)
    fills: dict[int, list[Step]] = {}
    numbers = {offer.number for offer in offers}
    near: list[Buffer] = []
    for offer in sorted(offers, key=lambda offer: offer.number):
        first = _first(offer.kernels)
        element = buffers[first.source.buffer].dtype
        name = unused_name(first.target.buffer, taken)
        taken.add(name)
        near.append(Buffer(name, element, first.num_bytes(element), "scratch", "tb"))
        names = {first.target.buffer: name}
        steps[offer.number] = KernelStep(tuple(None if n is None else redirect(n.kernel, names) for n in offer.kernels))
        dies: dict[View, int] = {}
        for die, one in enumerate(offer.kernels):
            if one is not None:
                dies[one.source] = dies.get(one.source, 0) | 1 << die
        target = replace(first.target, buffer=name)
        begin = _not_behind(plan, offer.begin, numbers)
        fills.setdefault(begin, []).extend(FillStep(source, target, mask) for source, mask in dies.items())
    ordered = [one for number, step in enumerate(steps) for one in (*fills.get(number, ()), step)]
    result = replace(plan, buffers=(*plan.buffers, *near), steps=tuple(ordered))
    lives = lifetimes(result)
    local = [b for b in result.buffers if b.space == "tb" and b.name in lives]
    needed = most_at_once((aligned(b.num_bytes, machine.l2_line_bytes), *lives[b.name]) for b in local)
    if needed > MOST_ROOM * machine.spc_sram_bytes:
        return None
    return replace(result, tensor_buffer_bytes=max(plan.tensor_buffer_bytes, needed))


def _best(kernel: Kernel, memories: Memories, machine: Machine, cycles: Cycles) -> tuple[Grid, int] | None:
    """The grid by which a product with weights near is fastest, and what that saves; None when it saves too little."""
    before = cycles(kernel, memories)
    best: tuple[float, int, Grid] | None = None
    for grid in _grids(kernel, machine):
        made = _near(kernel, grid)
        if max(len(made.source.dims), *(len(access.index) for access in accesses(made.kernel))) > MAX_BOX_RANK:
            continue
        name, element = made.target.buffer, memories.elements[made.source.buffer]
        there = replace(memories, elements={**memories.elements, name: element}, local=memories.local | {name})
        saved_cycles = before - cycles(made.kernel, there)
        copied_cycles = made.num_bytes(element) / machine.noc_bytes_per_cycle
        best = max(best or (0.0, 0, grid), (saved_cycles - COPY_WEIGHT * copied_cycles, saved_cycles, grid))
    return (best[2], best[1]) if best is not None and best[1] > LEAST_SAVED * before else None


def _grids(kernel: Kernel, machine: Machine) -> Iterator[Grid]:
    """The ways to divide a product over all SPCs: its columns, and a dimension that its right operand lacks."""
    contraction = kernel.contraction
    if contraction is None:
        return
    of_b = {name for index in contraction.b.index for name, _ in index.terms}
    others = [d.name for d in kernel.par_dims if d.name not in of_b]
    for columns in (n for n in range(1, machine.spcs_per_die + 1) if machine.spcs_per_die % n == 0):
        rows = machine.spcs_per_die // columns
        of_columns = ((contraction.column, columns),) if columns > 1 else ()
        ways = [((name, rows), *of_columns) for name in others] if rows > 1 else [of_columns]
        yield from (way for way in ways if all(can_be_cut(kernel, *one) for one in way))


def _near(kernel: Kernel, grid: Grid) -> Near:
    """The kernel cut by a grid, with an SPC's own weights."""
    for (name, count), over in reversed([*zip(grid, OVER, strict=False)]):
        kernel = cut(kernel, name, count, over)
    contraction = kernel.contraction
    if contraction is None:
        raise InternalError("a kernel without a product has no weights", where=kernel.name)
    axes = [*zip(contraction.b.index, contraction.b.view.dims, contraction.b.view.strides, strict=True)]
    own = [axis for axis in axes if OWN_DIMENSIONS.isdisjoint(dict(axis[0].terms))]
    steps = {name: stride for index, _, stride in axes for name, _ in index.terms}
    dims, strides = tuple(n for _, n, _ in own), tuple(s for _, _, s in own)
    over_dims = tuple(count for _, count in grid)
    over_strides = tuple(steps.get(over, 0) for over, _ in zip(OVER, grid, strict=False))
    view = contraction.b.view
    source = View(view.buffer, view.offset, over_dims + dims, over_strides + strides)
    target = View(view.buffer + NEAR, 0, dims, _dense(dims, strides))
    b = Access(target, tuple(index for index, _, _ in own), contraction.b.fill)
    made = replace(contraction, b=b, depth=contraction.depth - (len(axes) - len(own)))
    return Near(replace(kernel, contraction=made), source, target)


def _dense(dims: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """Strides without gaps, in the order of other ones."""
    order = sorted(range(len(dims)), key=lambda axis: (-strides[axis], axis))
    steps = dict(zip(order, row_major_strides([dims[axis] for axis in order]), strict=True))
    return tuple(steps[axis] for axis in range(len(dims)))
