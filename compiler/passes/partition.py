"""The partition phase: the kernels of the graph, divided over dies and over chunks of the batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from birc.compiler.ir.copies import row_major_strides
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import (
    Access,
    Boundary,
    Buffer,
    Exchange,
    ExchangeStep,
    Kernel,
    KernelStep,
    Plan,
    Step,
    View,
)
from birc.compiler.ir.plan_access import accesses, moved, with_views
from birc.compiler.ir.region import region
from birc.compiler.passes.boundary_parts import written_pieces
from birc.compiler.passes.chunk import Cuts, chunks
from birc.compiler.passes.constant_parts import divide_constants
from birc.compiler.passes.lifetimes import reads_of, writes_of
from birc.compiler.passes.lower.lower import Lowered
from birc.compiler.passes.per_sample import per_sample
from birc.compiler.passes.restrict import pieces, restrict
from birc.compiler.passes.rough_cycles import kernel_cycles
from birc.compiler.passes.shared_tail import shared_tail
from birc.compiler.passes.split_search import Choice, SplitSearch
from birc.compiler.passes.stream_tail import cut_stream_tail
from birc.compiler.passes.trim_exchanges import trim_exchanges
from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine
from birc.runtime.program import MAX_BOX_RANK

CLEARLY_MORE = 20
"""Barriers of all dies that a division must save, by a rough estimate, for one die alone not to be tried."""

SHARERS = 4
"""SPCs that share a wide dimension of a product, or a factor of theirs; the others share another one."""


def partition(graph: Graph, lowered: Lowered, machine: Machine) -> Plan:
    """The plan of a lowered graph that estimates favour."""
    return partitions(graph, lowered, machine)[0]


def partitions(graph: Graph, lowered: Lowered, machine: Machine, resident_weights: bool = False) -> tuple[Plan, ...]:
    """The plans worth comparing: divided over the dies or on one, with a sample an SPC or the batch in chunks.

    The first is the one that estimates favour.
    """
    kernels = lowered.kernels
    buffers = {b.name: b for b in lowered.buffers}
    divisions = [[Choice(None) for _ in kernels]]
    divided = SplitSearch(kernels, buffers, machine, machine.dies).best() if machine.dies == 2 else None
    if divided is not None and any(choice.parts is not None for choice in divided):
        divisions.insert(0, divided)
        if _clearly_faster(kernels, divided, buffers, machine):
            divisions.pop()
    plans: list[Plan] = []
    for choices in divisions:
        local = _localised(_plan(graph, lowered, kernels, choices, machine))
        local = divide_constants(cut_stream_tail(trim_exchanges(local), machine))
        cuts = Cuts(local, machine)
        spread = per_sample(cuts, resident_weights)
        plans += [plan for plan in (spread, shared_tail(cuts)) if plan is not None]
        plans += chunks(cuts, resident_weights)
    return tuple(plans)


def _clearly_faster(
    kernels: Sequence[Kernel], divided: Sequence[Choice], buffers: Mapping[str, Buffer], machine: Machine
) -> bool:
    """Whether the dies share all work without hearing of each other, and it is more than what two of them cost."""
    if any(choice.parts is None or choice.exchanged for choice in divided):
        return False
    alone = sum(kernel_cycles(kernel, buffers, machine) for kernel in kernels)
    shared = sum(kernel_cycles(choice.parts[0], buffers, machine) for choice in divided if choice.parts is not None)
    return alone - shared > CLEARLY_MORE * machine.die_barrier_cycles


def _plan(
    graph: Graph, lowered: Lowered, kernels: Sequence[Kernel], choices: Sequence[Choice], machine: Machine
) -> Plan:
    """The plan that follows from the choices, with buffers of the size they have in the graph."""
    inputs = {v.name: lowered.inputs.get(v.name) for v in graph.inputs}
    outputs = {name: view for name in graph.outputs if (view := lowered.outputs.get(name)) is not None}
    steps = _steps(kernels, choices, machine)
    boundaries = tuple(_boundary(graph, name, outputs.get(name)) for name in dict.fromkeys(graph.outputs))
    steps = _gathered_outputs(steps, boundaries, machine.dies)
    steps = _pruned(steps, {view.buffer for view in outputs.values()})
    return Plan(
        graph.name,
        machine.name,
        lowered.precision,
        machine.dies,
        lowered.buffers,
        tuple(steps),
        tuple(_boundary(graph, name, view) for name, view in inputs.items()),
        boundaries,
        sum(kernel.macs for kernel in kernels),
    )


def split_large(kernel: Kernel, machine: Machine) -> list[Kernel]:
    """The kernel in parts none of whose dimensions, nor those of what they read, are larger than a descriptor's.

    Those of a product, but for the last, are whole tiles for the SPCs that share them: each part could have one more.
    """
    name, largest = _too_large(kernel, machine.max_dim)
    if not name:
        return [kernel]
    unit = SHARERS * machine.tcore_cols if kernel.contraction is not None else 1
    parts = [
        restrict(kernel, name, start, extent, f".{number}")
        for number, (start, extent) in enumerate(pieces(kernel.dimension(name).extent, largest, unit))
    ]
    return [part for whole in parts for part in split_large(whole, machine)]


def _too_large(kernel: Kernel, limit: int) -> tuple[str, int]:
    """A par dimension that has to be cut, and the largest extent that its parts can have; ("", 0) if there is none."""
    for dimension in kernel.par_dims:
        if dimension.extent > limit:
            return dimension.name, limit
    extents = {d.name: d.extent for d in kernel.space}
    par = {d.name for d in kernel.par_dims if d.extent > 1}
    for access, indexed in _reads(kernel):
        if max(access.view.dims, default=0) <= limit:
            continue
        for axis, (extent, index) in enumerate(zip(access.view.dims, access.index, strict=True)):
            moved = [(name, factor) for name, factor in index.terms if name in par]
            if extent <= limit or axis == indexed or not moved:
                continue
            name, factor = max(moved, key=lambda term: abs(term[1]) * extents[term[0]])
            others = sum(abs(step) * (extents[term] - 1) for term, step in index.terms if term != name)
            largest = (limit - 1 - others) // abs(factor) + 1
            if 1 <= largest < extents[name]:
                return name, largest
    return "", 0


def _reads(kernel: Kernel) -> Iterator[tuple[Access, int | None]]:
    """Every access, with the axis along which data says what is read: that one may be of any extent."""
    if kernel.contraction is not None:
        yield from ((access, None) for access in kernel.contraction.operands)
    for phase in kernel.phases:
        for statement in phase.statements:
            if statement.access is not None:
                yield statement.access, statement.index_axis if statement.op == "vldx" else None


def _steps(kernels: Sequence[Kernel], choices: Sequence[Choice], machine: Machine) -> list[Step]:
    """Kernel steps, with an exchange before each kernel that needs one. What is too large on a die is cut there."""
    steps: list[Step] = []
    writers: dict[str, list[KernelStep]] = {}
    for kernel, choice in zip(kernels, choices, strict=True):
        if choice.exchanged:
            steps.append(_exchange(choice.exchanged, writers))
        of_dies = choice.parts if choice.parts is not None else (kernel,) * machine.dies
        cut = [split_large(part, machine) for part in of_dies]
        own = [KernelStep(parts) for parts in zip_longest(*cut)]
        steps += own
        for name in writes_of(kernel):
            writers.setdefault(name, []).extend(own)
    return steps


def _exchange(names: Sequence[str], writers: Mapping[str, Sequence[KernelStep]]) -> ExchangeStep:
    """Each die sends what it wrote of some buffers to the other."""
    exchanges = []
    for name in names:
        for step in writers[name]:
            for die, kernel in enumerate(step.kernels):
                exchanges += [Exchange(view, die) for view in _written(kernel, name)]
    return ExchangeStep(tuple(dict.fromkeys(exchanges)))


def _written(kernel: Kernel | None, name: str) -> list[View]:
    """What a kernel writes of a buffer, as dense-as-possible views whose coordinates begin at zero."""
    if kernel is None:
        return []
    found = []
    for phase in kernel.phases:
        for s in phase.statements:
            if s.op == "vst" and s.access is not None and s.access.view.buffer == name:
                box = region(s.access.view)
                dims = tuple(extent for _, extent in box.dims) or (1,)
                strides = tuple(stride for stride, _ in box.dims) or (1,)
                found.append(View(name, box.offset, dims, strides))
    return found


def _gathered_outputs(steps: list[Step], outputs: Sequence[Boundary], dies: int) -> list[Step]:
    """An exchange at the end for each divided output whose parts are not boxes of it."""
    if dies == 1:
        return steps
    writers: dict[str, list[KernelStep]] = {}
    for step in steps:
        if isinstance(step, KernelStep):
            for name in writes_of(step.kernel):
                writers.setdefault(name, []).append(step)
    exchanged = {e.view.buffer for step in steps if isinstance(step, ExchangeStep) for e in step.exchanges}
    scattered = [
        view.buffer
        for output in outputs
        for _, _, view in output.pieces
        if view.buffer not in exchanged
        and any(step.is_divided for step in writers[view.buffer])
        and written_pieces(view, len(output.shape), steps, dies) is None
    ]
    return [*steps, _exchange(scattered, writers)] if scattered else steps


def _pruned(steps: list[Step], outputs: set[str]) -> list[Step]:
    """Without the kernels of dies beyond the first that compute what that die has no use for."""
    dies = max((len(step.kernels) for step in steps if isinstance(step, KernelStep)), default=0)
    if dies == 1:
        return steps
    needed: set[str] = set()
    result: list[Step] = []
    for step in reversed(steps):
        if isinstance(step, ExchangeStep):
            needed |= {e.view.buffer for e in step.exchanges}
        elif isinstance(step, KernelStep):
            first, *others = step.kernels
            wanted = needed | outputs if step.is_divided else needed
            kept = [k if k is not None and writes_of(k) & wanted else None for k in others]
            for kernel in kept:
                needed |= reads_of(kernel) if kernel is not None else set()
            result.append(KernelStep((first, *kept)))
            continue
        result.append(step)
    return list(reversed(result))


@dataclass(frozen=True, slots=True)
class _Range:
    """First and end element."""

    first: int
    end: int


def _die_ranges(steps: Sequence[Step]) -> dict[tuple[str, int], _Range]:
    """The elements of each buffer between the first and the last that each die touches, by buffer and die."""
    found: dict[tuple[str, int], _Range] = {}
    for step in steps:
        for die, kernel in enumerate(step.kernels if isinstance(step, KernelStep) else ()):
            for access in accesses(kernel) if kernel is not None else ():
                box, key = region(access.view), (access.view.buffer, die)
                old = found.get(key, _Range(box.offset, box.end))
                found[key] = _Range(min(old.first, box.offset), max(old.end, box.end))
    return found


def _row_parts(view: View, ranges: Sequence[_Range | None]) -> list[tuple[int, int]] | None:
    """(first row, rows) of each die when the ranges are disjoint runs of the first dimension of a dense tensor."""
    if not view.dims or tuple(view.strides) != row_major_strides(view.dims):
        return None
    row = math.prod(view.dims[1:])
    parts = []
    expected = 0
    for item in ranges:
        if item is None or item.first != expected or item.end % row:
            return None
        parts.append((item.first // row, (item.end - item.first) // row))
        expected = item.end
    return parts if expected == row * view.dims[0] else None


def _boundary(graph: Graph, name: str, view: View | None) -> Boundary:
    type = graph.type_of(name)
    if view is None:
        return Boundary(name, type.dtype.name, type.sizes, ())
    if type.rank > MAX_BOX_RANK and tuple(view.strides) == row_major_strides(view.dims):
        inner = type.rank - MAX_BOX_RANK + 2
        merged = (type.sizes[0], math.prod(type.sizes[1:inner]), *type.sizes[inner:])
        view = replace(view, dims=merged, strides=tuple(row_major_strides(merged)))
    return Boundary(name, type.dtype.name, type.sizes, ((1, (0,) * type.rank, view),))


def _localised(plan: Plan) -> Plan:
    """Buffers of which each die touches a part of its own shrink to that part; boundary tensors get their pieces."""
    exchanged = {e.view.buffer for step in plan.steps if isinstance(step, ExchangeStep) for e in step.exchanges}
    shifts: dict[tuple[str, int], int] = {}
    buffers = []
    parts: dict[str, list[tuple[int, int]]] = {}
    boundary_views = {view.buffer: view for b in (*plan.inputs, *plan.outputs) for _, _, view in b.pieces}
    touched = _die_ranges(plan.steps)
    for buffer in plan.buffers:
        ranges = [touched.get((buffer.name, die)) for die in range(plan.dies)]
        used = [r for r in ranges if r is not None]
        whole = buffer.num_elements
        longest = max((r.end - r.first for r in used), default=whole)
        view = boundary_views.get(buffer.name)
        rows = _row_parts(view, ranges) if view is not None and len(used) == plan.dies > 1 else None
        local = rows is not None if view is not None else buffer.role == "scratch"
        if plan.dies > 1 and local and buffer.name not in exchanged and longest < whole:
            for die, item in enumerate(ranges):
                shifts[buffer.name, die] = item.first if item is not None else 0
            if rows is not None:
                parts[buffer.name] = rows
            buffers.append(replace(buffer, num_bytes=longest * dtype(buffer.dtype).bits // 8))
        else:
            buffers.append(buffer)
    steps = tuple(
        KernelStep(tuple(_shifted(kernel, die, shifts) for die, kernel in enumerate(step.kernels)))
        if isinstance(step, KernelStep)
        else step
        for step in plan.steps
    )
    return replace(
        plan,
        buffers=tuple(buffers),
        steps=steps,
        inputs=tuple(_pieces(b, parts, touched) for b in plan.inputs),
        outputs=tuple(_output_pieces(b, parts, touched, plan, exchanged) for b in plan.outputs),
    )


def _shifted(kernel: Kernel | None, die: int, shifts: Mapping[tuple[str, int], int]) -> Kernel | None:
    if kernel is None or not shifts:
        return kernel
    return with_views(kernel, lambda v: moved(v, v.buffer, v.offset - shifts.get((v.buffer, die), 0)))


def _output_pieces(
    boundary: Boundary,
    parts: Mapping[str, list[tuple[int, int]]],
    touched: Mapping[tuple[str, int], _Range],
    plan: Plan,
    exchanged: set[str],
) -> Boundary:
    """The output with the pieces that the dies write, or whole on the first."""
    if boundary.pieces and boundary.pieces[0][2].buffer not in {*parts, *exchanged}:
        ((_, _, view),) = boundary.pieces
        steps = [s for s in plan.steps if isinstance(s, KernelStep) and view.buffer in writes_of(s.kernel)]
        if any(step.is_divided for step in steps):
            pieces = written_pieces(view, len(boundary.shape), steps, plan.dies)
            if pieces is not None:
                return replace(boundary, pieces=pieces)
    return _pieces(boundary, parts, touched, output=True)


def _pieces(
    boundary: Boundary,
    parts: Mapping[str, list[tuple[int, int]]],
    touched: Mapping[tuple[str, int], _Range],
    output: bool = False,
) -> Boundary:
    """The boundary tensor with a piece for each die that has its own part, or whole on every die that reads it."""
    if not boundary.pieces:
        return boundary
    ((_, start, view),) = boundary.pieces
    rows = parts.get(view.buffer)
    if rows is None:
        users = sum(1 << die for name, die in touched if name == view.buffer)
        mask = 1 if output or not users else users
        return replace(boundary, pieces=((mask, start, view),))
    pieces = tuple(
        (1 << die, (first, *start[1:]), replace(view, dims=(count, *view.dims[1:])))
        for die, (first, count) in enumerate(rows)
    )
    return replace(boundary, pieces=pieces)
