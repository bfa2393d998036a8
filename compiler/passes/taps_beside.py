"""Kernels that fold a window whose taps along one dimension lie side by side in registers.

A load then brings all of these taps at once: what they see overlaps, so it moves hardly more than a load of one tap,
and there are as many fewer loads to wait for. They are folded like elements; a reduction of the sums joins them. That
is more arithmetic, and less waiting where a program has few loads in flight.

    before:  for r, s: sum += x[y + r, column + s, c] * w[r, s, c]
    after:   for s: sums[r] += x[y + r, column + s, c] * w[r, s, c], then sum = the sum of sums[r] over r

A tile has one output along the dimension of the outputs that moves with these taps.
"""

from __future__ import annotations

from dataclasses import replace

from birc.compiler.ir.plan import PAR, Access, Index, Kernel, Phase, Statement
from birc.compiler.ir.plan_access import accesses, with_statements
from birc.runtime.program import MAX_BOX_RANK


def may_lie_beside(kernel: Kernel, name: str) -> bool:
    """Whether the taps along a reduced dimension can: registers have an axis left for them, one moves along them.

    Where SPCs have their own samples and their own bands of these, parts have all axes that an instruction addresses.
    """
    moving = [[i for i in access.index if name in dict(i.terms)] for access in accesses(kernel)]
    return len(kernel.par_dims) < MAX_BOX_RANK and len(kernel.red_dims) > 1 and all(len(axes) <= 1 for axes in moving)


def with_taps_beside(kernel: Kernel, name: str) -> Kernel:
    """The kernel, which is a window, with the taps along `name` side by side: they get the last axis but one."""
    first, second = kernel.phases
    *before, fold = first.statements
    left = tuple(loop for loop in first.loops if loop != name)
    taps = f"{fold.result}.{name}"
    joined = Statement(fold.op.replace("vfold", "vred"), fold.result, (taps,), dims=(name,))
    phases = (
        Phase((*before, replace(fold, result=taps, dims=left)), left),
        Phase((joined, *second.statements)),
    )
    *outer, inner = kernel.par_dims
    reduced = (d for d in kernel.red_dims if d.name != name)
    space = (*outer, replace(kernel.dimension(name), kind=PAR), inner, *reduced)
    place = len(outer)
    return with_statements(replace(kernel, space=space, phases=phases), lambda access: _moved(access, name, place))


def _moved(access: Access, name: str, place: int) -> Access:
    """The access with an axis more at a place: the one that moves along `name`, which leaves an axis of one behind."""
    view = access.view
    dims, strides, index, lower = list(view.dims), list(view.strides), list(access.index), list(view.lower)
    axis = next((axis for axis, i in enumerate(index) if name in dict(i.terms)), None)
    new_dim, new_stride, new_index, new_lower = 1, 0, Index(), 0
    if axis is not None:
        new_dim, new_stride, new_index = dims[axis], strides[axis], index[axis]
        dims[axis], strides[axis], index[axis] = 1, 0, Index()
        if lower:
            new_lower, lower[axis] = lower[axis], 0
    dims.insert(place, new_dim)
    strides.insert(place, new_stride)
    index.insert(place, new_index)
    if lower:
        lower.insert(place, new_lower)
    moved = replace(view, dims=tuple(dims), strides=tuple(strides), lower=tuple(lower))
    return replace(access, view=moved, index=tuple(index))
