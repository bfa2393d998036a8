"""Lowering of reductions over axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from birc.compiler.importer.axes import positive_axes
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.floats import F32, wide_type, widened
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.run_time import candidate_axes, chosen, declared_result, matches
from birc.runtime.dtypes import DType, dtype

Reduce = Callable[[GraphBuilder, str, tuple[int, ...], int], str]
"""A reduction of a value over ascending axes, with `keepdims`. No axes: every element is a reduction of its own."""


def _over_axes(compute: Reduce) -> Lower:
    """The lowering of a reduction whose axes are an attribute, known, or an input of the model."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        x = node.input(0)
        rank, keep = build.rank(x), node.int_attribute("keepdims", 1)
        given = _given_axes(node, build)
        if given is not None:
            return compute(build, x, positive_axes(node, given, rank), keep)
        wanted, axes = declared_result(node, build), node.input(1)
        sizes, count = build.shape(x), math.prod(build.shape(axes))
        every = candidate_axes(sizes, count)
        candidates = [entry for entry in every if _reduced(sizes, entry, keep) == wanted]
        flags = matches(build, axes, rank, candidates)
        return chosen(build, flags, [compute(build, x, entry, keep) for entry in candidates])

    return lower


def _given_axes(node: OnnxNode, build: GraphBuilder) -> tuple[int, ...] | None:
    """The axes as they are known, all of them where the node names none; None when they come at run time."""
    every = () if node.int_attribute("noop_with_empty_axes", 0) else tuple(range(build.rank(node.input(0))))
    if node.has("axes"):
        return node.ints_attribute("axes") or every
    if not node.optional(1):
        return every
    found = build.constant_of(node.input(1))
    return None if found is None else tuple(int(axis) for axis in found.reshape(-1)) or every


def _reduced(sizes: tuple[int, ...], axes: tuple[int, ...], keep: int) -> tuple[int, ...]:
    if keep:
        return tuple(1 if axis in axes else size for axis, size in enumerate(sizes))
    return tuple(size for axis, size in enumerate(sizes) if axis not in axes)


def _plain(op: str) -> Reduce:
    """A reduction that is a core row."""

    def compute(build: GraphBuilder, x: str, axes: tuple[int, ...], keep: int) -> str:
        return build.emit(op, (x,), {"axes": axes, "keepdims": keep}) if axes else x

    return compute


def _extreme(op: str) -> Reduce:
    """The largest or smallest element; of truth values by way of 0 and 1."""

    def compute(build: GraphBuilder, x: str, axes: tuple[int, ...], keep: int) -> str:
        kept = build.type_of(x).dtype
        # Of no elements the extremes of an unsigned type are those of a truth value.
        numbers = cast(build, x, dtype("u8")) if kept == dtype("bool") else x
        return cast(build, _plain(op)(build, numbers, axes, keep), kept)

    return compute


def _sum_of(before: str, after: str = "") -> Reduce:
    """A sum between two element-wise rows; `before` may be "square".

    Narrow floats are computed in FP32 and rounded once; what `after` makes of integers is cut to whole numbers.
    """

    def compute(build: GraphBuilder, x: str, axes: tuple[int, ...], keep: int) -> str:
        kept = build.type_of(x).dtype
        x = widened(build, x)
        if before:
            x = build.emit("mul", (x, x)) if before == "square" else build.emit(before, (x,))
        total = _plain("reduce_sum")(build, x, axes, keep)
        if after:
            total = build.emit(after, (cast(build, total, _real(build.type_of(total).dtype)),))
        return cast(build, total, kept)

    return compute


def _real(kind: DType) -> DType:
    """The floats in which a function of real numbers is computed for a type."""
    return kind if kind.is_float else F32


def _root_of_squares(build: GraphBuilder, x: str, axes: tuple[int, ...], keep: int) -> str:
    """The Euclidean norm. That of integers is cut to a whole number: the root's last bit must not decide."""
    kept = build.type_of(x).dtype
    if kept.is_float:
        return _sum_of("square", "sqrt")(build, x, axes, keep)
    total = _sum_of("square")(build, x, axes, keep)
    root = cast(build, build.emit("sqrt", (cast(build, total, F32),)), kept)
    one = build.scalar(1, root)
    above = build.emit("add", (root, one))
    is_above = build.emit("less_equal", (build.emit("mul", (above, above)), total))
    root = build.emit("where", (is_above, above, root))
    is_below = build.emit("less", (total, build.emit("mul", (root, root))))
    return build.emit("where", (is_below, build.emit("sub", (root, one)), root))


def _mean(build: GraphBuilder, x: str, axes: tuple[int, ...], keep: int) -> str:
    """Integers are summed in the widest integers of the device and divided towards zero."""
    kept = build.type_of(x).dtype
    if kept.is_float or not axes:
        return _plain("reduce_mean")(build, x, axes, keep)
    count = math.prod(build.shape(x)[axis] for axis in axes)
    if not count:
        raise CannotLower(f"there is no mean of no {kept.name}")
    total = _plain("reduce_sum")(build, cast(build, x, dtype("i32") if kept.bits < 32 else kept), axes, keep)
    return cast(build, build.emit("div", (total, build.scalar(count, total))), kept)


def _log_sum_exp(build: GraphBuilder, x: str, axes: tuple[int, ...], keep: int) -> str:
    """peak + log(sum(exp(x - peak))) with the maximum as peak, where that is finite: only infinite results overflow.

    Narrow floats and integers are computed in FP32.
    """
    if not axes:
        return x
    kept = build.type_of(x).dtype
    x = cast(build, x, wide_type(_real(kept)))
    largest = build.emit("reduce_max", (x,), {"axes": axes, "keepdims": 1})
    is_infinite = build.emit("equal", (build.emit("abs", (largest,)), build.scalar(float("inf"), largest)))
    peak = build.emit("where", (is_infinite, build.scalar(0, largest), largest))
    powers = build.emit("exp", (build.emit("sub", (x, peak)),))
    total = build.emit("reduce_sum", (powers,), {"axes": axes, "keepdims": keep})
    peak = build.emit("reshape", (peak,), {"shape": build.shape(total)})
    return cast(build, build.emit("add", (build.emit("log", (total,)), peak)), kept)


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("ReduceL1", _over_axes(_sum_of("abs"))),
    OpType("ReduceL2", _over_axes(_root_of_squares)),
    OpType("ReduceLogSum", _over_axes(_sum_of("", "log"))),
    OpType("ReduceLogSumExp", _over_axes(_log_sum_exp)),
    OpType("ReduceMax", _over_axes(_extreme("reduce_max"))),
    OpType("ReduceMean", _over_axes(_mean)),
    OpType("ReduceMin", _over_axes(_extreme("reduce_min"))),
    OpType("ReduceProd", _over_axes(_plain("reduce_prod"))),
    OpType("ReduceSum", _over_axes(_plain("reduce_sum"))),
    OpType("ReduceSumSquare", _over_axes(_sum_of("square"))),
)
