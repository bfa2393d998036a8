"""Orders and paths of a graph's nodes: the one module that imports networkx."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import networkx as nx

from birc.compiler.ir.errors import InvalidIRError
from birc.compiler.ir.graph import Node


def dependencies(nodes: Sequence[Node]) -> nx.DiGraph:
    """The directed graph over positions in `nodes`: an edge from the maker of a value to each reader."""
    made_by = {value.name: place for place, node in enumerate(nodes) for value in node.outputs}
    result = nx.DiGraph()
    result.add_nodes_from(range(len(nodes)))
    for place, node in enumerate(nodes):
        result.add_edges_from((made_by[name], place) for name in node.present_inputs if name in made_by)
    return result


def is_ordered(nodes: Sequence[Node]) -> bool:
    """Whether every node comes after the nodes whose values it reads."""
    made_by = {value.name: place for place, node in enumerate(nodes) for value in node.outputs}
    return all(made_by.get(name, -1) < place for place, node in enumerate(nodes) for name in node.present_inputs)


def topological_order(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes in an order of execution that keeps the given order where it can.

    Raises `InvalidIRError`, naming the cycle, when there is none.
    """
    if is_ordered(nodes):
        return tuple(nodes)
    try:
        return tuple(nodes[place] for place in nx.lexicographical_topological_sort(dependencies(nodes)))
    except nx.NetworkXUnfeasible:
        cycle = " -> ".join(f"%{name}" for name in find_cycle(nodes))
        raise InvalidIRError(f"nodes need each other: {cycle}") from None


def find_cycle(nodes: Sequence[Node]) -> tuple[str, ...]:
    """The names of nodes around one cycle, the first again at the end; empty when there is none."""
    try:
        edges = nx.find_cycle(dependencies(nodes))
    except nx.NetworkXNoCycle:
        return ()
    return (*(nodes[edge[0]].name for edge in edges), nodes[edges[0][0]].name)


def is_convex(nodes: Sequence[Node], chosen: Iterable[Node]) -> bool:
    """Whether no path leaves the chosen nodes and comes back: only then can they run as one kernel."""
    wanted = set(chosen)
    graph = dependencies(nodes)
    inside = {place for place, node in enumerate(nodes) if node in wanted}
    left = {after for place in inside for after in graph.successors(place) if after not in inside}
    seen = set(left)
    while left:
        reached = {after for place in left for after in graph.successors(place)}
        if reached & inside:
            return False
        left = reached - seen
        seen |= left
    return True
