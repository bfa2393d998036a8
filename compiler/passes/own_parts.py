"""Kernels of which every SPC takes a part of its own: some of the samples, and of these bands of rows or columns.

Dimensions over SPCs, one iteration each, come in front of the others. In an SPC's tensor buffer lies what it has of a
tensor: its samples and columns without the others, and its bands where they are in the whole image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from birc.compiler.ir.plan import OWN_DIMENSIONS, SPC, SPC_BANDS, SPC_COLUMNS, Access, Dimension, Index, Kernel, View
from birc.compiler.ir.plan_access import accesses, named_dims, with_statements
from birc.compiler.passes.lower.frame import unit


@dataclass(frozen=True, slots=True)
class Bands:
    """How a dimension is cut into bands that may overlap.

    Of band number b they are the `extent` points from `b * step + start` on. What lies on the SPCs has room for
    `before` rows in front of those of the image, and `after` behind them, which are made and never read.
    """

    name: str
    count: int
    step: int
    extent: int
    start: int
    before: int
    after: int


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
    bands: Bands | None = None


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
    if parts.bands is not None:
        if not _has_bands(kernel, parts.bands):
            return None
        kernel = _in_bands(kernel, parts.bands)
    reached = [access for access in accesses(kernel) if access.view.buffer == local]
    if any(access.view.offset >= parts.pitch or access.view.seen for access in reached):
        return None
    if any(s > 1 and s % parts.pitch for access in reached for s, own in _strides(access) if not own):
        return None
    made = {s.access for phase in kernel.phases for s in phase.statements if s.op == "vst"}

    def on_its_own(access: Access) -> Access:
        if access not in reached:
            return access
        alone = _without_others(access, parts.pitch, share)
        return alone if parts.bands is None else _with_margin(alone, parts.bands, access in made)

    return with_statements(kernel, on_its_own)


def can_be_cut(kernel: Kernel, name: str, count: int) -> bool:
    """Whether a dimension can be two, the outer one with so many iterations: all accesses move with it alone."""
    extent, place = kernel.dimension(name).extent, [d.name for d in kernel.par_dims].index(name)
    statements = [s for phase in kernel.phases for s in phase.statements]
    if extent % count or name in named_dims(kernel):
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
        is_apart = name not in (*contraction.row_dims, *contraction.column_dims) and all(
            (*(axis < contraction.rows for axis in of_a), *(axis < contraction.depth for axis in of_b))
        )
        if not (is_row or is_column or is_apart):
            return False
    return all(
        access.index[axis] == unit(name) and access.view.dims[axis] == extent and not access.view.lower
        for access in accesses(kernel)
        for axis in _axes(access, name)
    )


def _has_bands(kernel: Kernel, bands: Bands) -> bool:
    """Whether a dimension can be cut into bands: nothing is computed over the whole of it."""
    statements = [s for phase in kernel.phases for s in phase.statements]
    of_contraction = kernel.contraction is None or bands.name in kernel.contraction.row_dims
    vector = [s.access for s in statements if s.access is not None]
    plain = all(len(access.index) == len(kernel.par_dims) for access in vector)
    return (
        of_contraction
        and plain
        and bands.name not in named_dims(kernel)
        and not any(s.op == "vldx" for s in statements)
    )


def _in_bands(kernel: Kernel, bands: Bands) -> Kernel:
    """The kernel with bands of a dimension; the one that counts them comes behind that over samples."""

    def moved(index: Index) -> Index:
        factor = dict(index.terms).get(bands.name)
        if factor is None:
            return index
        return Index(((SPC_BANDS, factor * bands.step), *index.terms), index.constant + factor * bands.start)

    def shifted(access: Access) -> Access:
        return replace(access, index=tuple(map(moved, access.index)))

    place = int(any(d.name == SPC for d in kernel.space))

    def wider(access: Access) -> Access:
        view, index = access.view, tuple(map(moved, access.index))
        view = replace(
            view,
            dims=(*view.dims[:place], 1, *view.dims[place:]),
            strides=(*view.strides[:place], 0, *view.strides[place:]),
            lower=(*view.lower[:place], 0, *view.lower[place:]) if view.lower else (),
        )
        return replace(access, view=view, index=(*index[:place], Index(), *index[place:]))

    space = [replace(d, extent=bands.extent) if d.name == bands.name else d for d in kernel.space]
    contraction = kernel.contraction
    if contraction is not None:
        contraction = replace(contraction, a=shifted(contraction.a), b=shifted(contraction.b))
    space.insert(place, Dimension(SPC_BANDS, bands.count))
    return replace(with_statements(kernel, wider), space=tuple(space), contraction=contraction)


def _axes(access: Access, name: str) -> list[int]:
    """The axes of an access that move with a dimension."""
    return [axis for axis, index in enumerate(access.index) if name in dict(index.terms)]


def cut(kernel: Kernel, name: str, count: int, over: str) -> Kernel:
    """The kernel with a new first dimension `over` that counts the parts of another one."""
    share = kernel.dimension(name).extent // count

    def of_part(access: Access) -> Access:
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
    cut_kernel = with_statements(kernel, of_part)
    if contraction is not None:
        moves_a, moves_b = (bool(_axes(operand, name)) for operand in (contraction.a, contraction.b))
        contraction = replace(
            contraction,
            a=of_part(contraction.a) if moves_a else contraction.a,
            b=of_part(contraction.b) if moves_b else contraction.b,
            rows=contraction.rows + moves_a,
            depth=contraction.depth + moves_b,
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


def _with_margin(access: Access, bands: Bands, is_made: bool) -> Access:
    """The access to what has room beside the rows of the image; where it is made that belongs to it."""
    view, index = access.view, list(access.index)
    (axis,) = _axes(access, SPC_BANDS)
    if not is_made:
        return replace(access, view=replace(view, offset=bands.before * view.strides[axis]))
    dims = list(view.dims)
    dims[axis] += bands.before + bands.after
    index[axis] = replace(index[axis], constant=index[axis].constant + bands.before)
    return replace(access, view=replace(view, dims=tuple(dims)), index=tuple(index))
