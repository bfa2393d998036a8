"""Plans with one fault: what decides where a plan reads and writes, changed in ways that a scheduler may get wrong.

`mutants(plan)` gives every change of a finished plan that its data structures allow. A mutant need not be wrong: some
are other valid plans.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from birc.compiler.ir.plan import (
    PAR,
    Access,
    Boundary,
    Buffer,
    Contraction,
    CopyStep,
    Exchange,
    ExchangeStep,
    FillStep,
    Index,
    Kernel,
    KernelStep,
    Phase,
    Plan,
    Statement,
    Step,
    View,
)


@dataclass(frozen=True)
class Mutant:
    """A changed plan: `kind` is the class of fault, `change` says where and how."""

    kind: str
    change: str
    plan: Plan


Change = tuple[str, str, object]  # kind, text, changed part


def mutants(plan: Plan) -> Iterator[Mutant]:
    """Every mutant of a plan, in a fixed order."""
    for number, step in enumerate(plan.steps):
        for kind, text, changed in _steps(step):
            steps = (*plan.steps[:number], *changed, *plan.steps[number + 1 :])
            yield Mutant(kind, f"step {number}: {text}", replace(plan, steps=steps))
    for number, buffer in enumerate(plan.buffers):
        for kind, text, changed in _buffers(buffer, plan):
            buffers = (*plan.buffers[:number], changed, *plan.buffers[number + 1 :])
            yield Mutant(kind, f"%{buffer.name}: {text}", replace(plan, buffers=buffers))
    for side in ("inputs", "outputs"):
        boundaries = getattr(plan, side)
        for number, boundary in enumerate(boundaries):
            for kind, text, changed in _boundaries(boundary):
                changed_side = (*boundaries[:number], changed, *boundaries[number + 1 :])
                yield Mutant(f"{side[:-1]} {kind}", f"{boundary.name}: {text}", replace(plan, **{side: changed_side}))
    for number, (name, step_bytes) in enumerate(plan.advances):
        for other in (0, step_bytes // 2, step_bytes * 2):
            advances = (*plan.advances[:number], (name, other), *plan.advances[number + 1 :])
            kind = f"{plan.buffer(name).role} advance"
            yield Mutant(kind, f"%{name} advances by {other}", replace(plan, advances=advances))
    if plan.repeat > 1:
        for other in (plan.repeat - 1, plan.repeat + 1):
            yield Mutant("rounds", f"repeat {other}", replace(plan, repeat=other))


def _steps(step: Step) -> Iterator[tuple[str, str, tuple[Step, ...]]]:
    yield f"drop {type(step).__name__}", "dropped", ()
    match step:
        case CopyStep(source, target):
            yield "copy", "turned round", (replace(step, source=target, target=source),)
        case FillStep():
            yield from _fills(step)
        case ExchangeStep(exchanges):
            for number, exchange in enumerate(exchanges):
                for kind, text, changed in _exchanges(exchange):
                    kept = (*exchanges[:number], *changed, *exchanges[number + 1 :])
                    yield kind, f"exchange {number} {text}", (ExchangeStep(kept),)
        case KernelStep(kernels):
            if len(set(kernels)) > 1:
                yield "die parts swapped", "swapped", (KernelStep(tuple(reversed(kernels))),)
            for die, kernel in enumerate(kernels):
                if kernel is None:
                    continue
                without = (*kernels[:die], None, *kernels[die + 1 :])
                yield "missing part", f"die {die} idle", (KernelStep(without),)
                for other in kernels:
                    if other is not None and other != kernel:
                        wrong = (*kernels[:die], other, *kernels[die + 1 :])
                        yield "wrong die part", f"die {die} runs the other's", (KernelStep(wrong),)
                for kind, text, changed in _kernels(kernel):
                    # Dies that run the same kernel run the same mutant.
                    run = tuple(changed if other == kernel else other for other in kernels)
                    yield kind, f"{kernel.name}: {text}", (KernelStep(run),)


def _fills(step: FillStep) -> Iterator[tuple[str, str, tuple[Step, ...]]]:
    for kind, text, view in _views(step.source):
        yield f"fill source {kind}", text, (replace(step, source=view),)
    for kind, text, view in _views(step.target):
        yield f"fill target {kind}", text, (replace(step, target=view),)
    for dies in (1, 2, 3):
        if dies != step.dies:
            yield "fill dies", f"on dies {dies}", (replace(step, dies=dies),)


def _exchanges(exchange: Exchange) -> Iterator[tuple[str, str, tuple[Exchange, ...]]]:
    yield "exchange dropped", "dropped", ()
    yield "exchange sender", "from the other die", (replace(exchange, sender=1 - exchange.sender),)
    for kind, text, view in _views(exchange.view):
        yield f"exchange {kind}", text, (replace(exchange, view=view),)


def _kernels(kernel: Kernel) -> Iterator[tuple[str, str, Kernel]]:
    for number, dimension in enumerate(kernel.space):
        for extent in (dimension.extent - 1, dimension.extent + 1, 2 * dimension.extent):
            if extent > 0:
                space = (*kernel.space[:number], replace(dimension, extent=extent), *kernel.space[number + 1 :])
                kind = "larger extent" if extent > dimension.extent else "smaller extent"
                kind = kind if dimension.kind == PAR else "reduced extent"
                yield kind, f"{dimension.name} {extent}", replace(kernel, space=space)
    yield from _tilings(kernel)
    if kernel.contraction is not None:
        for operand in ("a", "b"):
            for kind, text, access in _accesses(getattr(kernel.contraction, operand)):
                changed = replace(kernel.contraction, **{operand: access})
                yield f"operand {kind}", f"{operand} {text}", replace(kernel, contraction=changed)
        for kind, text, contraction in _panels(kernel.contraction):
            yield f"panel {kind}", text, replace(kernel, contraction=contraction)
    for phase_number, phase in enumerate(kernel.phases):
        for number, statement in enumerate(phase.statements):
            for kind, text, changed in _statements(statement):
                statements = (*phase.statements[:number], changed, *phase.statements[number + 1 :])
                phases = (
                    *kernel.phases[:phase_number],
                    Phase(statements, phase.loops),
                    *kernel.phases[phase_number + 1 :],
                )
                yield kind, f"{statement.op} {number} {text}", replace(kernel, phases=phases)


def _panels(contraction: Contraction) -> Iterator[tuple[str, str, Contraction]]:
    panels = contraction.panels
    for number, panel in enumerate(contraction.further):
        others = (*contraction.further[:number], *contraction.further[number + 1 :])
        yield "dropped", f"without panel {number + 1}", replace(contraction, further=others)
        for kind, text, access in _accesses(panel):
            further = (*contraction.further[:number], access, *contraction.further[number + 1 :])
            what = "depth " if access.index[-1] != panel.index[-1] else ""
            yield kind, f"panel {number + 1} {what}{text}", replace(contraction, further=further)
    if len(panels) > 1:
        last, *others = reversed(panels)
        yield "order", "the other way round", replace(contraction, a=last, further=tuple(others))


def _tilings(kernel: Kernel) -> Iterator[tuple[str, str, Kernel]]:
    tiling = kernel.tiling
    if tiling is None:
        return
    for name, extent in tiling.tile:
        for other in (extent - 1, extent + 1):
            if 1 <= other <= kernel.dimension(name).extent:
                tile = tuple((n, other if n == name else e) for n, e in tiling.tile)
                yield "tile", f"tile {name} {other}", replace(kernel, tiling=replace(tiling, tile=tile))


def _statements(statement: Statement) -> Iterator[tuple[str, str, Statement]]:
    if statement.access is None:
        return
    noun = "store" if statement.op == "vst" else "load"
    for kind, text, access in _accesses(statement.access):
        yield f"{noun} {kind}", text, replace(statement, access=access)
    if statement.op == "vldx":
        for count in (statement.index_count + 1, 2 * statement.index_count):
            yield "index count", f"count {count}", replace(statement, index_count=count)


def _accesses(access: Access) -> Iterator[tuple[str, str, Access]]:
    for kind, text, view in _views(access.view):
        yield kind, text, replace(access, view=view)
    for axis, index in enumerate(access.index):
        for kind, text, changed in _indices(index):
            indices = (*access.index[:axis], changed, *access.index[axis + 1 :])
            yield kind, f"axis {axis} {text}", replace(access, index=indices)


def _indices(index: Index) -> Iterator[tuple[str, str, Index]]:
    for constant in (index.constant - 1, index.constant + 1):
        yield "coordinate", f"constant {constant}", replace(index, constant=constant)
    for number, (name, factor) in enumerate(index.terms):
        without = (*index.terms[:number], *index.terms[number + 1 :])
        yield "overlapping par", f"without {name}", replace(index, terms=without)
        doubled = (*index.terms[:number], (name, 2 * factor), *index.terms[number + 1 :])
        yield "factor", f"{2 * factor} {name}", replace(index, terms=doubled)


def _views(view: View) -> Iterator[tuple[str, str, View]]:
    for offset in (view.offset - 1, view.offset + 1):
        yield "offset", f"offset {offset}", replace(view, offset=offset)
    for axis, extent in enumerate(view.dims):
        for other in (extent - 1, extent + 1):
            if other > 0:
                dims = (*view.dims[:axis], other, *view.dims[axis + 1 :])
                yield "view extent", f"dims {list(dims)}", replace(view, dims=dims)
    for axis, (one, other) in enumerate(zip(view.strides, view.strides[1:], strict=False)):
        if one != other and view.dims[axis] > 1 and view.dims[axis + 1] > 1:
            strides = (*view.strides[:axis], other, one, *view.strides[axis + 2 :])
            # Of equal extents it is another order of the same elements.
            kind = "swapped strides" if view.dims[axis] != view.dims[axis + 1] else "transposed"
            yield kind, f"strides {list(strides)}", replace(view, strides=strides)
    for axis, stride in enumerate(view.strides):
        if view.dims[axis] > 1:
            for other in (0, 2 * stride):
                strides = (*view.strides[:axis], other, *view.strides[axis + 1 :])
                yield "stride", f"strides {list(strides)}", replace(view, strides=strides)


def _buffers(buffer: Buffer, plan: Plan) -> Iterator[tuple[str, str, Buffer]]:
    if buffer.last > buffer.first:
        yield "lifetime", f"dies in {buffer.last - 1}", replace(buffer, last=buffer.last - 1)
        yield "lifetime", f"born in {buffer.first + 1}", replace(buffer, first=buffer.first + 1)
    yield "size", "one byte less", replace(buffer, num_bytes=buffer.num_bytes - 1)
    for other in plan.buffers:
        if other.space == buffer.space and other.name != buffer.name and other.address != buffer.address:
            yield "address", f"at %{other.name}", replace(buffer, address=other.address)


def _boundaries(boundary: Boundary) -> Iterator[tuple[str, str, Boundary]]:
    for number, (dies, start, view) in enumerate(boundary.pieces):

        def instead(*pieces: object, number: int = number) -> Boundary:
            return replace(boundary, pieces=(*boundary.pieces[:number], *pieces, *boundary.pieces[number + 1 :]))

        yield "missing piece", f"without piece {number}", instead()
        for other in (1, 2, 3):
            if other != dies:
                yield "dies of a piece", f"piece {number} on {other}", instead((other, start, view))
        for axis, first in enumerate(start):
            moved = (*start[:axis], first + 1, *start[axis + 1 :])
            yield "start of a piece", f"piece {number} from {list(moved)}", instead((dies, moved, view))
        for kind, text, changed in _views(view):
            if kind in ("offset", "swapped strides", "transposed", "stride"):
                yield kind, f"piece {number} {text}", instead((dies, start, changed))
