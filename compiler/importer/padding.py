"""Lowering of Pad, which adds elements around a tensor, or cuts them off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from birc.compiler.importer.axes import integers_of, positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.run_time import (
    bounded_integers,
    counted_from_front,
    declared_result,
    for_axes,
    held,
    names_each_once,
)
from birc.compiler.importer.shape import reshape, slice_axis, take
from birc.compiler.ir.attributes import AttributeValue
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError

MODES: Final = ("constant", "reflect", "edge", "wrap")
"""Those of ONNX; numpy means the same by them."""


def _pad_attributes(node: OnnxNode, build: GraphBuilder) -> Results:
    """Pad until operator set 10: amounts and value are attributes."""
    rank = build.rank(node.input(0))
    value = build.scalar(node.float_attribute("value", 0.0), node.input(0))
    return _padded(node, build, node.ints_attribute("pads"), tuple(range(rank)), value)


def _pad_inputs(node: OnnxNode, build: GraphBuilder) -> Results:
    """Pad since operator set 11: amounts, value and (since 18) axes are inputs."""
    x, rank = node.input(0), build.rank(node.input(0))
    given = node.optional(2)
    value = reshape(build, cast(build, given, build.type_of(x).dtype), ()) if given else build.scalar(0, x)
    if any(name and build.constant_of(name) is None for name in (node.input(1), node.optional(3))):
        return _padded_at_run_time(node, build, value)
    pads = integers_of(node, build, 1, "amounts of padding") or ()
    axes = integers_of(node, build, 3, "axes")
    places = tuple(range(rank)) if axes is None else tuple(positive_axis(node, axis, rank) for axis in axes)
    return _padded(node, build, pads, places, value)


def _mode(node: OnnxNode) -> str:
    mode = node.string_attribute("mode", "constant")
    if mode not in MODES:
        raise BadModelError(f"padding mode {mode!r} is not a mode of ONNX", where=node.where)
    return mode


def _padded(node: OnnxNode, build: GraphBuilder, pads: Sequence[int], axes: Sequence[int], value: str) -> str:
    """Negative amounts cut; constant padding is the core row; other modes gather known positions."""
    x, rank, mode = node.input(0), build.rank(node.input(0)), _mode(node)
    if len(pads) != 2 * len(axes):
        raise BadModelError(f"{len(pads)} amounts of padding for {len(axes)} axes", where=node.where)
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        before[axis], after[axis] = pads[place], pads[place + len(axes)]
    for axis in range(rank):
        x = _cut(node, build, x, axis, (before[axis], after[axis]))
    amounts = tuple(max(amount, 0) for amount in (*before, *after))
    if mode == "constant":
        return _surrounded(build, x, amounts, value)
    for axis in range(rank):
        around, size = (amounts[axis], amounts[axis + rank]), build.shape(x)[axis]
        if any(around):
            if not size:
                raise BadModelError(f"there is nothing to pad axis {axis} with", where=node.where)
            x = take(build, x, axis, np.pad(np.arange(size), around, mode=mode))  # type: ignore[call-overload]
    return x


def _cut(node: OnnxNode, build: GraphBuilder, x: str, axis: int, around: tuple[int, int]) -> str:
    """An axis without what negative amounts take from it."""
    size = build.shape(x)[axis]
    first, last = max(-around[0], 0), size - max(-around[1], 0)
    if not 0 <= first <= last:
        raise BadModelError(f"padding {around} takes more than the {size} elements of axis {axis}", where=node.where)
    return slice_axis(build, x, axis, first, last)


def _surrounded(build: GraphBuilder, x: str, amounts: tuple[int, ...], value: str) -> str:
    """`x` with `value` before and after it in each dimension: by a mask where that is no number known here."""
    known, kind = build.constant_of(value), build.type_of(x).dtype
    attributes: dict[str, AttributeValue] = {"pads": amounts, "value": 0.0}
    if not any(amounts):
        return x
    if known is not None and (kind.is_float or float(known) == int(known)):
        return build.emit("pad", (x,), attributes | {"value": float(known)})
    shape, rank = build.shape(x), build.rank(x)
    inside = build.constant(np.ones((), np.bool_))
    for axis, size in enumerate(shape):
        line = np.pad(np.ones(size, np.bool_), (amounts[axis], amounts[axis + rank]))
        inside = build.emit("and", (inside, build.constant(line.reshape(_line(rank, axis, line.size)))))
    return build.emit("where", (inside, build.emit("pad", (x,), attributes), value))


def _line(rank: int, axis: int, size: int) -> tuple[int, ...]:
    """The shape of a vector along one axis."""
    return tuple(size if place == axis else 1 for place in range(rank))


def _padded_at_run_time(node: OnnxNode, build: GraphBuilder, value: str) -> str:
    """Along each axis a gather of the positions that its mode asks for; what lies outside becomes `value`.

    The program faults where the amounts give other sizes than the model declares.
    """
    x, wanted, mode = node.input(0), declared_result(node, build), _mode(node)
    shape, rank = build.shape(x), build.rank(x)
    if len(wanted) != rank or (0 in shape and 0 not in wanted):
        raise CannotLower(f"{list(shape)} is not padded to the declared {list(wanted)}")
    if 0 in wanted:
        return build.splat(0, build.type_of(x).with_shape(wanted))
    pads = bounded_integers(build, node.input(1))
    count = build.shape(pads)[0] // 2
    axes: tuple[int, ...] | str = tuple(range(count))
    if node.optional(3):
        known = build.constant_of(node.input(3))
        if known is None:
            axes = counted_from_front(build, cast(build, node.input(3), dtype("i64")), rank)
        else:
            axes = tuple(positive_axis(node, int(axis), rank) for axis in known.reshape(-1))
    named = build.shape(axes)[0] if isinstance(axes, str) else len(axes)
    if build.shape(pads) != (2 * named,) or named > rank:
        raise BadModelError(f"{build.shape(pads)[0]} amounts of padding for {named} axes", where=node.where)
    halves = [build.emit("slice", (pads,), {"starts": (a,), "ends": (b,), "steps": (1,)})
              for a, b in ((0, count), (count, 2 * count))]  # fmt: skip
    sides = [for_axes(build, half, axes, rank, (0,) * rank) for half in halves]
    conditions = [names_each_once(build, axes, rank)] if isinstance(axes, str) else []
    inside = build.constant(np.ones((), np.bool_))
    for axis, around in enumerate(zip(*sides, strict=True)):
        if not isinstance(axes, str) and axis not in axes:
            if wanted[axis] != shape[axis]:
                raise CannotLower(f"the model declares {wanted[axis]} for the {shape[axis]} of an axis without padding")
            continue
        positions, within, fits = _positions(build, around, shape[axis], wanted[axis], mode)
        conditions.append(fits)
        x = build.emit("gather", (x, positions), {"axis": axis})
        if mode == "constant":
            inside = build.emit("and", (inside, reshape(build, within, _line(rank, axis, wanted[axis]))))
    padded = build.emit("where", (inside, x, value)) if mode == "constant" else x
    return held(build, padded, conditions)


def _positions(build: GraphBuilder, around: tuple[str, str], size: int, count: int, mode: str) -> tuple[str, str, str]:
    """For each of `count` results along an axis of `size` where it is read, and whether it lies within the axis.

    The third says whether the amounts before and after make `count` of `size`. Negative amounts cut first: what
    is left of the axis is mirrored, or repeated.
    """
    before, after = around

    def number(other: int) -> str:
        return build.scalar(other, before)

    def apply(op: str, *operands: str) -> str:
        return build.emit(op, operands)

    total = apply("add", apply("add", before, after), number(size))
    fits = apply("equal", total, number(count))
    start = apply("maximum", apply("neg", before), number(0))
    end = apply("sub", number(size), apply("maximum", apply("neg", after), number(0)))
    # Counted within what is left of the axis.
    place = apply("sub", build.constant(np.arange(count)), apply("maximum", before, number(0)))
    left = apply("sub", end, start)
    within = apply("and", apply("less_equal", number(0), place), apply("less", place, left))
    if mode != "constant":
        fits = apply("and", fits, apply("less", number(0), left))
    if mode == "wrap":
        place = apply("mod", place, apply("maximum", left, number(1)))
    elif mode == "reflect":
        period = apply("maximum", apply("mul", number(2), apply("sub", left, number(1))), number(1))
        place = apply("mod", place, period)
        place = apply("minimum", place, apply("sub", period, place))
    last = apply("sub", left, number(1))
    place = apply("maximum", apply("minimum", place, last), number(0))
    position = apply("minimum", apply("add", place, start), number(size - 1))
    return position, within, fits


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Pad", _pad_attributes, until=10),
    OpType("Pad", _pad_inputs, since=11),
)
