"""Simplifying a kernel's space: dimensions of extent 1 go, neighbours that every operand walks without a gap merge.

Operands of vector statements have one view axis for each par dimension, in order (the axes of a register). Operands
of a contraction have axes only for the dimensions they move along, found by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from birc.compiler.ir.plan import Access, Contraction, Dimension, Index, Kernel, Phase, Statement, View
from birc.compiler.ir.plan_access import named_dims
from birc.compiler.passes.lower.frame import unit

MOST_UNROLLED = 64
"""The most kernels that one becomes because it walks too many dimensions."""

Change = Callable[[Access], Access | None]


def coalesce(kernel: Kernel, max_dim: int) -> Kernel:
    """Drop dimensions of extent 1 and merge mergeable neighbours, as long as none exceeds `max_dim`."""
    kernel = without_ones(kernel)
    position = 0
    while position + 1 < len(kernel.par_dims):
        merged = _merged(kernel, position, max_dim)
        if merged is None:
            position += 1
        else:
            kernel = merged
    return kernel


def without_ones(kernel: Kernel) -> Kernel:
    """The kernel without those dimensions of extent 1 that can go."""
    for dimension in kernel.red_dims[:-1]:
        kernel = _without_red(kernel, dimension)
    for dimension in kernel.par_dims:
        kernel = _without(kernel, dimension) or kernel
    return kernel


def within_rank(kernel: Kernel, rank: int) -> list[Kernel]:
    """The kernel, or one for each index of its smallest dimensions, so that what is left walks `rank` dimensions.

    Where no dimension can be taken out, or too many kernels would come of it, the kernel stays as it is.
    """
    done: list[Kernel] = []
    waiting = [kernel]
    while waiting:
        current = waiting.pop()
        parts = _unrolled(current) if len(current.par_dims) > rank else None
        if parts is None or len(done) + len(waiting) + len(parts) > MOST_UNROLLED:
            if len(current.par_dims) > rank:
                return [kernel]
            done.append(current)
        else:
            waiting.extend(reversed(parts))
    return done


def _unrolled(kernel: Kernel) -> list[Kernel] | None:
    """A kernel for each index of the smallest par dimension that can go; None when there is none."""
    if kernel.contraction is not None:
        return None
    for dimension in sorted(kernel.par_dims, key=lambda one: one.extent):
        parts = [_at_index(kernel, dimension, index) for index in range(dimension.extent)]
        found = [part for part in parts if part is not None]
        if len(found) == len(parts):
            return found
    return None


def _at_index(kernel: Kernel, dimension: Dimension, index: int) -> Kernel | None:
    """The kernel with a par dimension fixed, which is then no dimension any more; None when it has to stay."""
    position = kernel.par_dims.index(dimension)
    if dimension.name in named_dims(kernel) or any(s.index_axis == position for s in _indexed_loads(kernel)):
        return None

    def fixed(access: Access) -> Access | None:
        moved = access.index[position] == unit(dimension.name)
        dropped = _drop_aligned(access, position, dimension.name)
        if dropped is None or any(access.view.lower) or (moved and access.view.dims[position] != dimension.extent):
            return None
        step = access.view.strides[position] * index if moved else 0
        return replace(dropped, view=replace(dropped.view, offset=dropped.view.offset + step))

    phases = _changed_phases(kernel, fixed, position)
    if phases is None:
        return None
    space = tuple(d for d in kernel.space if d != dimension)
    return replace(kernel, name=f"{kernel.name}.{index}", space=space, phases=phases)


def _without_red(kernel: Kernel, dimension: Dimension) -> Kernel:
    """The kernel without a reduced dimension of extent 1, unless a fold names it."""
    contraction = kernel.contraction
    if dimension.extent != 1 or contraction is None:
        return kernel
    dropped = contraction.changed(lambda access: _drop_term(access, dimension.name))
    changed = replace(dropped, depth=contraction.depth - (len(contraction.b.index) - len(dropped.b.index)))
    space = tuple(d for d in kernel.space if d != dimension)
    return replace(kernel, space=space, contraction=changed)


def _drop_term(access: Access, name: str) -> Access:
    """The access without a dimension that is always 0; an axis that has nothing else goes."""
    if unit(name) in access.index:
        return _without_axis(access, access.index.index(unit(name)))
    index = tuple(Index(tuple(t for t in i.terms if t[0] != name), i.constant) for i in access.index)
    return replace(access, index=index)


def _without(kernel: Kernel, dimension: Dimension) -> Kernel | None:
    """The kernel without a par dimension of extent 1; None when it has to stay."""
    contraction = kernel.contraction
    columns = contraction.column_dims if contraction is not None else ()
    if dimension.extent != 1 or dimension.name in columns or dimension.name in named_dims(kernel):
        return None
    position = kernel.par_dims.index(dimension)
    if len(kernel.par_dims) == 1 or any(s.index_axis == position for s in _indexed_loads(kernel)):
        return None
    changed = _changed_phases(kernel, lambda access: _drop_aligned(access, position, dimension.name), position)
    if changed is None:
        return None
    if contraction is not None:
        contraction = _changed_contraction(
            contraction, lambda access: _drop_named(access, dimension.name), dimension.name
        )
        if contraction is None:
            return None
    space = tuple(d for d in kernel.space if d != dimension)
    return replace(kernel, space=space, phases=changed, contraction=contraction)


def _merged(kernel: Kernel, position: int, max_dim: int) -> Kernel | None:
    """The kernel with the par dimensions at `position` and the next as one; None when they cannot be."""
    outer, inner = kernel.par_dims[position : position + 2]
    if outer.extent * inner.extent > max_dim or {outer.name, inner.name} & named_dims(kernel):
        return None
    contraction = kernel.contraction
    if contraction is not None and not {outer.name, inner.name} <= set(contraction.row_dims):
        return None
    if any(True for _ in _indexed_loads(kernel)):
        return None
    phases = _changed_phases(kernel, lambda access: _merge_aligned(access, position, outer, inner))
    if phases is None:
        return None
    if contraction is not None:
        contraction = _changed_contraction(contraction, lambda access: _merge_named(access, outer, inner), inner.name)
        if contraction is None:
            return None
    one = Dimension(outer.name, outer.extent * inner.extent)
    space = tuple(one if d == outer else d for d in kernel.space if d != inner)
    return replace(kernel, space=space, phases=phases, contraction=contraction)


def _indexed_loads(kernel: Kernel) -> Iterator[Statement]:
    return (s for phase in kernel.phases for s in phase.statements if s.op == "vldx")


def _changed_phases(kernel: Kernel, change: Change, dropped: int | None = None) -> tuple[Phase, ...] | None:
    """The phases with every access changed; None when one cannot be. Index axes behind `dropped` move up."""
    phases = []
    for phase in kernel.phases:
        statements = []
        for statement in phase.statements:
            changed = statement
            if statement.access is not None:
                access = change(statement.access)
                if access is None:
                    return None
                shift = int(dropped is not None and statement.index_axis > dropped)
                changed = replace(statement, access=access, index_axis=statement.index_axis - shift)
            statements.append(changed)
        phases.append(Phase(tuple(statements), phase.loops))
    return tuple(phases)


def _changed_contraction(contraction: Contraction, change: Change, gone: str) -> Contraction | None:
    changed = [change(access) for access in contraction.operands]
    found = [access for access in changed if access is not None]
    if len(found) < len(changed):
        return None
    a, *further, b = found
    return replace(
        contraction,
        a=a,
        b=b,
        further=tuple(further),
        rows=contraction.rows - (len(contraction.a.index) - len(a.index)),
        depth=contraction.depth - (len(contraction.b.index) - len(b.index)),
        row_dims=tuple(name for name in contraction.row_dims if name != gone),
    )


def _without_axis(access: Access, axis: int) -> Access:
    view = access.view
    return Access(
        replace(
            view,
            dims=view.dims[:axis] + view.dims[axis + 1 :],
            strides=view.strides[:axis] + view.strides[axis + 1 :],
        ),
        access.index[:axis] + access.index[axis + 1 :],
        access.fill,
    )


def _drop_aligned(access: Access, axis: int, name: str) -> Access | None:
    """Only an axis whose one coordinate is 0 can go."""
    plain = access.index[axis] in (Index(), unit(name))
    elsewhere = any(term == name for i in access.index[:axis] + access.index[axis + 1 :] for term, _ in i.terms)
    return _without_axis(access, axis) if plain and not elsewhere else None


def _drop_named(access: Access, name: str) -> Access | None:
    places = [axis for axis, index in enumerate(access.index) if any(term == name for term, _ in index.terms)]
    if not places:
        return access
    plain = len(places) == 1 and access.index[places[0]] == unit(name)
    return _without_axis(access, places[0]) if plain else None


def _merge_aligned(access: Access, axis: int, outer: Dimension, inner: Dimension) -> Access | None:
    first, second = access.index[axis : axis + 2]
    if first == second == Index() and access.view.dims[axis : axis + 2] == (1, 1):
        return _without_axis(access, axis)
    if first != unit(outer.name) or second != unit(inner.name):
        return None
    return _merge_axes(access, axis, outer, inner)


def _merge_named(access: Access, outer: Dimension, inner: Dimension) -> Access | None:
    mentioned = {term for index in access.index for term, _ in index.terms}
    if not mentioned & {outer.name, inner.name}:
        return access
    if unit(outer.name) not in access.index or unit(inner.name) not in access.index:
        return None
    axis = access.index.index(unit(outer.name))
    return _merge_axes(access, axis, outer, inner) if access.index.index(unit(inner.name)) == axis + 1 else None


def _merge_axes(access: Access, axis: int, outer: Dimension, inner: Dimension) -> Access | None:
    """One axis for two that lie without a gap between them."""
    view: View = access.view
    whole = view.dims[axis : axis + 2] == (outer.extent, inner.extent)
    if not whole or view.strides[axis] != view.strides[axis + 1] * inner.extent or any(view.lower):
        return None
    merged = replace(
        view,
        dims=(*view.dims[:axis], outer.extent * inner.extent, *view.dims[axis + 2 :]),
        strides=(*view.strides[:axis], view.strides[axis + 1], *view.strides[axis + 2 :]),
    )
    index = (*access.index[:axis], unit(outer.name), *access.index[axis + 2 :])
    return Access(merged, index, access.fill)
