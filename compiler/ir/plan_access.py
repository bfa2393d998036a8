"""Walking over and changing what the kernels of a plan access."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from birc.compiler.ir.plan import Access, FillStep, Index, Kernel, KernelStep, Phase, Plan, Statement, Step, View


def accesses(kernel: Kernel) -> Iterator[Access]:
    """Every access of a kernel: contraction operands first, then those of statements."""
    if kernel.contraction is not None:
        yield from kernel.contraction.operands
    for phase in kernel.phases:
        for statement in phase.statements:
            if statement.access is not None:
                yield statement.access


def accesses_of(kernel: Kernel) -> Iterator[tuple[str, Access]]:
    """The accesses of a kernel, each with the operand ("a", "b") or the op that it belongs to."""
    if kernel.contraction is not None:
        yield from (("a", panel) for panel in kernel.contraction.panels)
        yield "b", kernel.contraction.b
    for phase in kernel.phases:
        yield from ((s.op, s.access) for s in phase.statements if s.access is not None)


def named_dims(kernel: Kernel) -> set[str]:
    """The dimensions that statements or phases name: they keep their identity."""
    named = {name for phase in kernel.phases for name in phase.loops}
    return named | {name for phase in kernel.phases for s in phase.statements for name in s.dims}


def dims_taken(kernel: Kernel) -> dict[int, frozenset[str]]:
    """By identity of each statement the dimensions along which it takes elements: those that its operands differ by."""
    taken: dict[int, frozenset[str]] = {}
    made: dict[str, frozenset[str]] = {}
    everywhere = frozenset(d.name for d in kernel.par_dims)
    for phase in kernel.phases:
        for s in phase.statements:
            dims = frozenset().union(*(made[a] for a in s.arguments if isinstance(a, str)))
            if s.access is not None:
                dims |= {name for index in s.access.index for name, _ in index.terms}
            taken[id(s)] = dims = everywhere if s.op == "vacc" else dims
            made[s.result] = dims - frozenset(s.dims) if s.op.startswith("vred") else dims
    return taken


def axis_alone(access: Access, name: str) -> int | None:
    """The axis of an access that a dimension alone counts, if it moves no other one; None where there is none."""
    axes = [axis for axis, index in enumerate(access.index) if name in dict(index.terms)]
    return axes[0] if len(axes) == 1 and access.index[axes[0]] == Index(((name, 1),)) else None


def step_alone(kernel: Kernel, access: Access, name: str) -> int:
    """The elements by which a dimension alone moves an access; 0 when it does not, or others do."""
    view, axis = access.view, axis_alone(access, name)
    return 0 if axis is None or view.dims[axis] != kernel.dimension(name).extent else view.strides[axis]


def views_by_buffer(plan: Plan) -> dict[str, list[dict[View, None]]]:
    """The views that each die has of each buffer that its kernels touch, or its tensor buffers are filled from, in the
    order of the steps."""
    found: dict[str, list[dict[View, None]]] = {}
    for step in plan.steps:
        for die in range(plan.dies):
            for view in _views(step, die):
                found.setdefault(view.buffer, [{} for _ in range(plan.dies)])[die][view] = None
    return found


def _views(step: Step, die: int) -> Iterator[View]:
    """What a step touches on a die but by exchanges and copies of whole buffers."""
    match step:
        case KernelStep(kernels) if (kernel := kernels[die]) is not None:
            yield from (access.view for access in accesses(kernel))
        case FillStep(source, target, dies) if dies >> die & 1:
            yield from (source, target)
        case _:
            return


def with_statements(kernel: Kernel, change: Callable[[Access], Access]) -> Kernel:
    """The kernel with every access of its statements changed; those of a contraction are not."""
    phases = _with_all_accesses(kernel.phases, change)
    return kernel if phases is kernel.phases else replace(kernel, phases=phases)


def _with_all_accesses(before: tuple[Phase, ...], change: Callable[[Access], Access]) -> tuple[Phase, ...]:
    """The phases with every access changed; the same ones when none is."""
    phases = tuple(_with_accesses(phase, change) for phase in before)
    is_same = all(one is other for one, other in zip(phases, before, strict=True))
    return before if is_same else phases


def _with_accesses(phase: Phase, change: Callable[[Access], Access]) -> Phase:
    """The phase with every access changed; the same one when none is."""
    statements = tuple(map(partial(_with_access, change), phase.statements))
    is_same = all(one is other for one, other in zip(statements, phase.statements, strict=True))
    return phase if is_same else Phase(statements, phase.loops)


def _with_access(change: Callable[[Access], Access], s: Statement) -> Statement:
    access = s.access and change(s.access)
    if access is s.access:
        return s
    return Statement(s.op, s.result, s.arguments, access, s.dims, s.index_axis, s.index_count)


def with_accesses(kernel: Kernel, change: Callable[[Access], Access]) -> Kernel:
    """The kernel with every access changed."""
    phases, contraction = _with_all_accesses(kernel.phases, change), kernel.contraction
    if contraction is not None:
        contraction = contraction.changed(change)
    if phases is kernel.phases and contraction is kernel.contraction:
        return kernel
    return replace(kernel, phases=phases, contraction=contraction)


def with_views(kernel: Kernel, change: Callable[[View], View]) -> Kernel:
    """The kernel with every view changed."""

    def changed(access: Access) -> Access:
        view = change(access.view)
        return access if view is access.view else Access(view, access.index, access.fill)

    return with_accesses(kernel, changed)


def moved(view: View, buffer: str, offset: int) -> View:
    """The view of another buffer, or from another element on; the same one when it is that already."""
    if offset == view.offset and buffer == view.buffer:
        return view
    return View(buffer, offset, view.dims, view.strides, view.lower, view.seen, view.word, view.away)
