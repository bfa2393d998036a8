"""Making a new graph from an old one: what passes use to add, replace, group and drop nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from birc.compiler.ir.attributes import AttributeValue
from birc.compiler.ir.errors import InvalidIRError
from birc.compiler.ir.graph import GROUP, Constant, Fate, FateKind, Graph, Node, Value
from birc.compiler.ir.table import row
from birc.compiler.ir.topology import topological_order
from birc.compiler.ir.types import TensorType


def make_node(
    op: str,
    inputs: Sequence[str],
    input_types: Sequence[TensorType],
    output_names: Sequence[str],
    attributes: Mapping[str, AttributeValue] | None = None,
    sources: Sequence[str] = (),
) -> Node:
    """A node of a row of the table: defaults put in, everything checked, output types inferred.

    `input_types` are those of the present inputs. Raises `TypeRuleError`.
    """
    entry = row(op)
    complete = entry.complete(attributes or {})
    types = entry.output_types(input_types, complete)
    outputs = tuple(Value(name, type) for name, type in zip(output_names, types, strict=True))
    return Node(op, tuple(inputs), outputs, complete, merge_sources(sources))


def merge_sources(sources: Sequence[str]) -> tuple[str, ...]:
    """The names, each once, in the order of their first appearance."""
    return tuple(dict.fromkeys(sources))


class GraphEditor:
    """A changeable copy of a graph. A node is known by the name of its first output.

    Every ONNX node name of the old graph is in the new one: on a node, or as a fate. Names whose nodes all
    went without a word are recorded as removed by `by`, the name of the pass.
    """

    def __init__(self, graph: Graph, by: str) -> None:
        self.by = by
        self.outputs = list(graph.outputs)
        self.constants = dict(graph.constants)
        self._old = graph
        self._nodes = {node.name: node for node in graph.nodes}
        self._order = [node.name for node in graph.nodes]
        self._before: dict[str, list[str]] = {}
        self._types = {name: constant.type for name, constant in graph.constants.items()}
        self._types.update((value.name, value.type) for value in graph.inputs)
        self._producers: dict[str, str] = {}
        self._users: dict[str, dict[str, None]] = {}
        self._fates = {fate.source: fate for fate in graph.fates}
        self._taken = set(self._types)
        self._next_suffix: dict[str, int] = {}
        for node in graph.nodes:
            self._register(node)

    def _register(self, node: Node) -> None:
        for value in node.outputs:
            self._types[value.name] = value.type
            self._producers[value.name] = node.name
            self._taken.add(value.name)
        for name in node.present_inputs:
            self._users.setdefault(name, {})[node.name] = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes as they are now, in the order of the old graph with new ones before their anchors."""
        placed: list[Node] = []
        for name in self._order:
            self._place(name, placed)
        return tuple(placed)

    def _place(self, name: str, placed: list[Node]) -> None:
        """Append the node `name` after all that was put before it.

        Anchors may be chained as long as the graph, so without recursion.
        """
        pending = [(name, False)]
        while pending:
            current, ready = pending.pop()
            earlier = self._before.get(current, ())
            if earlier and not ready:
                pending.append((current, True))
                pending.extend((item, False) for item in reversed(earlier))
            elif current in self._nodes:
                placed.append(self._nodes[current])

    def type_of(self, name: str) -> TensorType:
        """The type of the value called `name`. Raises `InvalidIRError` when there is none."""
        if name not in self._types:
            raise InvalidIRError(f"there is no value %{name}", where=f"graph {self._old.name!r}")
        return self._types[name]

    def producer(self, name: str) -> Node | None:
        """The node that computes `name` now; None for inputs and constants."""
        return self._nodes.get(self._producers.get(name, ""))

    def users(self, name: str) -> tuple[Node, ...]:
        """The nodes that read `name` now, each once, in the order in which they came to read it."""
        return tuple(self._nodes[user] for user in self._users.get(name, ()))

    def is_used(self, name: str) -> bool:
        """Whether a node reads `name` or the graph gives it out."""
        return bool(self._users.get(name)) or name in self.outputs

    def fresh_name(self, stem: str) -> str:
        """A value name that nobody has: `stem`, or `stem.1`, `stem.2`, ...; it is taken from now on."""
        name, suffix = stem, self._next_suffix.get(stem, 1)
        while name in self._taken:
            name = f"{stem}.{suffix}"
            suffix += 1
        self._next_suffix[stem] = suffix
        self._taken.add(name)
        return name

    def add_constant(self, data: np.ndarray | Constant, stem: str = "constant") -> str:
        """Add a constant and return its name."""
        constant = data if isinstance(data, Constant) else Constant.of(data)
        name = self.fresh_name(stem)
        self.constants[name] = constant
        self._types[name] = constant.type
        return name

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        stem: str = "",
        sources: Sequence[str] = (),
        before: Node | str | None = None,
    ) -> str:
        """Add a node and return the name of its first output.

        It goes before the node `before` (or, by default, to the end; finish() puts nodes in order of
        execution anyway). Raises `TypeRuleError` when the row refuses the inputs or attributes.
        """
        types = tuple(self.type_of(name) for name in inputs if name)
        name = self.fresh_name(stem or op)
        return self.insert(make_node(op, inputs, types, (name,), attributes, sources), before=before)

    def insert(self, node: Node, *, before: Node | str | None = None) -> str:
        """Add a finished node, whose output names must be fresh, and return the name of its first output."""
        if node.name in self._nodes:
            raise InvalidIRError(f"there is already a value %{node.name}", where=f"pass {self.by}")
        self._nodes[node.name] = node
        self._register(node)
        anchor = before.name if isinstance(before, Node) else before
        if anchor is None:
            self._order.append(node.name)
        else:
            self._before.setdefault(anchor, []).append(node.name)
        return node.name

    def update(self, node: Node, **changes: object) -> Node:
        """Change fields of a node in place (attributes, inputs, sources, types; not its output names)."""
        current = self._nodes[node.name]
        changed = current.replace(**changes)
        if [value.name for value in changed.outputs] != [value.name for value in current.outputs]:
            raise InvalidIRError(f"update would rename the outputs of %{node.name}", where=f"pass {self.by}")
        self._forget_uses(current)
        self._nodes[node.name] = changed
        self._register(changed)
        return changed

    def lay_out(self, name: str, layout: tuple[int, ...] | None) -> str:
        """Let the value of a node be stored in an order of its dimensions (None: in their own); its name."""
        node = self.producer(name)
        if node is not None:
            self.update(node, outputs=(replace(node.output, type=replace(node.output.type, layout=layout)),))
        return name

    def _forget_uses(self, node: Node) -> None:
        for name in node.present_inputs:
            self._users.get(name, {}).pop(node.name, None)

    def replace_uses(self, old: str, new: str) -> None:
        """Let every reader of `old`, and the graph's outputs, use `new`."""
        if self.type_of(old).logical != self.type_of(new).logical:
            raise InvalidIRError(
                f"%{new} : {self.type_of(new)} cannot stand for %{old} : {self.type_of(old)}",
                where=f"pass {self.by}",
            )
        for user in self.users(old):
            self.update(user, inputs=tuple(new if name == old else name for name in user.inputs))
        self.outputs = [new if name == old else name for name in self.outputs]

    def drop(self, node: Node | str, fate: FateKind = "removed", into: str = "") -> None:
        """Take a node out; its sources get this fate unless another node carries them at the end.

        Raises `InvalidIRError` when one of its outputs is still used.
        """
        name = node.name if isinstance(node, Node) else node
        current = self._nodes[name]
        used = [value.name for value in current.outputs if self.is_used(value.name)]
        if used:
            raise InvalidIRError(f"%{used[0]} is still used and cannot be dropped", where=f"pass {self.by}")
        self._forget_uses(current)
        del self._nodes[name]
        for value in current.outputs:
            del self._producers[value.name]
            del self._types[value.name]
        for source in current.sources:
            self._fates[source] = Fate(source, fate, self.by, into)

    def replace(self, node: Node, new: str, fate: FateKind = "merged") -> None:
        """Let the value `new` stand for the only output of `node`, and drop the node with this fate."""
        if len(node.outputs) != 1:
            raise InvalidIRError(f"%{node.name} has {len(node.outputs)} outputs, not 1", where=f"pass {self.by}")
        self.replace_uses(node.name, new)
        self.drop(node, fate, into=new)

    def fold(self, node: Node, results: Sequence[np.ndarray]) -> None:
        """Put constants in the place of a node's outputs; its sources count as folded."""
        into = ""
        for value, data in zip(node.outputs, results, strict=True):
            into = self.add_constant(Constant(value.type.logical, data), f"{value.name}.folded")
            self.replace_uses(value.name, into)
        self.drop(node, "folded", into)

    def group(self, nodes: Sequence[Node], kind: str) -> str:
        """Put nodes (in order of execution) into one `group` node and return the name of its first output.

        Inputs are what they read from outside, outputs what is read from outside; the outputs keep their
        names. The nodes must be convex (topology.is_convex), else finish() finds a cycle.
        """
        members = {node.name for node in nodes}
        results = [value for node in nodes for value in node.outputs]
        made = {value.name for value in results}
        reads = dict.fromkeys(name for node in nodes for name in node.present_inputs if name not in made)
        given = [value for value in results if self._is_read_outside(value.name, members)]
        body = Graph(
            name=kind,
            inputs=tuple(Value(name, self.type_of(name)) for name in reads),
            outputs=tuple(value.name for value in given),
            nodes=tuple(nodes),
        )
        sources = merge_sources([source for node in nodes for source in node.sources])
        group = Node(GROUP, tuple(reads), tuple(given), {"kind": kind}, sources, body)
        anchor = nodes[-1].name
        for node in nodes:
            self._forget_uses(node)
            del self._nodes[node.name]
        for name in made.difference(value.name for value in given):
            del self._types[name], self._producers[name]
        self._nodes[group.name] = group
        self._register(group)
        if group.name not in members:
            self._before.setdefault(anchor, []).append(group.name)
        return group.name

    def _is_read_outside(self, name: str, members: set[str]) -> bool:
        return name in self.outputs or any(user not in members for user in self._users.get(name, ()))

    def drop_unused(self) -> int:
        """Drop the nodes whose results nobody uses, and the constants; return the number of nodes dropped."""
        dropped = 0
        for node in reversed(topological_order(self.nodes)):
            if not any(self.is_used(value.name) for value in node.outputs):
                self.drop(node)
                dropped += 1
        self.constants = {name: item for name, item in self.constants.items() if self.is_used(name)}
        return dropped

    def finish(self) -> Graph:
        """The new graph, its nodes in order of execution. Raises `InvalidIRError` for a cycle."""
        nodes = topological_order(self.nodes)
        alive = {source for node in nodes for source in node.sources}
        gone = [source for node in self._old.nodes for source in node.sources if source not in alive]
        for source in gone:
            self._fates.setdefault(source, Fate(source, "removed", self.by))
        fates = tuple(fate for source, fate in self._fates.items() if source not in alive)
        return Graph(self._old.name, self._old.inputs, tuple(self.outputs), nodes, self.constants, fates)
