"""Kernels over images of which every SPC takes a part of its own: some of the images, and of these a band of rows.

Dimensions over SPCs, one iteration each, come in front of the others. Bands may overlap: windows of neighbours reach
the same rows. Of what is made in such bands an SPC holds its images whole, with its bands where they are in them; of
what is made in bands that are apart it holds its own alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from birc.compiler.ir.plan import OWN_DIMENSIONS, SPC, SPC_BANDS, Access, Dimension, Index, Kernel
from birc.compiler.ir.plan_access import accesses, named_dims, with_accesses, with_statements
from birc.compiler.passes.lower.frame import unit
from birc.compiler.passes.own_parts import can_be_cut, cut


@dataclass(frozen=True, slots=True)
class Rows:
    """The dimensions of a kernel that count what it makes: `images`, and `rows` of each, `width` points a row.

    Without a dimension `image` there is one image, or `row` counts the rows of all.
    """

    image: str
    row: str
    width: int
    images: int
    rows: int


@dataclass(frozen=True, slots=True)
class Held:
    """What each SPC has of a tensor of images with so many `rows`.

    Of band number b these are `extent` rows from `b * rows / bands + start` on.
    """

    rows: int
    bands: int
    start: int
    extent: int

    @property
    def share(self) -> int:
        """Rows from one band to the next."""
        return self.rows // self.bands

    @property
    def is_apart(self) -> bool:
        """Whether no row is on two SPCs."""
        return (self.start, self.extent) == (0, self.share)

    @property
    def before(self) -> int:
        """Rows in front of those of the image, which are made and never read."""
        return max(0, -self.start)

    @property
    def after(self) -> int:
        """The same behind them."""
        return max(0, self.start + self.extent - self.share)


def in_own_images(kernel: Kernel, of: Rows, made: Held, local: Mapping[str, Held]) -> Kernel | None:
    """The kernel with a part an SPC, which has its own alone of `local` buffers; None when it cannot be cut so."""
    if kernel.has_own_parts:
        return None
    if any(a.view.buffer in local and (a.view.offset or a.view.seen or a.view.lower) for a in accesses(kernel)):
        return None
    reads_overlapping = any(
        not local[a.view.buffer].is_apart and unit(of.row) in a.index
        for a in accesses(kernel)
        if a.view.buffer in local
    )
    in_parts = _overlapping(kernel, of, made) if reads_overlapping or not made.is_apart else _apart(kernel, of, made)
    if in_parts is None:
        return None
    stored = {s.access for phase in in_parts.phases for s in phase.statements if s.op == "vst"}

    def on_its_own(access: Access) -> Access:
        held = local.get(access.view.buffer)
        return access if held is None else _alone(access, held, of.width if access in stored else 0)

    return with_accesses(in_parts, on_its_own)


def _apart(kernel: Kernel, of: Rows, made: Held) -> Kernel | None:
    """The kernel with bands of which none has rows of another one."""
    cuts = [(of.row, made.bands, SPC_BANDS), (of.image, of.images, SPC)]
    if not of.image:
        cuts = [(of.row, made.bands * of.images, SPC if of.images > 1 else SPC_BANDS)]
    for name, count, over in cuts:
        if name and count > 1:
            if not can_be_cut(kernel, name, count, has_windows=True):
                return None
            kernel = cut(kernel, name, count, over)
    return kernel


def _overlapping(kernel: Kernel, of: Rows, made: Held) -> Kernel | None:
    """The kernel with bands that have rows of others, too."""
    if of.images > 1:
        if not can_be_cut(kernel, of.image or of.row, of.images):
            return None
        kernel = cut(kernel, of.image or of.row, of.images, SPC)
    return _in_bands(kernel, of, made) if _has_bands(kernel, of.row) else None


def _has_bands(kernel: Kernel, name: str) -> bool:
    """Whether a dimension can be cut into bands: nothing is computed over the whole of it."""
    statements = [s for phase in kernel.phases for s in phase.statements]
    of_contraction = kernel.contraction is None or name in kernel.contraction.row_dims
    vector = [s.access for s in statements if s.access is not None]
    plain = all(len(access.index) == len(kernel.par_dims) for access in vector)
    return of_contraction and plain and name not in named_dims(kernel) and not any(s.op == "vldx" for s in statements)


def _in_bands(kernel: Kernel, of: Rows, made: Held) -> Kernel:
    """The kernel with bands of a dimension; the one that counts them comes behind that over samples."""

    def moved(index: Index) -> Index:
        factor = dict(index.terms).get(of.row)
        if factor is None:
            return index
        step, start = (factor * of.width * rows for rows in (made.share, made.start))
        return Index(((SPC_BANDS, step), *index.terms), index.constant + start)

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

    space = [replace(d, extent=made.extent * of.width) if d.name == of.row else d for d in kernel.space]
    contraction = kernel.contraction
    if contraction is not None:
        contraction = contraction.changed(shifted)
    space.insert(place, Dimension(SPC_BANDS, made.bands))
    return replace(with_statements(kernel, wider), space=tuple(space), contraction=contraction)


def _alone(access: Access, held: Held, width: int) -> Access:
    """The access to what an SPC holds; `width` are the points in a row of what is stored, 0 where it is read."""
    view, index = access.view, list(access.index)
    dims, strides = list(view.dims), list(view.strides)
    offset = 0
    for axis, coordinate in enumerate(access.index):
        names = dict(coordinate.terms)
        if not names or OWN_DIMENSIONS.isdisjoint(names):
            continue
        if OWN_DIMENSIONS.issuperset(names):
            index[axis], dims[axis], strides[axis] = Index(), 1, 0
        elif held.is_apart:
            terms = tuple(term for term in coordinate.terms if term[0] not in OWN_DIMENSIONS)
            index[axis] = replace(coordinate, terms=terms)
            dims[axis] //= held.bands
        elif width:
            dims[axis] += (held.before + held.after) * width
            index[axis] = replace(coordinate, constant=coordinate.constant + held.before * width)
        else:
            offset = held.before * (dims[axis] * strides[axis] // held.rows)
    return Access(replace(view, offset=offset, dims=tuple(dims), strides=tuple(strides)), tuple(index), access.fill)
