"""Cutting a kernel: the same computation on a part of one par dimension."""

from __future__ import annotations

from dataclasses import replace

from birc.compiler.ir.plan import Access, Dimension, Index, Kernel, Phase, Statement, View
from birc.compiler.ir.region import tight


def restrict(kernel: Kernel, name: str, start: int, extent: int, suffix: str = "") -> Kernel:
    """The kernel on `start <= name < start + extent`, with coordinates counted from `start`.

    Views are shifted instead of indices, so that parts of equal extent have equal code, and cut down to what the part
    reaches: a tile that reaches beyond it finds nothing there to write.
    """
    dimension = kernel.dimension(name)
    share = extent / dimension.extent

    sizes = {d.name: d.extent for d in kernel.space} | {name: extent}

    def cut(access: Access, indexed: int | None = None) -> Access:
        shifted = _shifted(access, name, start)
        return tight(shifted, sizes, indexed)

    def of_statement(s: Statement) -> Statement:
        access = s.access and cut(s.access, s.index_axis if s.op == "vldx" else None)
        return s if access is s.access else replace(s, access=access)

    phases = tuple(Phase(tuple(map(of_statement, phase.statements)), phase.loops) for phase in kernel.phases)
    contraction = kernel.contraction
    if contraction is not None:
        contraction = contraction.changed(cut)
    space = tuple(Dimension(name, extent, d.kind) if d.name == name else d for d in kernel.space)
    return replace(
        kernel,
        name=kernel.name + suffix,
        space=space,
        phases=phases,
        contraction=contraction,
        macs=round(kernel.macs * share),
    )


def even_part(extent: int, largest: int) -> int:
    """The extent of the fewest nearly equal parts of at most `largest`."""
    count = -(-extent // largest)
    return -(-extent // count)


def pieces(extent: int, largest: int, unit: int = 1) -> list[tuple[int, int]]:
    """(start, extent) of the fewest nearly equal parts of at most `largest`; all but the last of units if they fit."""
    part = even_part(extent, largest)
    in_units = -(-part // unit) * unit
    part = in_units if in_units <= largest else part
    return [(start, min(part, extent - start)) for start in range(0, extent, part)]


def _shifted(access: Access, name: str, start: int) -> Access:
    if not start:
        return access
    view = access.view
    if all(not _factor(index, name) for index in access.index):
        return access
    lower = list(view.lower or (0,) * len(view.dims))
    offset = view.offset
    for axis, index in enumerate(access.index):
        factor = _factor(index, name)
        lower[axis] -= factor * start
        offset += factor * start * view.strides[axis]
    lower_ends = tuple(lower) if any(lower) else ()
    cut = View(view.buffer, offset, view.dims, view.strides, lower_ends, view.seen, view.word, view.away)
    return Access(cut, access.index, access.fill)


def _factor(index: Index, name: str) -> int:
    return sum(factor for term, factor in index.terms if term == name)
