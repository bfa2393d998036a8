"""Lowering of DFT and STFT; axis and lengths that come at run time are read off the declared result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.floats import in_f32, require_single
from birc.compiler.importer.fourier import Transform, transformed
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.run_time import (
    MOST_CANDIDATES,
    are,
    chosen,
    counted_from_front,
    declared_result,
    flattened,
    held,
)
from birc.compiler.importer.term import Term, constant
from birc.runtime.errors import BadModelError

_Candidate = tuple[int, int]
"""An axis and the length of the transform along it."""


def _dft(default_axis: int, axis_position: int | None) -> Lower:
    """`axis_position`: where the axis is an input; until operator set 19 it is an attribute."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        x = node.input(0)
        shape, kind = build.shape(x), build.type_of(x).dtype
        if len(shape) < 2 or shape[-1] not in (1, 2):
            raise BadModelError(f"{list(shape)} does not end in one or two parts of a number", where=node.where)
        require_single(build, x)
        axis, length = _known_axis(node, build, default_axis, axis_position), _known_length(node, build)
        open_axis = node.optional(axis_position) if axis is None and axis_position is not None else ""
        open_length = node.optional(1) if length is None else ""
        if axis is not None and not open_length:
            candidates = [(axis, length or _usual_length(node, shape[axis]))]
        else:
            candidates = _candidates(node, build, axis, length)
        signal = Term(build, in_f32(build, x))
        results = [cast(build, _along(signal, *entry, node).name, kind) for entry in candidates]
        if not open_axis and not open_length:
            return results[0]
        return chosen(build, _flags(build, open_axis, open_length, len(shape), candidates), results)

    return lower


def _kind(node: OnnxNode, length: int) -> Transform:
    return Transform(length, bool(node.int_attribute("inverse", 0)), bool(node.int_attribute("onesided", 0)))


def _known_axis(node: OnnxNode, build: GraphBuilder, default: int, position: int | None) -> int | None:
    rank = len(build.shape(node.input(0)))
    if position is None:
        axis = node.int_attribute("axis", default)
    elif not node.optional(position):
        axis = default
    else:
        known = build.constant_of(node.optional(position))
        if known is None:
            return None
        axis = int(known.reshape(-1)[0])
    resolved = positive_axis(node, axis, rank)
    if resolved == rank - 1:
        raise BadModelError(f"axis {axis} holds the parts of the numbers", where=node.where)
    return resolved


def _known_length(node: OnnxNode, build: GraphBuilder) -> int | None:
    """The length that is asked for: 0 where that is the usual one, None where it comes at run time."""
    if not node.optional(1):
        return 0
    known = build.constant_of(node.optional(1))
    if known is None:
        return None
    length = int(known.reshape(-1)[0])
    if length < 1:
        raise BadModelError(f"a transform of length {length}", where=node.where)
    return length


def _usual_length(node: OnnxNode, size: int) -> int:
    kind = _kind(node, 1)
    return 2 * (size - 1) if kind.is_inverse and kind.is_one_sided else size


def _candidates(node: OnnxNode, build: GraphBuilder, axis: int | None, length: int | None) -> list[_Candidate]:
    """What gives the declared shape."""
    shape, declared = build.shape(node.input(0)), declared_result(node, build)
    if len(declared) != len(shape):
        raise BadModelError(f"declares {list(declared)} for the transform of {list(shape)}", where=node.where)
    found = []
    for place in range(len(shape) - 1) if axis is None else (axis,):
        size = declared[place]
        lengths = (length or _usual_length(node, shape[place]),) if length is not None else _lengths(node, size)
        for entry in lengths:
            kind = _kind(node, max(entry, 1))
            made = (*shape[:place], kind.outputs, *shape[place + 1 : -1], kind.parts)
            if entry >= 1 and made == declared:
                found.append((place, entry))
    if not 0 < len(found) <= MOST_CANDIDATES:
        raise CannotLower(f"{len(found)} axes and lengths give the shape that the model declares for its result")
    return found


def _lengths(node: OnnxNode, size: int) -> tuple[int, ...]:
    """The lengths of a transform that gives `size` elements."""
    kind = _kind(node, 1)
    return (2 * size - 2, 2 * size - 1) if kind.is_one_sided and not kind.is_inverse else (size,)


def _flags(build: GraphBuilder, axis: str, length: str, rank: int, candidates: Sequence[_Candidate]) -> str:
    """For each candidate whether it is the one that is asked for."""
    conditions = []
    if axis:
        conditions.append(are(build, counted_from_front(build, axis, rank), [entry[0] for entry in candidates]))
    if length:
        conditions.append(are(build, flattened(build, length), [entry[1] for entry in candidates]))
    return conditions[0] if len(conditions) == 1 else build.emit("and", conditions)


def _along(x: Term, axis: int, length: int, node: OnnxNode) -> Term:
    """The transform along one axis: it comes before the parts, and goes back."""
    rank = len(x.shape)
    perm = (*(place for place in range(rank - 1) if place != axis), axis, rank - 1)
    moved = x.transpose(*perm)
    others = moved.shape[:-2]
    made = transformed(moved.reshape(math.prod(others), *moved.shape[-2:]), _kind(node, length))
    back = tuple(perm.index(place) for place in range(rank))
    return made.reshape(*others, *made.shape[-2:]).transpose(*back)


def _stft(node: OnnxNode, build: GraphBuilder) -> Results:
    """Frames of the signal times the window, each transformed."""
    signal, window = node.input(0), node.optional(2)
    shape, kind = build.shape(signal), build.type_of(signal).dtype
    if len(shape) != 3 or shape[-1] not in (1, 2):
        raise BadModelError(f"the signal is {list(shape)}, not [batch, length, 1 or 2]", where=node.where)
    x = Term(build, in_f32(build, signal))
    shaped = Term(build, in_f32(build, window)) if window else None
    step = build.constant_of(node.input(1))
    lengths = _frame_lengths(node, build)
    given_length = node.optional(3)
    is_open = bool(given_length) and build.constant_of(given_length) is None
    results, flags = [], []
    for length in lengths:
        steps, conditions = _frame_steps(node, build, length, step)
        if is_open:
            conditions.append(are(build, flattened(build, given_length), (length,)))
        made = cast(build, _framed(node, x, shaped, length, steps).name, kind)
        results.append(made)
        flags.append(conditions)
    if len(results) == 1:
        return held(build, results[0], flags[0])
    lined = [_together(build, conditions) for conditions in flags]
    return chosen(build, build.emit("concat", lined, {"axis": 0}), results)


def _together(build: GraphBuilder, conditions: Sequence[str]) -> str:
    """All of the conditions, each bool[1]."""
    result = conditions[0]
    for other in conditions[1:]:
        result = build.emit("and", (result, other))
    return result


def _frame_lengths(node: OnnxNode, build: GraphBuilder) -> tuple[int, ...]:
    """The frame length as it is given, or as the declared result leaves open."""
    window, given = node.optional(2), node.optional(3)
    known = build.constant_of(given) if given else None
    length = None if known is None else int(known.reshape(-1)[0])
    if window:
        (size,) = build.shape(window)
        if length is not None and length != size:
            raise BadModelError(f"a window of {size} elements for frames of {length}", where=node.where)
        return (size,)
    signal = build.shape(node.input(0))[1]
    if length is None and given:
        declared = declared_result(node, build)
        bins = declared[2] if len(declared) == 4 else 0
        possible = (2 * bins - 2, 2 * bins - 1) if node.int_attribute("onesided", 1) else (bins,)
        found = tuple(entry for entry in possible if 1 <= entry <= signal)
        if not found:
            raise BadModelError(f"declares {list(declared)} for a signal of {signal} elements", where=node.where)
        return found
    return (signal if length is None else length,)


def _frame_steps(node: OnnxNode, build: GraphBuilder, length: int, known: np.ndarray | None) -> tuple[Term, list[str]]:
    """The first element of each frame, i32[frames, 1]; and what must hold of a step that comes at run time."""
    signal = build.shape(node.input(0))[1]
    if known is not None:
        step = int(known.reshape(-1)[0])
        if step < 1 or not 1 <= length <= signal:
            raise BadModelError(f"frames of {length} in steps of {step} in {signal} elements", where=node.where)
        starts = np.arange(0, signal - length + 1, step, dtype=np.int32)
        return constant(build, starts.reshape(-1, 1)), []
    declared = declared_result(node, build)
    frames = declared[1] if len(declared) == 4 else 0
    if frames < 1 or length > signal:
        raise BadModelError(f"declares {list(declared)} for a signal of {signal} elements", where=node.where)
    value = Term(build, flattened(build, node.input(1))).to("i32")
    fits = (value * (frames - 1) <= signal - length) & (value * frames > signal - length)
    return value * np.arange(frames, dtype=np.int32).reshape(frames, 1), [(fits & (value > 0)).name]


def _framed(node: OnnxNode, x: Term, window: Term | None, length: int, starts: Term) -> Term:
    batch, signal, parts = x.shape
    frames = starts.shape[0]
    places = (starts + np.arange(length, dtype=np.int32)).within(0, signal - 1)
    taken = x.gather(places, 1)
    if window is not None:
        taken = taken * window.reshape(length, 1)
    kind = Transform(length, is_one_sided=bool(node.int_attribute("onesided", 1)))
    made = transformed(taken.reshape(batch * frames, length, parts), kind)
    return made.reshape(batch, frames, kind.outputs, kind.parts)


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("DFT", _dft(1, None), since=17, until=19),
    OpType("DFT", _dft(-2, 2), since=20),
    OpType("STFT", _stft),
)
