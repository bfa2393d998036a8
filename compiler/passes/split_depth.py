"""Cutting the depth of a product in two, so that part of it stays in the input buffers while the rest goes by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from birc.compiler.ir.plan import RED, Access, Dimension, Index, Kernel

INNER_SUFFIX = "_in"


def split_depth(kernel: Kernel, inner: int) -> Kernel:
    """The kernel with its innermost reduced dimension as an outer one of steps of `inner`, and one inside the step."""
    contraction, whole = kernel.contraction, kernel.red_dims[-1]
    if contraction is None or whole.extent % inner:
        raise ValueError(f"{kernel.name}: a depth of {whole.extent} has no steps of {inner}")
    name = whole.name + INNER_SUFFIX

    def split(access: Access) -> Access:
        return replace(access, index=tuple(_split(index, whole.name, name, inner) for index in access.index))

    outer = Dimension(whole.name, whole.extent // inner, RED)
    space = tuple(part for d in kernel.space for part in ((outer, Dimension(name, inner, RED)) if d == whole else (d,)))
    return replace(kernel, space=space, contraction=contraction.changed(split))


def inner_depths(kernel: Kernel, step: int) -> Iterator[int]:
    """Depths, in whole steps of the T-core, at which the innermost reduced dimension can be cut evenly."""
    extent = kernel.red_dims[-1].extent
    count, rest = divmod(extent, step)
    if not rest:
        yield from (step * steps for steps in range(2, count) if count % steps == 0)


def _split(index: Index, name: str, inner_name: str, inner: int) -> Index:
    terms: list[tuple[str, int]] = []
    for term, factor in index.terms:
        terms += [(name, factor * inner), (inner_name, factor)] if term == name else [(term, factor)]
    return replace(index, terms=tuple(terms))
