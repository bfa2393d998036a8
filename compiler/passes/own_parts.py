"""Kernels of which every SPC takes a part of its own: some of the rows, some of the columns.

Two dimensions over SPCs, one iteration each, come in front of the others; what a part has in the SPC's tensor buffer
lies there without the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from birc.compiler.ir.plan import OWN_DIMENSIONS, SPC, SPC_COLUMNS, Access, Dimension, Index, Kernel, View
from birc.compiler.ir.plan_access import accesses
from birc.compiler.passes.lower.frame import unit


@dataclass(frozen=True, slots=True)
class Parts:
    """In how many parts the dimensions `row` and `column` of a kernel are cut; either may stay whole (one part).

    `pitch` are the elements from one row of the tensor that stays on the SPCs to the next, as it lies in whole.
    """

    row: str
    rows: int
    column: str
    columns: int
    pitch: int


def in_own_parts(kernel: Kernel, parts: Parts, local: str) -> Kernel | None:
    """The kernel with a part an SPC, of which the buffer `local` has only that; None when it cannot be cut so.

    The last axis of `local` is the one along `parts.column`.
    """
    share = kernel.dimension(parts.column).extent // parts.columns
    for name, count, over in ((parts.column, parts.columns, SPC_COLUMNS), (parts.row, parts.rows, SPC)):
        if count == 1:
            continue
        if not _can_be_cut(kernel, name, count):
            return None
        kernel = _cut(kernel, name, count, over)
    reached = [access for access in accesses(kernel) if access.view.buffer == local]
    if any(access.view.offset >= parts.pitch or access.view.seen for access in reached):
        return None
    if any(s > 1 and s % parts.pitch for access in reached for s, own in _strides(access) if not own):
        return None
    return _changed(kernel, lambda access: _without_others(access, parts.pitch, share) if access in reached else access)


def _can_be_cut(kernel: Kernel, name: str, count: int) -> bool:
    """Whether a dimension can be two, the outer one with so many iterations: all accesses move with it alone."""
    extent, place = kernel.dimension(name).extent, [d.name for d in kernel.par_dims].index(name)
    statements = [s for phase in kernel.phases for s in phase.statements]
    if extent % count or any(name in phase.loops for phase in kernel.phases) or any(name in s.dims for s in statements):
        return False
    if any(s.op == "vldx" for s in statements):
        return False
    vector = [s.access for s in statements if s.access is not None]
    if any(len(access.index) != len(kernel.par_dims) for access in vector):
        return False
    if any(axis != place for access in vector for axis in _axes(access, name)):
        return False
    contraction = kernel.contraction
    if contraction is not None:
        of_a, of_b = _axes(contraction.a, name), _axes(contraction.b, name)
        is_row = name in contraction.row_dims and not of_b and all(axis < contraction.rows for axis in of_a)
        is_column = name in contraction.column_dims and not of_a and all(axis >= contraction.depth for axis in of_b)
        if not (is_row or is_column):
            return False
    return all(
        access.index[axis] == unit(name) and access.view.dims[axis] == extent and not access.view.lower
        for access in accesses(kernel)
        for axis in _axes(access, name)
    )


def _axes(access: Access, name: str) -> list[int]:
    """The axes of an access that move with a dimension."""
    return [axis for axis, index in enumerate(access.index) if name in dict(index.terms)]


def _cut(kernel: Kernel, name: str, count: int, over: str) -> Kernel:
    """The kernel with a new first dimension `over` that counts the parts of another one."""
    share = kernel.dimension(name).extent // count

    def cut(access: Access) -> Access:
        axes, view = _axes(access, name), access.view
        stride = sum(view.strides[axis] for axis in axes) * share
        dims = tuple(share if axis in axes else extent for axis, extent in enumerate(view.dims))
        wider = View(
            view.buffer,
            view.offset,
            (count if axes else 1, *dims),
            (stride, *view.strides),
            (0, *view.lower) if view.lower else (),
            view.seen,
            view.word,
        )
        return Access(wider, (unit(over) if axes else Index(), *access.index), access.fill)

    space = tuple(replace(d, extent=share) if d.name == name else d for d in kernel.space)
    contraction = kernel.contraction
    cut_kernel = _changed(kernel, cut)
    if contraction is not None:
        moves_a = bool(_axes(contraction.a, name))
        contraction = replace(
            contraction,
            a=cut(contraction.a) if moves_a else contraction.a,
            b=contraction.b if moves_a else cut(contraction.b),
            rows=contraction.rows + moves_a,
            depth=contraction.depth + (not moves_a),
        )
    return replace(cut_kernel, space=(Dimension(over, count), *space), contraction=contraction)


def _strides(access: Access) -> list[tuple[int, bool]]:
    """The stride of each axis, and whether it counts parts."""
    return [
        (stride, bool(dict(index.terms).keys() & OWN_DIMENSIONS))
        for stride, index in zip(access.view.strides, access.index, strict=True)
    ]


def _without_others(access: Access, pitch: int, share: int) -> Access:
    """The access of the SPC's part alone, of which a row has `share` elements."""
    strides = _strides(access)
    view = replace(
        access.view,
        offset=0,
        dims=tuple(1 if own else extent for (_, own), extent in zip(strides, access.view.dims, strict=True)),
        strides=tuple(0 if own else stride if stride == 1 else stride // pitch * share for stride, own in strides),
    )
    index = tuple(Index() if own else index for (_, own), index in zip(strides, access.index, strict=True))
    return Access(view, index, access.fill)


def _changed(kernel: Kernel, change: Callable[[Access], Access]) -> Kernel:
    """The kernel with every access changed; those of a contraction are not."""
    phases = tuple(
        replace(
            phase,
            statements=tuple(s if s.access is None else replace(s, access=change(s.access)) for s in phase.statements),
        )
        for phase in kernel.phases
    )
    return replace(kernel, phases=phases)
