"""Walking over and changing what the kernels of a plan access."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from birc.compiler.ir.plan import Access, Index, Kernel, KernelStep, Plan, View


def accesses(kernel: Kernel) -> Iterator[Access]:
    """Every access of a kernel: contraction operands first, then those of statements."""
    if kernel.contraction is not None:
        yield kernel.contraction.a
        yield kernel.contraction.b
    for phase in kernel.phases:
        for statement in phase.statements:
            if statement.access is not None:
                yield statement.access


def accesses_of(kernel: Kernel) -> Iterator[tuple[str, Access]]:
    """The accesses of a kernel, each with the operand ("a", "b") or the op that it belongs to."""
    if kernel.contraction is not None:
        yield "a", kernel.contraction.a
        yield "b", kernel.contraction.b
    for phase in kernel.phases:
        yield from ((s.op, s.access) for s in phase.statements if s.access is not None)


def named_dims(kernel: Kernel) -> set[str]:
    """The dimensions that statements or phases name: they keep their identity."""
    named = {name for phase in kernel.phases for name in phase.loops}
    return named | {name for phase in kernel.phases for s in phase.statements for name in s.dims}


def axis_alone(access: Access, name: str) -> int | None:
    """The axis of an access that a dimension alone counts, if it moves no other one; None where there is none."""
    axes = [axis for axis, index in enumerate(access.index) if name in dict(index.terms)]
    return axes[0] if len(axes) == 1 and access.index[axes[0]] == Index(((name, 1),)) else None


def step_alone(kernel: Kernel, access: Access, name: str) -> int:
    """The elements by which a dimension alone moves an access; 0 when it does not, or others do."""
    view, axis = access.view, axis_alone(access, name)
    return 0 if axis is None or view.dims[axis] != kernel.dimension(name).extent else view.strides[axis]


def views_by_buffer(plan: Plan) -> dict[str, list[dict[View, None]]]:
    """The views that the kernels of each die have of each buffer that they touch, in the order of the steps."""
    found: dict[str, list[dict[View, None]]] = {}
    for step in plan.steps:
        for die, kernel in enumerate(step.kernels if isinstance(step, KernelStep) else ()):
            for access in accesses(kernel) if kernel is not None else ():
                by_die = found.setdefault(access.view.buffer, [{} for _ in range(plan.dies)])
                by_die[die][access.view] = None
    return found


def with_statements(kernel: Kernel, change: Callable[[Access], Access]) -> Kernel:
    """The kernel with every access of its statements changed; those of a contraction are not."""
    phases = tuple(
        replace(
            phase,
            statements=tuple(s if s.access is None else replace(s, access=change(s.access)) for s in phase.statements),
        )
        for phase in kernel.phases
    )
    return replace(kernel, phases=phases)


def with_accesses(kernel: Kernel, change: Callable[[Access], Access]) -> Kernel:
    """The kernel with every access changed."""
    kernel, contraction = with_statements(kernel, change), kernel.contraction
    if contraction is not None:
        contraction = replace(contraction, a=change(contraction.a), b=change(contraction.b))
    return replace(kernel, contraction=contraction)


def with_views(kernel: Kernel, change: Callable[[View], View]) -> Kernel:
    """The kernel with every view changed."""
    return with_accesses(kernel, lambda access: replace(access, view=change(access.view)))
