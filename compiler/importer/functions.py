"""The functions that a model brings along: which there are, and that calling them comes to an end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import onnx

from birc.compiler.importer.domains import standard_domain
from birc.runtime.errors import BadModelError, UnsupportedError

DEEPEST_CALL: Final = 64
"""How deep functions, and graphs inside of nodes, may be inside of each other."""

MOST_NODES: Final = 100_000
"""Nodes that a model may have with the body of a function in the place of each call."""

FunctionKey = tuple[str, str, str]


def local_functions(model: onnx.ModelProto) -> dict[FunctionKey, onnx.FunctionProto]:
    """The functions that the model brings along, by domain, name and overload."""
    return {(standard_domain(f.domain), f.name, f.overload): f for f in model.functions}


@dataclass(frozen=True, slots=True)
class _Extent:
    """How deep the calls below a function go, and how many nodes stand for one call of it."""

    depth: int
    nodes: int


def check_functions(functions: Mapping[FunctionKey, onnx.FunctionProto], graph: onnx.GraphProto) -> None:
    """See that the calls in `graph` can be replaced by the functions' bodies.

    Raises `BadModelError` when a function calls itself, directly or through others, and `UnsupportedError` when calls
    are too deep or stand for too many nodes.
    """
    known: dict[FunctionKey, _Extent] = {}
    called = dict.fromkeys(key for key in map(_key, _nodes(graph.node)) if key in functions)
    for key in called:
        _measure(key, functions, known)
    nodes = sum(known[key].nodes if (key := _key(node)) in known else 1 for node in _nodes(graph.node))
    if nodes > MOST_NODES and called:
        what = f"its functions stand for {nodes} nodes, at most {MOST_NODES} are read"
        raise UnsupportedError(what, where=graph.name)


def _measure(
    start: FunctionKey, functions: Mapping[FunctionKey, onnx.FunctionProto], known: dict[FunctionKey, _Extent]
) -> None:
    """Enter the extent of `start` and of all functions below it. Without recursion: who knows how deep they go."""
    path = {start: None}  # in order
    pending = [iter(_callees(functions[start], functions))]
    while path:
        callee = next((key for key in pending[-1] if key not in known), None)
        if callee is None:
            key, _ = path.popitem()
            pending.pop()
            known[key] = _extent(key, functions, known)
            continue
        if callee in path:
            above = list(path)
            cycle = " -> ".join(key[1] for key in (*above[above.index(callee) :], callee))
            raise BadModelError(f"function {callee[1]!r} calls itself: {cycle}")
        path[callee] = None
        pending.append(iter(_callees(functions[callee], functions)))


def _extent(
    key: FunctionKey, functions: Mapping[FunctionKey, onnx.FunctionProto], known: Mapping[FunctionKey, _Extent]
) -> _Extent:
    nodes, depth = 0, 1
    for node in _nodes(functions[key].node):
        callee = known.get(_key(node))
        nodes += callee.nodes if callee else 1
        depth = max(depth, callee.depth + 1 if callee else 1)
    if depth > DEEPEST_CALL:
        what = f"function {key[1]!r} calls others more than {DEEPEST_CALL} deep"
        raise UnsupportedError(what, hint="inline them first, by onnx.inliner")
    return _Extent(depth, nodes)


def _callees(
    function: onnx.FunctionProto, functions: Mapping[FunctionKey, onnx.FunctionProto]
) -> Iterable[FunctionKey]:
    return dict.fromkeys(key for key in map(_key, _nodes(function.node)) if key in functions)


def _key(node: onnx.NodeProto) -> FunctionKey:
    return standard_domain(node.domain), node.op_type, node.overload


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of the graphs inside of them. Raises `UnsupportedError` when these are too deep."""
    pending = [(node, 0) for node in nodes][::-1]
    while pending:
        node, depth = pending.pop()
        if depth > DEEPEST_CALL:
            raise UnsupportedError(f"graphs inside of nodes are more than {DEEPEST_CALL} deep")
        yield node
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                pending.extend((inner, depth + 1) for inner in reversed(graph.node))
