"""The form of a kernel: all that it is but names. What kernels of one form have in common is found once.

Forms are compared and looked up, thousands of them: they are tuples, which is much faster than kernels renamed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, fields
from operator import attrgetter

from birc.compiler.ir.plan import Access, Buffer, Contraction, Dimension, Index, Kernel, Phase, Statement, View

Offset = Callable[[View], int]


def _all_but(kind: type, *names: str) -> Callable[[object], Hashable]:
    """What an object of a class has in all of its fields but some."""
    return attrgetter(*(field.name for field in fields(kind) if field.name not in names))


_OF_KERNEL = _all_but(Kernel, "name", "sources", "macs", "space", "contraction", "phases")
of_dimension = _all_but(Dimension)
"""All of a dimension: plain tuples are compared faster than what they are of."""
_OF_CONTRACTION = _all_but(Contraction, "a", "further", "b")
_OF_PHASE = _all_but(Phase, "statements")
_OF_STATEMENT = _all_but(Statement, "access")
_OF_ACCESS = _all_but(Access, "view", "index")
of_index = _all_but(Index)
"""Likewise of a coordinate."""
_OF_VIEW = _all_but(View, "buffer", "offset")
of_buffer = _all_but(Buffer, "name")
"""What a buffer is but its name."""


def signs_of_zeros(values: Iterable[object]) -> tuple[float, ...]:
    """The signs of the zeros among immediates, which compare as equal."""
    return tuple(math.copysign(1, value) for value in values if isinstance(value, float) and value == 0)


@dataclass(frozen=True, slots=True)
class Form:
    """All of kernels but names, sources and `macs`; and the names of the buffers, by their numbers in it."""

    key: Hashable
    buffers: tuple[str, ...]


def form_of(*kernels: Kernel | None, offset: Offset = attrgetter("offset")) -> Form:
    """The form of a kernel, or of several together; `offset` says from where the views on a buffer count."""
    places: dict[str, int] = {}

    def of_access(access: Access | None) -> Hashable:
        if access is None:
            return None
        view = access.view
        place = places.setdefault(view.buffer, len(places))
        return place, offset(view), _OF_VIEW(view), tuple(map(of_index, access.index)), _OF_ACCESS(access)

    def of_statement(statement: Statement) -> Hashable:
        return of_access(statement.access), _OF_STATEMENT(statement), signs_of_zeros(statement.arguments)

    def of_kernel(kernel: Kernel) -> Hashable:
        contraction = kernel.contraction
        return (
            _OF_KERNEL(kernel),
            tuple(map(of_dimension, kernel.space)),
            contraction and (*map(of_access, contraction.operands), _OF_CONTRACTION(contraction)),
            tuple((_OF_PHASE(phase), tuple(map(of_statement, phase.statements))) for phase in kernel.phases),
        )

    return Form(tuple(kernel and of_kernel(kernel) for kernel in kernels), tuple(places))
