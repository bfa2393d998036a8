"""Cutting a kernel: the same computation on a part of one par dimension."""

from __future__ import annotations

from dataclasses import replace

from birc.compiler.ir.plan import Access, Dimension, Index, Kernel, Phase


def restrict(kernel: Kernel, name: str, start: int, extent: int, suffix: str = "") -> Kernel:
    """The kernel on `start <= name < start + extent`, with coordinates counted from `start`.

    Views are shifted instead of indices, so that parts of equal extent have equal code. Stores are clipped to the
    part: a tile that reaches beyond it writes nothing there.
    """
    dimension = kernel.dimension(name)
    share = extent / dimension.extent

    def load(access: Access) -> Access:
        return _shifted(access, name, start)

    def store(access: Access) -> Access:
        return _clipped(_shifted(access, name, start), name, extent)

    phases = tuple(
        Phase(
            tuple(
                s
                if s.access is None
                else replace(s, access=store(s.access) if s.op == "vst" else load(s.access))
                for s in phase.statements
            ),
            phase.loops,
        )
        for phase in kernel.phases
    )
    contraction = kernel.contraction
    if contraction is not None:
        contraction = replace(contraction, a=load(contraction.a), b=load(contraction.b))
    space = tuple(Dimension(name, extent, d.kind) if d.name == name else d for d in kernel.space)
    return replace(
        kernel,
        name=kernel.name + suffix,
        space=space,
        phases=phases,
        contraction=contraction,
        macs=round(kernel.macs * share),
    )


def pieces(extent: int, largest: int) -> list[tuple[int, int]]:
    """(start, extent) of the fewest nearly equal parts of at most `largest`."""
    count = -(-extent // largest)
    part = -(-extent // count)
    return [(start, min(part, extent - start)) for start in range(0, extent, part)]


def _shifted(access: Access, name: str, start: int) -> Access:
    if not start:
        return access
    view = access.view
    lower = list(view.lower or (0,) * len(view.dims))
    offset = view.offset
    for axis, index in enumerate(access.index):
        factor = _factor(index, name)
        lower[axis] -= factor * start
        offset += factor * start * view.strides[axis]
    return replace(access, view=replace(view, offset=offset, lower=tuple(lower) if any(lower) else ()))


def _clipped(access: Access, name: str, extent: int) -> Access:
    view = access.view
    dims, lower = list(view.dims), list(view.lower or (0,) * len(view.dims))
    for axis, index in enumerate(access.index):
        if index == Index(((name, 1),)):
            lower[axis] = 0
            dims[axis] = extent
    return replace(access, view=replace(view, dims=tuple(dims), lower=tuple(lower) if any(lower) else ()))


def _factor(index: Index, name: str) -> int:
    return sum(factor for term, factor in index.terms if term == name)
