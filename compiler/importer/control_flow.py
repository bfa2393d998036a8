"""Lowering of If, Loop and Scan: inner graphs in place, as often as they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import onnx

from birc.compiler.importer.bodies import graph_attribute
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape
from birc.compiler.ir.types import TensorType
from birc.runtime.errors import BadModelError


@dataclass(frozen=True, slots=True)
class Opened:
    """An inner graph whose constants, and whose nodes that are the same each time, are there already.

    `values` are the names known inside; `nodes` are those that remain.
    """

    graph: onnx.GraphProto
    values: MutableMapping[str, str]
    nodes: tuple[onnx.NodeProto, ...]


class Bodies(Protocol):
    """What the importer does for a node with inner graphs."""

    def open(self, graph: onnx.GraphProto) -> Opened:
        """Prepare a graph among the attributes of the node."""

    def lower(self, opened: Opened, inputs: Sequence[str], label: str) -> tuple[str, ...]:
        """Lower the nodes once, for the inputs of the inner graph. Returns its outputs.

        Raises `CannotLower` when one of them has no lowering, or when all together become too many.
        """


LowerControl = Callable[[OnnxNode, GraphBuilder, Bodies], tuple[str, ...]]


def _if(node: OnnxNode, build: GraphBuilder, bodies: Bodies) -> tuple[str, ...]:
    """Both branches, and a choice between their results. (A branch that is known to be taken is lowered alone.)"""
    condition = reshape(build, node.input(0), ())
    otherwise = build.emit("not", (condition,))
    sides = []
    for name, holds in (("then_branch", condition), ("else_branch", otherwise)):
        with build.assuming(holds):
            sides.append(bodies.lower(bodies.open(graph_attribute(node, name)), (), name.removesuffix("_branch")))
    for results in sides:
        if len(results) < len(node.outputs):
            what = f"a branch gives {len(results)} results, {len(node.outputs)} are asked for"
            raise BadModelError(what, where=node.where)
    chosen = []
    for place, (taken, other) in enumerate(zip(*sides, strict=False)):
        if place < len(node.outputs):
            chosen.append(choice(build, condition, taken, other) if node.uses_output(place) else "")
    return tuple(chosen)


def choice(build: GraphBuilder, condition: str, taken: str, other: str) -> str:
    """`taken` where the scalar `condition` holds, else `other`. Raises `CannotLower` when their types differ."""
    if taken == other:
        return taken
    types = build.type_of(taken), build.type_of(other)
    if types[0].logical != types[1].logical:
        raise CannotLower(f"its result is {types[0]} or {types[1]}, as is decided at run time")
    return build.emit("where", (condition, taken, other))


def stacked(build: GraphBuilder, parts: Sequence[str], axis: int, type: TensorType) -> str:
    """`parts`, each of `type`, one after the other along a new dimension. Raises `CannotLower` when one is not."""
    sizes = type.sizes
    if any(build.type_of(part).logical != type.logical for part in parts):
        raise CannotLower("what its iterations give differs in type or shape")
    if not parts:
        return build.constant(np.zeros((*sizes[:axis], 0, *sizes[axis:]), type.dtype.numpy))
    placed = [reshape(build, part, (*sizes[:axis], 1, *sizes[axis:])) for part in parts]
    return placed[0] if len(placed) == 1 else build.emit("concat", placed, {"axis": axis})


def types_of_a_run(
    build: GraphBuilder, bodies: Bodies, opened: Opened, inputs: Sequence[str], outputs: slice
) -> list[TensorType]:
    """What a graph that never runs would give: it is lowered, looked at and forgotten."""
    build.settle()
    state = build.checkpoint()
    types = [build.type_of(name) for name in bodies.lower(opened, inputs, "never")[outputs]]
    build.restore(state)
    return types


@dataclass(slots=True)
class _Course:
    """A loop on its way: the values it carries, what it has given so far, and whether it still goes on.

    `going` is a truth that is known, or a scalar bool of run time. `promised` collects what must hold for the loop to
    run as often as its declared results say.
    """

    carried: tuple[str, ...]
    given: list[list[str]]
    going: str | bool
    promised: list[str] = field(default_factory=list)


def _loop(node: OnnxNode, build: GraphBuilder, bodies: Bodies) -> tuple[str, ...]:
    """As many copies of the body as it runs iterations.

    When that is only known at run time, two things help. A declared result says how many entries the iterations gave:
    then the program is held to it. Or the number has a bound: then iterations beyond the last one run too, and leave
    the carried values as they are.
    """
    opened = bodies.open(graph_attribute(node, "body"))
    num_carried = len(opened.graph.input) - 2
    num_given = len(opened.graph.output) - 1 - num_carried
    if len(node.inputs[2:]) != num_carried or num_given < 0 or len(node.outputs) > num_carried + num_given:
        what = f"a body of {len(opened.graph.input)} inputs and {len(opened.graph.output)} outputs for a loop with "
        raise BadModelError(f"{what}{len(node.inputs)} and {len(node.outputs)}", where=node.where)
    limit, condition = node.optional(0), node.optional(1)
    wanted = _declared_trips(node, build, num_carried)
    course = _Course(node.inputs[2:], [[] for _ in range(num_given)], _truth(build, condition))
    trip = 0
    while True:
        within = _is_below(build, trip, limit)
        course.going = _both(build, course.going, within)
        if course.going is False or (isinstance(course.going, str) and trip == wanted):
            break
        if isinstance(course.going, str):
            _check_bound(node, build, num_carried, wanted)
        elif not limit and not condition:
            raise CannotLower("it has no end")
        _iterate(node, build, bodies, opened, course, trip, wanted)
        trip += 1
    return _loop_results(node, build, bodies, opened, course)


def _declared_trips(node: OnnxNode, build: GraphBuilder, num_carried: int) -> int | None:
    """How many iterations the declared shapes of what they give tell, None when they do not."""
    for place in range(num_carried, len(node.outputs)):
        shape = build.declared_shape(node, place)
        if shape:
            return shape[0]
    return None


def _check_bound(node: OnnxNode, build: GraphBuilder, num_carried: int, wanted: int | None) -> None:
    """See that a loop that goes on at run time alone has a last iteration."""
    if wanted is not None:
        return
    if any(node.uses_output(place) for place in range(num_carried, len(node.outputs))):
        raise CannotLower("how many entries its iterations give is only known at run time")
    if not node.optional(0) or build.constant_of(node.optional(0)) is None:
        raise CannotLower("how often it runs is only known at run time")


def _truth(build: GraphBuilder, condition: str) -> str | bool:
    """A condition as a truth that is known or a scalar of run time; none at all holds always."""
    if not condition:
        return True
    known = build.constant_of(condition)
    return reshape(build, condition, ()) if known is None else bool(known.reshape(-1)[:1].any())


def _is_below(build: GraphBuilder, trip: int, limit: str) -> str | bool:
    """Whether iteration `trip` is within the trip count `limit` (a scalar, "" for none)."""
    if not limit:
        return True
    known = build.constant_of(limit)
    if known is not None:
        return trip < int(known.reshape(-1)[0])
    return build.emit("greater", (reshape(build, limit, ()), build.scalar(trip, limit)))


def _both(build: GraphBuilder, a: str | bool, b: str | bool) -> str | bool:
    if isinstance(a, bool):
        return b if a else False
    if isinstance(b, bool):
        return a if b else False
    return build.emit("and", (a, b))


def _iterate(
    node: OnnxNode,
    build: GraphBuilder,
    bodies: Bodies,
    opened: Opened,
    course: _Course,
    trip: int,
    wanted: int | None,
) -> None:
    """One more copy of the body, which sees its number and, as it runs, that the condition holds."""
    going, before = course.going, course.carried
    inputs = (*_counters(build, opened.graph, trip), *before)
    if isinstance(going, str) and wanted is None:
        with build.assuming(going):
            results = bodies.lower(opened, inputs, str(trip))
    else:
        results = bodies.lower(opened, inputs, str(trip))
    carried = results[1 : 1 + len(before)]
    for place, result in enumerate(results[1 + len(before) :]):
        course.given[place].append(result)
    goes_on = _truth(build, results[0]) if node.optional(1) else True
    if isinstance(going, str) and wanted is None:
        carried = tuple(choice(build, going, new, old) for new, old in zip(carried, before, strict=True))
        goes_on = _both(build, going, goes_on)
    elif isinstance(going, str):
        course.promised.append(going)
    course.carried, course.going = carried, goes_on


def _counters(build: GraphBuilder, body: onnx.GraphProto, trip: int) -> tuple[str, str]:
    """The number of the iteration and a condition that holds, of the rank that the body declares."""
    shapes = [(1,) * len(entry.type.tensor_type.shape.dim) for entry in body.input[:2]]
    return build.constant(np.full(shapes[0], trip, np.int64)), build.constant(np.full(shapes[1], True))


def _loop_results(
    node: OnnxNode, build: GraphBuilder, bodies: Bodies, opened: Opened, course: _Course
) -> tuple[str, ...]:
    """The carried values, and what the iterations gave, stacked: all held to what was promised."""
    if isinstance(course.going, str):
        course.promised.append(build.emit("not", (course.going,)))
    num_carried, results = len(course.carried), []
    types: list[TensorType] = []
    if course.given and not course.given[0]:
        inputs = (*_counters(build, opened.graph, 0), *course.carried)
        types = types_of_a_run(build, bodies, opened, inputs, slice(1 + num_carried, None))
    for place in range(len(node.outputs)):
        if not node.uses_output(place):
            results.append("")
        elif place < num_carried:
            results.append(course.carried[place])
        else:
            parts = course.given[place - num_carried]
            type = build.type_of(parts[0]) if parts else types[place - num_carried]
            results.append(stacked(build, parts, 0, type))
    if not course.promised:
        return tuple(results)
    holds = course.promised[0]
    for promise in course.promised[1:]:
        holds = build.emit("and", (holds, promise))
    return tuple(build.guarded(result, holds) if result else "" for result in results)


CONTROL_FLOW: Final[Mapping[str, LowerControl]] = {"If": _if, "Loop": _loop}
