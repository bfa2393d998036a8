"""Who runs what: the graph cut into parts that run one after the other, in turns on the device and on the host."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from birc.compiler.importer.host_call import HostCall
from birc.compiler.ir.graph import Graph, Node, Value

_FIRST_ON_DEVICE = 1


@dataclass(frozen=True, slots=True)
class DevicePart:
    """A graph for the device; its inputs and outputs are the values it shares with other parts."""

    graph: Graph

    @property
    def boundary(self) -> tuple[str, ...]:
        """The values that it shares with others."""
        return (*(value.name for value in self.graph.inputs), *self.graph.outputs)


@dataclass(frozen=True, slots=True)
class HostPart:
    """Consecutive calls on the host with one operator set, and the values that they share with other parts."""

    calls: tuple[HostCall, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def boundary(self) -> tuple[str, ...]:
        """The values that it shares with others."""
        return (*self.inputs, *self.outputs)


def placed(
    graph: Graph, calls: Sequence[HostCall], outputs: Sequence[str], constants: Container[str]
) -> tuple[DevicePart | HostPart, ...]:
    """The parts in order.

    `graph` holds all device nodes; what the host computes is among its inputs, and what the host reads among its
    outputs. `outputs` are those of the model; `constants` are known to host parts too. A node runs as early as its
    inputs allow; device parts have odd levels, host parts even ones. Calls whose results nobody needs are left out.
    """
    if not calls:
        return (DevicePart(graph),)
    needed = _needed(graph, calls, outputs)
    kept = [call for call in calls if any(name in needed for name in call.writes)]
    nodes = [node for node in graph.nodes if any(value.name in needed for value in node.outputs)]
    levels = _levels(graph.nodes, calls)
    constant_outputs = [name for name in outputs if name in graph.constants]
    last = max((levels[name] for name in needed if name in levels), default=0)
    parts: list[DevicePart | HostPart] = []
    for level in range(max(last, _FIRST_ON_DEVICE if constant_outputs else 0) + 1):
        if level % 2:
            here = [node for node in nodes if levels[node.name] == level]
            known = constant_outputs if level == _FIRST_ON_DEVICE else []
            part = _device_part(graph, here, outputs, kept, known, len(parts))
            if part.graph.outputs:
                parts.append(part)
        else:
            called = [call for call in kept if levels[call.writes[0]] == level]
            parts.extend(_host_parts(graph, called, outputs, kept, constants))
    return tuple(parts)


def _needed(graph: Graph, calls: Sequence[HostCall], outputs: Iterable[str]) -> set[str]:
    """The values on which the outputs of the model depend."""
    writers: dict[str, tuple[str, ...]] = {}
    for node in graph.nodes:
        writers.update(dict.fromkeys((value.name for value in node.outputs), node.present_inputs))
    for call in calls:
        writers.update(dict.fromkeys(call.writes, call.reads))
    needed: set[str] = set()
    pending = list(outputs)
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending.extend(writers.get(name, ()))
    return needed


def _levels(nodes: Sequence[Node], calls: Sequence[HostCall]) -> dict[str, int]:
    """The level of every computed value."""
    levels: dict[str, int] = {}
    waiting = deque(calls)
    for place, node in enumerate((*nodes, None)):
        while waiting and (node is None or waiting[0].position <= place):
            call = waiting.popleft()
            known = (levels[name] for name in call.reads if name in levels)
            level = max((found + found % 2 for found in known), default=0)
            levels.update(dict.fromkeys(call.writes, level))
        if node is not None:
            known = (levels[name] for name in node.present_inputs if name in levels)
            level = max((found + 1 - found % 2 for found in known), default=_FIRST_ON_DEVICE)
            levels.update(dict.fromkeys((value.name for value in node.outputs), level))
    return levels


def _device_part(
    graph: Graph,
    nodes: Sequence[Node],
    outputs: Sequence[str],
    calls: Sequence[HostCall],
    constant_outputs: Sequence[str],
    number: int,
) -> DevicePart:
    """The part of these nodes; it also gives the constants that are outputs of the model."""
    made = {value.name for node in nodes for value in node.outputs}
    inside = {id(node) for node in nodes}
    read_outside = {name for call in calls for name in call.reads}
    read_outside.update(n for node in graph.nodes if id(node) not in inside for n in node.present_inputs)
    taken = dict.fromkeys(name for node in nodes for name in node.present_inputs if name not in made)
    inputs = tuple(Value(name, graph.type_of(name)) for name in taken if name not in graph.constants)
    given = dict.fromkeys(
        [name for name in outputs if name in made or name in constant_outputs]
        + [value.name for node in nodes for value in node.outputs if value.name in read_outside]
    )
    sources = {source for node in nodes for source in node.sources}
    fates = tuple(fate for fate in graph.fates if fate.source not in sources) if number <= 1 else ()
    name = graph.name if number == 0 else f"{graph.name}.{number}"
    used = {name for node in nodes for name in node.present_inputs} | set(constant_outputs)
    constants = {key: constant for key, constant in graph.constants.items() if key in used}
    return DevicePart(Graph(name, inputs, tuple(given), tuple(nodes), constants, fates))


def _host_parts(
    graph: Graph,
    calls: Sequence[HostCall],
    outputs: Sequence[str],
    everywhere: Sequence[HostCall],
    constants: Container[str],
) -> list[HostPart]:
    """Neighbours with the same operator sets share a part."""
    parts = []
    for _, group in groupby(calls, key=lambda call: tuple(sorted(call.opsets.items()))):
        mine = tuple(group)
        made = dict.fromkeys(name for call in mine for name in call.writes)
        taken = dict.fromkeys(name for call in mine for name in call.reads)
        read_outside = set(outputs) | {n for node in graph.nodes for n in node.present_inputs}
        read_outside.update(name for call in everywhere if call not in mine for name in call.reads)
        inputs = tuple(name for name in taken if name not in made and name not in constants)
        parts.append(HostPart(mine, inputs, tuple(name for name in made if name in read_outside)))
    return parts
