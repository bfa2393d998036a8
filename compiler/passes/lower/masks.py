"""Masks of scores that are constants: only the columns from the first on that they ever cover are loaded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from birc.compiler.ir.plan import Access, Index
from birc.compiler.passes.lower.expression import Builder, Expression


def late_mask(
    b: Builder, data: np.ndarray, load: Expression, column: str, step: int, *, keeps_first: bool
) -> Expression:
    """The load of a condition as one that begins where it first differs from what it mostly is, and is that before.

    `keeps_first`: a condition that holds chooses the score, else one that does not. Columns are taken by whole tiles
    of `step`. What lies before the first of them is outside the view, and reads as the condition that keeps scores.
    """
    kept = (data.astype(bool) == keeps_first).reshape(-1, data.shape[-1]).all(axis=0)
    others = np.flatnonzero(~kept)
    begin = (int(others[0]) if len(others) else 0) // step * step
    access = load.access
    if access is None or not begin:
        return load
    axes = [axis for axis, index in enumerate(access.index) if any(name == column for name, _ in index.terms)]
    if len(axes) != 1 or access.index[axes[0]] != Index(((column, 1),)):
        return load
    return b.load(_from_column(access, axes[0], begin, "highest" if keeps_first else "zero"), load.is_float)


def _from_column(access: Access, axis: int, begin: int, fill: str) -> Access:
    """The access with what lies before `begin` on an axis outside its view."""
    view, index = access.view, access.index[axis]
    dims = (*view.dims[:axis], view.dims[axis] - begin, *view.dims[axis + 1 :])
    moved = Index(index.terms, index.constant - begin)
    return Access(
        replace(view, offset=view.offset + begin * view.strides[axis], dims=dims),
        (*access.index[:axis], moved, *access.index[axis + 1 :]),
        fill,
    )
