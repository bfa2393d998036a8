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
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.runtime.dtypes import dtype

MOST_CANDIDATES: Final = 64
"""Each candidate is computed in full, so that more are better left to the host."""

_I32: Final = dtype("i32")


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
    flat = flattened(build, axes)
    negative = build.emit("less", (flat, build.scalar(0, flat)))
    return build.emit("where", (negative, build.emit("add", (flat, build.scalar(rank, flat))), flat))


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
    numbers = build.emit("cast", (flags,), {"to": _I32})
    most = build.emit("reduce_max", (numbers,), {"axes": (0,), "keepdims": 0})
    return held(build, picked, [build.emit("equal", (most, build.scalar(1, most)))])


def held(build: GraphBuilder, x: str, conditions: Sequence[str]) -> str:
    """`x`, from a program that faults where one of the bools (of any shape) is false.

    What has no elements is not computed, and nothing is checked for it.
    """
    if not conditions or 0 in build.shape(x):
        return x
    return build.guarded(x, together(build, conditions))


def together(build: GraphBuilder, conditions: Sequence[str]) -> str:
    """Whether all of the bools, each of any shape, are true: a scalar."""
    whole = [_all_of(build, condition) for condition in conditions]
    result = whole[0]
    for other in whole[1:]:
        result = build.emit("and", (result, other))
    return result


def _all_of(build: GraphBuilder, condition: str) -> str:
    rank = len(build.shape(condition))
    if rank == 0:
        return condition
    numbers = build.emit("cast", (condition,), {"to": _I32})
    least = build.emit("reduce_min", (numbers,), {"axes": tuple(range(rank)), "keepdims": 0})
    return build.emit("equal", (least, build.scalar(1, least)))


def are(build: GraphBuilder, value: str, numbers: Sequence[int]) -> str:
    """Element by element whether the integers of `value`, in one dimension, are these."""
    wanted = np.array(numbers, build.type_of(value).dtype.numpy)
    return build.emit("equal", (value, build.constant(wanted)))


def flattened(build: GraphBuilder, value: str) -> str:
    """A parameter as one dimension: some models give a scalar for a list of one."""
    return build.emit("reshape", (value,), {"shape": (math.prod(build.shape(value)),)})


def element(build: GraphBuilder, value: str, place: int) -> str:
    """One element of a one-dimensional parameter, as a scalar."""
    window = {"starts": (place,), "ends": (place + 1,), "steps": (1,)}
    return build.emit("reshape", (build.emit("slice", (value,), window),), {"shape": ()})
