"""Kernels of which every SPC takes a part of its own: some of the samples, and of these columns.

Dimensions over SPCs, one iteration each, come in front of the others. In an SPC's tensor buffer lies what it has of a
tensor, without the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from birc.compiler.ir.plan import OWN_DIMENSIONS, SPC, SPC_COLUMNS, Access, Dimension, Index, Kernel
from birc.compiler.ir.plan_access import accesses, named_dims, with_statements
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
        if not can_be_cut(kernel, name, count):
            return None
        kernel = cut(kernel, name, count, over)
    reached = [access for access in accesses(kernel) if access.view.buffer == local]
    if any(access.view.offset >= parts.pitch or access.view.seen for access in reached):
        return None
    if any(s > 1 and s % parts.pitch for access in reached for s, own in _strides(access) if not own):
        return None

    def on_its_own(access: Access) -> Access:
        return _without_others(access, parts.pitch, share) if access in reached else access

    return with_statements(kernel, on_its_own)


def can_be_cut(kernel: Kernel, name: str, count: int, *, has_windows: bool = False) -> bool:
    """Whether a dimension can be two, the outer one with so many iterations: all accesses move with it alone.

    Those of a kernel that `has_windows` may move with other ones, too.
    """
    extent, place = kernel.dimension(name).extent, [d.name for d in kernel.par_dims].index(name)
    statements = [s for phase in kernel.phases for s in phase.statements]
    if extent % count or name in named_dims(kernel):
        return False
    if any(s.op == "vldx" for s in statements):
        return False
    vector = [s.access for s in statements if s.access is not None]
    if any(len(access.index) != len(kernel.par_dims) for access in vector):
        return False
    if any(axis != place for access in vector for axis in axes_of(access, name)):
        return False
    contraction = kernel.contraction
    if contraction is not None:
        of_a = [axis for panel in contraction.panels for axis in axes_of(panel, name)]
        of_b = axes_of(contraction.b, name)
        is_row = name in contraction.row_dims and not of_b and all(axis < contraction.rows for axis in of_a)
        is_column = name == contraction.column and not of_a and all(axis >= contraction.depth for axis in of_b)
        is_apart = name not in (*contraction.row_dims, *contraction.column_dims) and all(
            (*(axis < contraction.rows for axis in of_a), *(axis < contraction.depth for axis in of_b))
        )
        if not (is_row or is_column or is_apart):
            return False
    return all(
        (access.index[axis] == unit(name) and access.view.dims[axis] == extent and not any(access.view.lower))
        or (has_windows and access.index[axis] != unit(name))
        for access in accesses(kernel)
        for axis in axes_of(access, name)
    )


def axes_of(access: Access, name: str) -> list[int]:
    """The axes of an access that move with a dimension."""
    return [axis for axis, index in enumerate(access.index) if name in dict(index.terms)]


def cut(kernel: Kernel, name: str, count: int, over: str) -> Kernel:
    """The kernel with a new first dimension `over` that counts the parts of another one.

    Accesses get an axis for it; in what moves with other dimensions, too, the coordinate moves on instead.
    """
    share = kernel.dimension(name).extent // count

    def is_split(access: Access) -> bool:
        axes = axes_of(access, name)
        return bool(axes) and all(access.index[axis] == unit(name) for axis in axes)

    def moved(access: Access) -> Access:
        """The access without an axis for the new dimension."""
        index = list(access.index)
        for axis in axes_of(access, name):
            factor = dict(index[axis].terms)[name]
            index[axis] = replace(index[axis], terms=((over, factor * share), *index[axis].terms))
        return replace(access, index=tuple(index))

    def of_part(access: Access) -> Access:
        split = is_split(access)
        axes, view = axes_of(access, name) if split else [], access.view
        stride = sum(view.strides[axis] for axis in axes) * share
        dims = tuple(share if axis in axes else extent for axis, extent in enumerate(view.dims))
        wider = replace(
            view,
            dims=(count if split else 1, *dims),
            strides=(stride, *view.strides),
            lower=(0, *view.lower) if view.lower else (),
        )
        index = access.index if split else moved(access).index
        return Access(wider, (unit(over) if split else Index(), *index), access.fill)

    space = tuple(replace(d, extent=share) if d.name == name else d for d in kernel.space)
    contraction = kernel.contraction
    cut_kernel = with_statements(kernel, of_part)
    if contraction is not None:
        contraction = replace(
            contraction.changed(lambda access: of_part(access) if is_split(access) else moved(access)),
            rows=contraction.rows + is_split(contraction.a),
            depth=contraction.depth + is_split(contraction.b),
        )
    return replace(cut_kernel, space=(Dimension(over, count), *space), contraction=contraction)


def _strides(access: Access) -> list[tuple[int, bool]]:
    """The stride of each axis, and whether it counts parts."""
    return [
        (stride, bool(index.terms) and OWN_DIMENSIONS.issuperset(dict(index.terms)))
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
