"""Parameters that arrive at run time: the declared result leaves few candidates, and the program is held to it.

What is emitted here are small integer computations: comparisons of the parameter's value with what the declared
shape demands.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.counting import all_true, any_true, from_end
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.runtime.dtypes import dtype

MOST_CANDIDATES: Final = 64
"""Each candidate is computed in full, so that more are better left to the host."""

LARGEST_INTEGER: Final = 1 << 30
"""Beyond every dimension of a tensor, so that sums with one stay within 32 bits."""

_I32: Final = dtype("i32")
_I64: Final = dtype("i64")


def declared_result(node: OnnxNode, build: GraphBuilder, position: int = 0) -> tuple[int, ...]:
    """The shape that the model gives for a result. Raises `CannotLower` where it is open."""
    found = build.declared_shape(node, position)
    if found is None:
        raise CannotLower("the shape of its result is only known at run time")
    return found


def candidate_axes(sizes: Sequence[int], count: int) -> Iterable[tuple[int, ...]]:
    """Every set of `count` of the dimensions of `sizes`, ascending.

    Raises `CannotLower` when there are more than can be looked at.
    """
    if math.comb(len(sizes), count) > 1 << 16:
        raise CannotLower(f"there are {math.comb(len(sizes), count)} ways to choose {count} of {len(sizes)} axes")
    return combinations(range(len(sizes)), count)


def counted_from_front(build: GraphBuilder, axes: str, rank: int) -> str:
    """A list of axes as it arrives, in one dimension, negative ones counted from the end."""
    return from_end(build, flattened(build, axes), rank)


def matches(build: GraphBuilder, axes: str, rank: int, candidates: Sequence[tuple[int, ...]]) -> str:
    """For each candidate whether the list of axes names these, in any order and from either end: bool[candidates].

    Raises `CannotLower` for none or too many candidates.
    """
    if not candidates:
        raise CannotLower("no list of axes gives the shape that the model declares for its result")
    if len(candidates) > MOST_CANDIDATES:
        raise CannotLower(f"{len(candidates)} lists of axes give its shape, at most {MOST_CANDIDATES} can be tried")
    front = counted_from_front(build, axes, rank)
    (count,) = build.shape(front)
    wanted = np.array(candidates, build.type_of(front).dtype.numpy).reshape(len(candidates), 1, count)
    given = build.emit("reshape", (front,), {"shape": (1, count, 1)})
    hits = build.emit("cast", (build.emit("equal", (given, build.constant(wanted))),), {"to": _I32})
    named = build.emit("reduce_max", (hits,), {"axes": (1,), "keepdims": 0})
    whole = build.emit("reduce_min", (named,), {"axes": (1,), "keepdims": 0})
    return build.emit("equal", (whole, build.scalar(1, whole)))


def chosen(build: GraphBuilder, flags: str, results: Sequence[str]) -> str:
    """The result whose flag is true, from a program that faults where none is."""
    picked = results[0]
    for place, result in enumerate(results[1:], 1):
        picked = build.emit("where", (element(build, flags, place), result, picked))
    return held(build, picked, [any_true(build, flags)])


def held(build: GraphBuilder, x: str, conditions: Sequence[str]) -> str:
    """`x`, from a program that faults where one of the bools (of any shape) is false.

    What has no elements is not computed, and nothing is checked for it. Raises `CannotLower` where a condition is
    known to be false: then the model declares another shape than its constants give.
    """
    if not conditions or 0 in build.shape(x):
        return x
    condition = together(build, conditions)
    known = build.constant_of(condition)
    if known is None:
        return build.guarded(x, condition)
    if not known:
        raise CannotLower("its parameters contradict the shape that the model declares for its result")
    return x


def together(build: GraphBuilder, conditions: Sequence[str]) -> str:
    """Whether all of the bools, each of any shape, are true: a scalar."""
    whole = [all_true(build, condition) for condition in conditions]
    result = whole[0]
    for other in whole[1:]:
        result = build.emit("and", (result, other))
    return result


def are(build: GraphBuilder, value: str, numbers: Sequence[int]) -> str:
    """Element by element whether the integers of `value`, in one dimension, are these."""
    wanted = np.array(numbers, build.type_of(value).dtype.numpy)
    return build.emit("equal", (value, build.constant(wanted)))


def bounded_integers(build: GraphBuilder, value: str) -> str:
    """A list of integers in one dimension, as 64 bits.

    Where they are known, numbers that are larger than any tensor (an end of all that is left) become smaller ones:
    the device has 32 bits.
    """
    flat = build.emit("cast", (flattened(build, value),), {"to": _I64})
    known = build.constant_of(flat)
    return flat if known is None else build.constant(np.clip(known, -LARGEST_INTEGER, LARGEST_INTEGER))


def for_axes(
    build: GraphBuilder, values: str, axes: Sequence[int] | str, rank: int, otherwise: Sequence[int]
) -> list[str]:
    """What a list of integers says for each axis, as scalars.

    `axes` are those that it speaks about, in its order, known or as a value from `counted_from_front`; it says
    `otherwise` for the others.
    """
    if not isinstance(axes, str):
        named = {axis: element(build, values, place) for place, axis in enumerate(axes)}
        return [named.get(axis) or build.scalar(otherwise[axis], values) for axis in range(rank)]
    result = []
    for axis in range(rank):
        is_meant = build.emit("equal", (axes, build.scalar(axis, axes)))
        kept = build.emit("where", (is_meant, values, build.scalar(0, values)))
        total = build.emit("reduce_sum", (kept,), {"axes": (0,), "keepdims": 0})
        is_named = any_true(build, is_meant)
        result.append(build.emit("where", (is_named, total, build.scalar(otherwise[axis], values))))
    return result


def names_each_once(build: GraphBuilder, axes: str, rank: int) -> str:
    """Whether the axes, from `counted_from_front`, are axes and none is named twice."""
    (count,) = build.shape(axes)
    wanted = build.constant(np.arange(rank, dtype=build.type_of(axes).dtype.numpy).reshape(rank, 1))
    hits = build.emit("cast", (build.emit("equal", (axes, wanted)),), {"to": _I32})
    named = build.emit("reduce_max", (hits,), {"axes": (1,), "keepdims": 0})
    total = build.emit("reduce_sum", (named,), {"axes": (0,), "keepdims": 0})
    return build.emit("equal", (total, build.scalar(count, total)))


def flattened(build: GraphBuilder, value: str) -> str:
    """A parameter as one dimension: some models give a scalar for a list of one."""
    return build.emit("reshape", (value,), {"shape": (math.prod(build.shape(value)),)})


def element(build: GraphBuilder, value: str, place: int) -> str:
    """One element of a one-dimensional parameter, as a scalar."""
    window = {"starts": (place,), "ends": (place + 1,), "steps": (1,)}
    return build.emit("reshape", (build.emit("slice", (value,), window),), {"shape": ()})
