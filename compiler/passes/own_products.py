"""Products of which every SPC takes some of the independent ones, or some of the rows of each.

As in `own_parts.py` dimensions over SPCs, one iteration each, come in front of the others. What lies in an SPC's tensor
buffer has its part of each dimension that is cut, without gaps where the others were.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from birc.compiler.ir.plan import OWN_DIMENSIONS, SPC, SPC_PRODUCTS, Access, Index, Kernel, Phase, Statement
from birc.compiler.ir.plan_access import accesses, step_alone, with_accesses
from birc.compiler.passes.lower.frame import unit
from birc.compiler.passes.own_parts import can_be_cut, cut
from birc.runtime.machine import Machine
from birc.runtime.program import MAX_BOX_RANK

OVER = (SPC, SPC_PRODUCTS)
"""The dimensions that count parts, the outer one first."""
MOST_WAYS = 1
"""Ways to cut two kernels that are timed, of those that leave as few tiles to an SPC."""


@dataclass(frozen=True, slots=True)
class Cut:
    """In how many parts a dimension is cut, and by buffer the elements from one of its points to the next."""

    name: str
    count: int
    strides: Mapping[str, int]


def ways(first: Kernel, second: Kernel, local: Sequence[str], machine: Machine) -> list[tuple[list[Cut], list[Cut]]]:
    """How two kernels may be cut so that of the buffers between them each SPC reads what it made, the best first."""
    pairs = _together(first, second, local)
    most = machine.spcs_per_die
    free = MAX_BOX_RANK - max(len(access.index) for kernel in (first, second) for access in accesses(kernel))
    extents = [first.dimension(name).extent for name, _, _ in pairs]
    are_rows = [name in _rows(first) or other in _rows(second) for name, other, _ in pairs]

    def cost(counts: Sequence[int]) -> tuple[int, int, Sequence[int]]:
        """The tiles of an SPC; then parts of rows, which load the same columns; then shares of outer dimensions."""
        shares = [extent // count for extent, count in zip(extents, counts, strict=True)]
        tiles = (-(-n // machine.tcore_rows) if is_row else n for n, is_row in zip(shares, are_rows, strict=True))
        of_rows = math.prod(n for n, is_row in zip(counts, are_rows, strict=True) if is_row)
        return math.prod(tiles), of_rows, shares

    found = [
        counts
        for counts in itertools.product(*(_divisors(extent, most) for extent in extents))
        if 1 < math.prod(counts) <= most and sum(n > 1 for n in counts) <= min(len(OVER), free)
    ]
    return [
        (
            [Cut(name, n, steps) for (name, _, steps), n in zip(pairs, counts, strict=True) if n > 1],
            [Cut(name, n, steps) for (_, name, steps), n in zip(pairs, counts, strict=True) if n > 1],
        )
        for counts in sorted(found, key=cost)[:MOST_WAYS]
    ]


def _divisors(extent: int, most: int) -> list[int]:
    return [n for n in range(1, most + 1) if extent % n == 0]


def _rows(kernel: Kernel) -> tuple[str, ...]:
    """The dimensions of the rows of a product."""
    return kernel.contraction.row_dims if kernel.contraction is not None else ()


def in_own_products(kernel: Kernel, cuts: Sequence[Cut], local: Sequence[str]) -> Kernel | None:
    """The kernel with a part an SPC, of which the `local` buffers have only that; None when it cannot be cut so."""
    if kernel.has_own_parts:
        return None
    if not all(can_be_cut(kernel, one.name, one.count) for one in cuts):
        return None
    if not all(_is_apart(a, cuts, kernel) for a in accesses(kernel) if a.view.buffer in local):
        return None
    for one, over in reversed([*zip(cuts, OVER, strict=False)]):
        kernel = cut(kernel, one.name, one.count, over)

    def on_its_own(access: Access) -> Access:
        return _without_others(access, cuts) if access.view.buffer in local else access

    return with_accesses(kernel, on_its_own)


def stored_twice(kernel: Kernel, names: Collection[str], suffix: str) -> Kernel:
    """The kernel with all that it stores in some buffers stored once more, in those with a longer name."""

    def copies(phase: Phase) -> Iterator[Statement]:
        for s in phase.statements:
            yield s
            if s.op == "vst" and s.access is not None and s.access.view.buffer in names:
                view = replace(s.access.view, buffer=s.access.view.buffer + suffix)
                yield replace(s, access=replace(s.access, view=view))

    if not names:
        return kernel
    return replace(kernel, phases=tuple(replace(phase, statements=tuple(copies(phase))) for phase in kernel.phases))


def _together(first: Kernel, second: Kernel, local: Sequence[str]) -> list[tuple[str, str, Mapping[str, int]]]:
    """The dimensions of both kernels that move all buffers between them by the same steps, and these by buffer."""
    found: list[tuple[str, str, Mapping[str, int]]] = []
    for one, other in itertools.product(first.par_dims, second.par_dims):
        if one.extent != other.extent or one.extent == 1:
            continue
        steps: dict[str, int] = {}
        for name in local:
            moved = {
                step_alone(kernel, access, dimension)
                for kernel, dimension in ((first, one.name), (second, other.name))
                for access in accesses(kernel)
                if access.view.buffer == name
            }
            if len(moved) == 1:
                steps[name] = moved.pop()
        if len(steps) == len(local) and all(steps.values()):
            found.append((one.name, other.name, steps))
    return found


def _is_apart(access: Access, cuts: Sequence[Cut], kernel: Kernel) -> bool:
    """Whether the parts of a buffer are apart for whoever accesses it: whole points of inner axes, in outer ones."""
    view = access.view
    if view.offset or view.seen or view.lower:
        return False
    for one in cuts:
        step, extent = one.strides[view.buffer], kernel.dimension(one.name).extent
        others = [(s, n) for s, n, i in zip(view.strides, view.dims, access.index, strict=True) if i != unit(one.name)]
        inside = [(s, n) for s, n in others if n > 1 and s % (step * extent)]
        if step_alone(kernel, access, one.name) != step or sum(s * (n - 1) for s, n in inside) >= step:
            return False
    return True


def _without_others(access: Access, cuts: Sequence[Cut]) -> Access:
    """The access to the SPC's part alone."""
    view = access.view
    own = [not OWN_DIMENSIONS.isdisjoint(dict(index.terms)) for index in access.index]
    others = [math.prod(c.count for c in cuts if c.strides[view.buffer] < step) for step in view.strides]
    view = replace(
        view,
        dims=tuple(1 if gone else n for n, gone in zip(view.dims, own, strict=True)),
        strides=tuple(0 if gone else s // n for s, n, gone in zip(view.strides, others, own, strict=True)),
    )
    index = tuple(Index() if gone else i for i, gone in zip(access.index, own, strict=True))
    return replace(access, view=view, index=index)
