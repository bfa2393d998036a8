"""The verifier of the graph IR: every broken rule at once, each shown with the node and its neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from birc.compiler.ir.errors import InvalidIRError, TypeRuleError
from birc.compiler.ir.graph import GROUP, Graph, Node
from birc.compiler.ir.printer import node_text
from birc.compiler.ir.table import has_row, row
from birc.compiler.ir.types import TensorType

_SHOWN_NEIGHBOURS: Final = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule; `place` is the position of the node in the graph's list, None for the graph itself."""

    what: str
    place: int | None = None


def verify_graph(graph: Graph) -> None:
    """Check all rules of the IR: definitions, names, inputs, attributes, types, groups, outputs, fates.

    Raises `InvalidIRError` that lists every problem.
    """
    problems = list(find_problems(graph))
    if not problems:
        return
    report = "\n".join(_shown(graph, problem) for problem in problems)
    more = f" and {len(problems) - 1} more problems" if len(problems) > 1 else ""
    first = problems[0]
    where = f"graph {graph.name!r}"
    if first.place is not None:
        where += f", node %{graph.nodes[first.place].name}"
    raise InvalidIRError(
        first.what + more,
        where=where,
        problems=tuple(problem.what for problem in problems),
        report=report,
    )


def find_problems(graph: Graph) -> Iterator[Problem]:
    """Every broken rule of `graph` and of the bodies of its groups."""
    seen = {value.name: value.type for value in graph.inputs}
    yield from _name_problems(graph)
    seen.update((name, constant.type) for name, constant in graph.constants.items())
    for place, node in enumerate(graph.nodes):
        yield from (Problem(what, place) for what in _node_problems(node, seen, graph))
        seen.update((value.name, value.type) for value in node.outputs)
    for name in graph.outputs:
        if name not in seen:
            yield Problem(f"output %{name} is not defined")
    yield from _fate_problems(graph)


def _name_problems(graph: Graph) -> Iterator[Problem]:
    """Names given twice: among inputs and constants, then by nodes."""
    defined: set[str] = set()
    for name in (*(value.name for value in graph.inputs), *graph.constants):
        if name in defined:
            yield Problem(f"%{name} is defined twice")
        defined.add(name)
    for place, node in enumerate(graph.nodes):
        for value in node.outputs:
            if value.name in defined or not value.name:
                what = f"%{value.name} is defined twice" if value.name else "an output has no name"
                yield Problem(what, place)
            defined.add(value.name)


def _node_problems(node: Node, seen: Mapping[str, TensorType], graph: Graph) -> Iterator[str]:
    undefined = [name for name in dict.fromkeys(node.present_inputs) if name not in seen]
    for name in undefined:
        later = " before it is defined" if graph.has_value(name) else ", which is not defined"
        yield f"%{node.name} reads %{name}{later}"
    types = [seen[name] for name in node.present_inputs if name in seen]
    if node.op == GROUP:
        yield from _group_problems(node, None if undefined else types)
    elif not has_row(node.op):
        yield f"%{node.name} is of the unknown op {node.op!r}"
    else:
        yield from _row_problems(node, None if undefined else types)


def _row_problems(node: Node, types: list[TensorType] | None) -> Iterator[str]:
    """Whether the node fits its row; the type rule is asked only when everything before it holds."""
    entry = row(node.op)
    problem = entry.input_problem(node.inputs)
    wrong = [f"%{node.name}: {what}" for what in entry.attribute_problems(node.attributes)]
    if problem:
        wrong.insert(0, f"%{node.name}: {problem}")
    if node.body is not None:
        wrong.append(f"%{node.name} has a body, which only a group may have")
    yield from wrong
    if wrong or types is None:
        return
    try:
        expected = entry.infer(types, node.attributes)
    except TypeRuleError as error:
        yield f"%{node.name}: {node.op} {error}"
        return
    yield from _type_problems(node, expected)


def _type_problems(node: Node, expected: tuple[TensorType, ...]) -> Iterator[str]:
    """Layouts are free: a pass chooses them."""
    if len(expected) != len(node.outputs):
        yield f"%{node.name} has {len(node.outputs)} outputs, {node.op} gives {len(expected)}"
        return
    for value, type in zip(node.outputs, expected, strict=True):
        if value.type.logical != type.logical:
            yield f"%{value.name} is {value.type}, {node.op} gives {type}"


def _group_problems(node: Node, types: list[TensorType] | None) -> Iterator[str]:
    body = node.body
    if not isinstance(node.attributes.get("kind"), str):
        yield f"%{node.name}: a group has a string attribute kind"
    if body is None:
        yield f"%{node.name}: a group has a body"
        return
    yield from (f"in the body of %{node.name}: {problem.what}" for problem in find_problems(body))
    if body.constants:
        yield f"the body of %{node.name} has constants of its own: {', '.join(body.constants)}"
    if body.fates:
        yield f"the body of %{node.name} has fates, which belong to the whole graph"
    if "" in node.inputs or len(node.inputs) != len(body.inputs):
        yield f"%{node.name} gives {len(node.present_inputs)} inputs, its body takes {len(body.inputs)}"
    elif types is not None:
        for value, type in zip(body.inputs, types, strict=True):
            if value.type != type:
                yield f"input %{value.name} : {value.type} of the body of %{node.name} is given {type}"
    if all(body.has_value(name) for name in body.outputs):
        yield from _type_problems(node, tuple(body.type_of(name) for name in body.outputs))


def _fate_problems(graph: Graph) -> Iterator[Problem]:
    """A source has a node or a fate, never both, and one fate at most."""
    alive = {source for node in graph.nodes for source in node.sources}
    ended: set[str] = set()
    for fate in graph.fates:
        if fate.source in alive:
            yield Problem(f"source {fate.source!r} has a node and the fate {fate.fate}")
        if fate.source in ended:
            yield Problem(f"source {fate.source!r} has two fates")
        ended.add(fate.source)


def _shown(graph: Graph, problem: Problem) -> str:
    """The problem and, marked, the node among those around it."""
    if problem.place is None:
        return f"{problem.what}\n"
    first = max(0, problem.place - _SHOWN_NEIGHBOURS)
    around = range(first, min(len(graph.nodes), problem.place + _SHOWN_NEIGHBOURS + 1))
    lines = [f"{'->' if at == problem.place else '  '} {node_text(graph.nodes[at])}" for at in around]
    return "\n".join([problem.what, *lines, ""])
