"""Lowering of running sums and products along an axis.

By doubling: after s steps each element has taken in the 2^s elements that end at it, so a scan of n elements is
log2(n) additions of a shifted copy (Hillis and Steele, Data parallel algorithms, CACM 29 (12), 1986).
"""

from __future__ import annotations

from typing import Final

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.floats import widened
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.shape import reshape, slice_axis


def _cumulative(op: str, neutral: float) -> Lower:
    """A scan by a binary row; `neutral` leaves the other operand as it is."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        x, rank = node.input(0), build.rank(node.input(0))
        known = build.constant_of(node.input(1))
        kept = build.type_of(x).dtype
        wide = widened(build, x)
        backwards, exclusive = bool(node.int_attribute("reverse", 0)), bool(node.int_attribute("exclusive", 0))

        def along(axis: int) -> str:
            return cast(build, scan(build, wide, axis, op, neutral, backwards, exclusive), kept)

        if known is not None:
            return along(positive_axis(node, int(known.reshape(())), rank)) if rank else x
        return _chosen(build, reshape(build, node.input(1), ()), [along(axis) for axis in range(rank)])

    return lower


def _chosen(build: GraphBuilder, axis: str, candidates: list[str]) -> str:
    """The candidate that a scalar axis names, which may count from the end; a program that faults for any other."""
    rank = len(candidates)
    result, is_one = candidates[0], ""
    for place, candidate in enumerate(candidates):
        names = [build.emit("equal", (axis, build.scalar(name, axis))) for name in (place, place - rank)]
        named = build.emit("or", names)
        result = build.emit("where", (named, candidate, result)) if place else result
        is_one = build.emit("or", (is_one, named)) if is_one else named
    return build.guarded(result, is_one)


def scan(build: GraphBuilder, x: str, axis: int, op: str, neutral: float, backwards: bool, exclusive: bool) -> str:
    """Running results of `op` along an axis: of all elements up to each, without its own if `exclusive`.

    `backwards` begins at the end.
    """
    size = build.shape(x)[axis]
    if exclusive:
        x = _shifted(build, x, axis, min(1, size), neutral, backwards)
    step = 1
    while step < size:
        x = build.emit(op, (x, _shifted(build, x, axis, step, neutral, backwards)))
        step *= 2
    return x


def _shifted(build: GraphBuilder, x: str, axis: int, step: int, neutral: float, backwards: bool) -> str:
    """`x` moved `step` elements along the axis, with neutral ones behind it."""
    shape = build.shape(x)
    first, last = (step, shape[axis]) if backwards else (0, shape[axis] - step)
    kept = slice_axis(build, x, axis, first, last)
    pads = [0] * (2 * len(shape))
    pads[axis + len(shape) if backwards else axis] = step
    return build.emit("pad", (kept,), {"pads": tuple(pads), "value": neutral})


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("CumProd", _cumulative("mul", 1.0)),
    OpType("CumSum", _cumulative("add", 0.0)),
)
