"""What a pass is, and running a list of them with a check after each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.errors import InvalidIRError
from birc.compiler.ir.graph import Graph, Node, Value
from birc.compiler.ir.verify import verify_graph
from birc.runtime.errors import BircError, InternalError


@dataclass(frozen=True, slots=True)
class PassResult:
    """What a pass gives back: an unchanged graph is the very object that it was given. `stats` counts what it
    did.
    """

    graph: Graph
    changed: bool
    stats: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


class Pass(ABC):
    """A pure function of a graph. Subclasses are frozen dataclasses: their fields are the pass's options.

    The docstring of every pass shows a graph `before:` and `after:` it, in the text form of the IR; tests run
    it.
    """

    name: ClassVar[str]

    @abstractmethod
    def run(self, graph: Graph) -> PassResult:
        """The graph after the pass. The inputs and the names and types of the outputs stay what they are."""


OnPass = Callable[[Pass, Graph, PassResult], None]
"""Called after each pass with the pass, the graph before it, and its result."""


def run_passes(graph: Graph, passes: Sequence[Pass], on_pass: OnPass | None = None) -> Graph:
    """Run `passes` in order, checking the graph after each.

    Raises `InternalError` with the pass and the node when one breaks the graph, its interface or its own
    promise.
    """
    for step in passes:
        result = run_pass(step, graph)
        if on_pass is not None:
            on_pass(step, graph, result)
        graph = result.graph
    return graph


def run_pass(step: Pass, graph: Graph) -> PassResult:
    """Run one pass and check what it made. Raises `InternalError` as `run_passes` does."""
    try:
        result = step.run(graph)
        if result.changed:
            verify_graph(result.graph)
    except InvalidIRError as error:
        raise InternalError(f"pass {step} broke the graph: {error}", where=error.where) from error
    except BircError as error:
        raise InternalError(f"pass {step} failed: {error}", where=error.where) from error
    if result.changed == (result.graph is graph):
        said = "changed" if result.changed else "did not change"
        raise InternalError(f"pass {step} says it {said} the graph, which is not so")
    _check_interface(step, graph, result.graph)
    return result


def _check_interface(step: Pass, before: Graph, after: Graph) -> None:
    if after is before:
        return
    if [value.name for value in before.inputs] != [value.name for value in after.inputs]:
        raise InternalError(f"pass {step} changed the inputs of graph {before.name!r}")
    if before.outputs != after.outputs:
        raise InternalError(f"pass {step} renamed outputs {list(before.outputs)} to {list(after.outputs)}")
    for name in before.outputs:
        old, new = before.type_of(name), after.type_of(name)
        if old.logical != new.logical:
            raise InternalError(f"pass {step} changed the type of output %{name} from {old} to {new}")


def finish_edit(editor: GraphEditor, before: Graph) -> Graph:
    """The edited graph, its outputs under the names they had: whoever runs the graph knows them by name."""
    graph = editor.finish()
    for place, wanted in enumerate(before.outputs):
        if graph.outputs[place] != wanted:
            graph = _with_output_name(graph, place, wanted)
    return graph


def _with_output_name(graph: Graph, place: int, wanted: str) -> Graph:
    """Give output `place` the name `wanted`: rename the value, or copy it when it has a name to keep."""
    current = graph.outputs[place]
    outputs = tuple(wanted if index == place else name for index, name in enumerate(graph.outputs))
    if graph.has_value(wanted):  # an output that is given out twice is there already
        return graph.replace(outputs=outputs)
    if current in graph.constants:
        constants = {**graph.constants, wanted: graph.constants[current]}
        if current not in outputs and not graph.users(current):
            del constants[current]
        return graph.replace(outputs=outputs, constants=constants)
    if graph.producer(current) is None or current in outputs:
        type = graph.type_of(current).logical
        copy = Node("reshape", (current,), (Value(wanted, type),), {"shape": type.sizes}, _sources(graph, current))
        return graph.replace(outputs=outputs, nodes=(*graph.nodes, copy))
    return graph.replace(outputs=outputs, nodes=tuple(_renamed(node, current, wanted) for node in graph.nodes))


def _sources(graph: Graph, name: str) -> tuple[str, ...]:
    producer = graph.producer(name)
    return producer.sources if producer is not None else ()


def _renamed(node: Node, old: str, new: str) -> Node:
    if old not in node.inputs and all(value.name != old for value in node.outputs):
        return node
    inputs = tuple(new if name == old else name for name in node.inputs)
    outputs = tuple(Value(new, value.type) if value.name == old else value for value in node.outputs)
    return node.replace(inputs=inputs, outputs=outputs)
