"""Lowering of Scan: a copy of the body for each element along the scanned axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.bodies import graph_attribute
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.control_flow import Bodies, LowerControl, Opened, choice, stacked, types_of_a_run
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.shape import reshape, slice_axis
from birc.compiler.ir.types import TensorType
from birc.runtime.errors import BadModelError


def _element(build: GraphBuilder, x: str, axis: int, place: int) -> str:
    """The part of `x` at `place` of `axis`, without that axis."""
    shape = build.shape(x)
    return reshape(build, slice_axis(build, x, axis, place, place + 1), (*shape[:axis], *shape[axis + 1 :]))


def _split_inputs(node: OnnxNode, opened: Opened, values: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The initial states and the scanned inputs among `values`."""
    num_scanned = node.int_attribute("num_scan_inputs", 0)
    num_states = len(values) - num_scanned
    fits = len(opened.graph.input) == len(values) and 0 <= num_states <= len(opened.graph.output)
    if num_scanned < 1 or not fits or len(node.outputs) > len(opened.graph.output):
        what = f"{num_scanned} of {len(values)} inputs are scanned by a body of {len(opened.graph.input)} inputs"
        raise BadModelError(f"{what} and {len(opened.graph.output)} outputs", where=node.where)
    return values[:num_states], values[num_states:]


def _flags(node: OnnxNode, name: str, count: int) -> tuple[int, ...]:
    """An attribute with one integer for each of `count` inputs or outputs, 0 unless told."""
    values = node.ints_attribute(name, (0,) * count)
    if len(values) != count:
        raise BadModelError(f"attribute {name!r} has {len(values)} entries for {count}", where=node.where)
    return values


def _steps(node: OnnxNode, build: GraphBuilder, scanned: tuple[str, ...], axes: tuple[int, ...]) -> int:
    sizes = {build.shape(x)[axis] for x, axis in zip(scanned, axes, strict=True)}
    if len(sizes) != 1:
        raise BadModelError(f"the scanned axes have sizes {sorted(sizes)}", where=node.where)
    return sizes.pop()


def _scan(node: OnnxNode, build: GraphBuilder, bodies: Bodies) -> tuple[str, ...]:
    """Scan since operator set 9: axes and directions of inputs and outputs."""
    opened = bodies.open(graph_attribute(node, "body"))
    states, scanned = _split_inputs(node, opened, node.inputs)
    num_given = len(opened.graph.output) - len(states)
    axes = tuple(
        positive_axis(node, axis, len(build.shape(x)))
        for axis, x in zip(_flags(node, "scan_input_axes", len(scanned)), scanned, strict=True)
    )
    backwards = _flags(node, "scan_input_directions", len(scanned))
    output_axes, prepends = (
        _flags(node, "scan_output_axes", num_given),
        _flags(node, "scan_output_directions", num_given),
    )
    steps, first = _steps(node, build, scanned, axes), states
    given: list[list[str]] = [[] for _ in range(num_given)]
    for step in range(steps):
        places = [steps - 1 - step if backward else step for backward in backwards]
        elements = [_element(build, *entry) for entry in zip(scanned, axes, places, strict=True)]
        results = bodies.lower(opened, (*states, *elements), str(step))
        states = results[: len(states)]
        for place, result in enumerate(results[len(states) :]):
            given[place].append(result)
    types = [build.type_of(parts[0]) for parts in given if parts]
    if not steps and num_given:
        empty = [_empty(build, x, axis) for x, axis in zip(scanned, axes, strict=True)]
        types = types_of_a_run(build, bodies, opened, (*first, *empty), slice(len(states), None))
    outputs = list(states[: len(node.outputs)])
    for place in range(len(node.outputs) - len(states)):
        axis = positive_axis(node, output_axes[place], len(types[place].sizes) + 1)
        parts = given[place][::-1] if prepends[place] else given[place]
        outputs.append(stacked(build, parts, axis, types[place]) if node.uses_output(len(states) + place) else "")
    return tuple(outputs)


def _empty(build: GraphBuilder, x: str, axis: int) -> str:
    """What an element of `x` along `axis` would be."""
    type = build.type_of(x)
    return build.splat(0, TensorType(type.dtype, (*type.sizes[:axis], *type.sizes[axis + 1 :])))


@dataclass(frozen=True, slots=True)
class _Length:
    """The number of steps of one sequence: `value`, a scalar of run time, or `known` now."""

    value: str
    known: int | None


def _batched_scan(node: OnnxNode, build: GraphBuilder, bodies: Bodies) -> tuple[str, ...]:
    """Scan of operator set 8: each sequence of the batch by itself, over dimension 1, as long as it is.

    What a short sequence leaves of the outputs is 0.
    """
    opened = bodies.open(graph_attribute(node, "body"))
    states, scanned = _split_inputs(node, opened, node.inputs[1:])
    num_given = len(opened.graph.output) - len(states)
    steps = _steps(node, build, scanned, (1,) * len(scanned))
    batch = build.shape(scanned[0])[0]
    rows: list[list[str]] = []
    for sequence in range(batch):
        first = tuple(_element(build, x, 0, sequence) for x in states)
        parts = tuple(_element(build, x, 0, sequence) for x in scanned)
        rows.append(_scan_sequence(node, build, bodies, opened, first, parts, steps, num_given, sequence))
    outputs = []
    for place in range(len(node.outputs)):
        column = [row[place] for row in rows]
        outputs.append(stacked(build, column, 0, build.type_of(column[0])) if node.uses_output(place) else "")
    return tuple(outputs)


def _length(node: OnnxNode, build: GraphBuilder, sequence: int, steps: int) -> _Length:
    lengths = node.optional(0)
    if not lengths:
        return _Length("", steps)
    known = build.constant_of(lengths)
    if known is not None:
        return _Length("", min(int(known.reshape(-1)[sequence]), steps))
    return _Length(_element(build, lengths, 0, sequence), None)


def _scan_sequence(
    node: OnnxNode,
    build: GraphBuilder,
    bodies: Bodies,
    opened: Opened,
    states: tuple[str, ...],
    scanned: tuple[str, ...],
    steps: int,
    num_given: int,
    sequence: int,
) -> list[str]:
    """The last states and the stacked results of one sequence."""
    length = _length(node, build, sequence, steps)
    backwards = _flags(node, "directions", len(scanned))
    given: list[list[str]] = [[] for _ in range(num_given)]
    types: list[TensorType] = []
    for step in range(steps):
        if length.known is not None and step >= length.known and types:
            results = tuple(build.splat(0, type) for type in types)
        else:
            elements = [_at(build, *entry, length, step) for entry in zip(scanned, backwards, strict=True)]
            label = f"{sequence}.{step}"
            states, results = _sequence_step(build, bodies, opened, states, elements, length, step, label)
            types = [build.type_of(result) for result in results]
        for place, result in enumerate(results):
            given[place].append(result)
    return [*states, *(stacked(build, parts, 0, build.type_of(parts[0])) for parts in given)]


def _at(build: GraphBuilder, x: str, backward: int, length: _Length, step: int) -> str:
    """The element of `x` that `step` reads: backwards, the last one of the sequence comes first."""
    if not backward:
        return _element(build, x, 0, step)
    if length.known is not None:
        return _element(build, x, 0, max(length.known - 1 - step, 0))
    place = build.emit("sub", (length.value, build.scalar(step + 1, length.value)))
    place = build.emit("maximum", (place, build.scalar(0, place)))
    return build.emit("gather", (x, place), {"axis": 0})


def _sequence_step(
    build: GraphBuilder,
    bodies: Bodies,
    opened: Opened,
    states: tuple[str, ...],
    elements: list[str],
    length: _Length,
    step: int,
    label: str,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The states after one step and what it gives; beyond the end of the sequence, the states as they are and 0."""
    count = len(states)
    if length.known is not None:
        results = bodies.lower(opened, (*states, *elements), label)
        if step < length.known:
            return results[:count], results[count:]
        return states, tuple(build.splat(0, build.type_of(result)) for result in results[count:])
    going = build.emit("greater", (length.value, build.scalar(step, length.value)))
    with build.assuming(going):
        results = bodies.lower(opened, (*states, *elements), label)
    kept = tuple(choice(build, going, new, old) for new, old in zip(results[:count], states, strict=True))
    zeros = (build.constant(np.zeros((), build.type_of(result).dtype.numpy)) for result in results[count:])
    masked = (build.emit("where", (going, *pair)) for pair in zip(results[count:], zeros, strict=True))
    return kept, tuple(masked)


def lower_scan(node: OnnxNode, build: GraphBuilder, bodies: Bodies) -> tuple[str, ...]:
    """Scan of any operator set."""
    return (_batched_scan if node.version < 9 else _scan)(node, build, bodies)


SCAN: Final[Mapping[str, LowerControl]] = {"Scan": lower_scan}
