"""The graphs among the attributes of one node, and how much may be lowered in its place."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Final

import onnx

from birc.compiler.importer.bodies import captured_names, inner_constants
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.control_flow import Opened
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.runtime.errors import BadModelError

MOST_NODES: Final = 4_000
"""Nodes of the graph that one node with inner graphs may become."""

MOST_LOWERED: Final = 20_000
"""Nodes of inner graphs that are lowered for it, even if they leave nothing behind."""

LowerNodes = Callable[[Sequence[onnx.NodeProto], MutableMapping[str, str], onnx.GraphProto, str], None]
"""Lowers nodes of an inner graph, where names mean what the mapping says; the text begins the names of its copy."""


class Budget:
    """What an outermost node with inner graphs, and all those inside it, may still take."""

    def __init__(self, build: GraphBuilder) -> None:
        self._build = build
        self._first = build.num_nodes
        self._lowered = 0

    def spend(self, count: int) -> None:
        """Take `count` more nodes of inner graphs. Raises `CannotLower` when there are too many, or of the graph."""
        self._lowered += count
        if self._lowered > MOST_LOWERED:
            raise CannotLower(f"unrolled, it has more than {MOST_LOWERED} nodes of inner graphs, the limit")
        if self._build.num_nodes - self._first > MOST_NODES:
            raise CannotLower(f"unrolled, it takes more than {MOST_NODES} nodes, the limit")


class InnerGraphs:
    """The graphs of `node`, whose outer names mean what `values` says; see `control_flow.Bodies`."""

    def __init__(
        self,
        build: GraphBuilder,
        node: OnnxNode,
        values: MutableMapping[str, str],
        folder: Path | None,
        budget: Budget,
        lower_nodes: LowerNodes,
    ) -> None:
        self._build = build
        self._node = node
        self._values = values
        self._folder = folder
        self._budget = budget
        self._lower_nodes = lower_nodes

    def open(self, graph: onnx.GraphProto) -> Opened:
        """`graph` with its constants, and with those nodes lowered that do not depend on its inputs."""
        constants = inner_constants(graph, self._node, self._build, self._folder)
        values: MutableMapping[str, str] = ChainMap(constants, self._values)
        changing, rest, fixed = {entry.name for entry in graph.input}, [], []
        for proto in graph.node:
            if changing.isdisjoint((*proto.input, *captured_names(proto))):
                fixed.append(proto)
            else:
                rest.append(proto)
                changing.update(proto.output)
        if graph.input:
            self._lower(fixed, values, graph, "")
            return Opened(graph, values, tuple(rest))
        return Opened(graph, values, tuple(graph.node))

    def lower(self, opened: Opened, inputs: Sequence[str], label: str) -> tuple[str, ...]:
        """One copy of the graph for these inputs; the names of its outputs."""
        graph = opened.graph
        given = dict(zip((entry.name for entry in graph.input), inputs, strict=True))
        values: MutableMapping[str, str] = ChainMap(given, opened.values)
        self._lower(opened.nodes, values, graph, f"{label}/")
        for entry in graph.output:
            if entry.name not in values:
                raise BadModelError(f"output {entry.name!r} inside it is computed by no node", where=self._node.where)
        return tuple(values[entry.name] for entry in graph.output)

    def _lower(
        self, nodes: Sequence[onnx.NodeProto], values: MutableMapping[str, str], graph: onnx.GraphProto, label: str
    ) -> None:
        self._build.settle()
        declared = self._build.declared
        self._budget.spend(len(nodes) + 1)
        try:
            self._lower_nodes(nodes, values, graph, label)
        except BadModelError as error:
            if self._build.is_speculative:  # what is wrong there need not matter: it may never run
                raise CannotLower(f"inside it, which may not run: {error}") from error
            raise
        self._build.start_node(self._node.name)
        self._build.declared = declared
