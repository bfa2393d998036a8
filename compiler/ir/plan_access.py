"""Walking over and changing what the kernels of a plan access."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from birc.compiler.ir.plan import Access, Kernel, View


def accesses(kernel: Kernel) -> Iterator[Access]:
    """Every access of a kernel: contraction operands first, then those of statements."""
    if kernel.contraction is not None:
        yield kernel.contraction.a
        yield kernel.contraction.b
    for phase in kernel.phases:
        for statement in phase.statements:
            if statement.access is not None:
                yield statement.access


def with_views(kernel: Kernel, change: Callable[[View], View]) -> Kernel:
    """The kernel with every view changed."""

    def changed(access: Access) -> Access:
        return replace(access, view=change(access.view))

    phases = tuple(
        replace(
            phase,
            statements=tuple(s if s.access is None else replace(s, access=changed(s.access)) for s in phase.statements),
        )
        for phase in kernel.phases
    )
    contraction = kernel.contraction
    if contraction is not None:
        contraction = replace(contraction, a=changed(contraction.a), b=changed(contraction.b))
    return replace(kernel, phases=phases, contraction=contraction)
