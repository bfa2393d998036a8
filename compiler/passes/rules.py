"""Rewrite rules: small named functions from a node to its replacement, and the driver for them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from birc.compiler.ir.attributes import AttributeValue
from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import Constant, Graph, Node
from birc.compiler.ir.types import TensorType
from birc.compiler.passes.base import PassResult, finish_edit
from birc.runtime.errors import InternalError

# A rule set that makes more than this many changes a node is taken to run in circles.
_HITS_PER_NODE: Final = 20
_LEAST_BUDGET: Final = 1000


class Rewriter:
    """What a rule sees of the graph, and how it adds nodes to it."""

    def __init__(self, graph: Graph, by: str) -> None:
        self.editor = GraphEditor(graph, by)
        self._inputs = {value.name for value in graph.inputs}
        self.added: list[str] = []

    def constant(self, value: str) -> Constant | None:
        """The constant called `value`; None when it is computed."""
        return self.editor.constants.get(value)

    def number(self, value: str) -> float | None:
        """The number that all elements of a constant are; None when it is computed or its elements differ."""
        constant = self.constant(value)
        if constant is None or constant.data.size == 0 or constant.type.dtype.kind == "bool":
            return None
        if constant.is_splat or constant.data.size == 1:
            return float(constant.data.flat[0])
        return None

    def producer(self, value: str, *ops: str) -> Node | None:
        """The node that computes `value`, if it is one of `ops`."""
        node = self.editor.producer(value)
        return node if node is not None and node.op in ops else None

    def type_of(self, value: str) -> TensorType:
        """The type of `value`."""
        return self.editor.type_of(value)

    def sizes(self, value: str) -> tuple[int, ...]:
        """The shape of `value`. Raises `TypeRuleError` when it is not static."""
        return self.editor.type_of(value).sizes

    def is_output(self, value: str) -> bool:
        """Whether the graph gives `value` out."""
        return value in self.editor.outputs

    def has_one_use(self, value: str) -> bool:
        """Whether exactly one node reads `value`, once, and the graph does not give it out."""
        users = self.editor.users(value)
        return len(users) == 1 and users[0].inputs.count(value) == 1 and not self.is_output(value)

    def may_stand_for(self, value: str, output: str) -> bool:
        """Whether `value` can take the place of `output`: an output of the graph needs a value of its own to
        name.
        """
        if not self.is_output(output):
            return True
        return value not in self._inputs and not self.is_output(value)

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        replaces: Sequence[Node],
    ) -> str:
        """Add a node that stands for the nodes `replaces`, of which the first is the root of the rule."""
        sources = [source for node in replaces for source in node.sources]
        name = self.editor.add(op, inputs, attributes, stem=replaces[0].name, sources=sources, before=replaces[0])
        self.added.append(name)
        return name

    def add_constant(self, data: np.ndarray | Constant, stem: str) -> str:
        """Add a constant."""
        return self.editor.add_constant(data, stem)


Rewrite = Callable[[Rewriter, Node], str | None]
"""Gives the value that replaces the only output of the node, or None, without having added anything, when it
does not
match."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rewrite of nodes of op `root`. What it does is said by the docstring of `rewrite`."""

    name: str
    root: str
    rewrite: Rewrite


def apply_rules(graph: Graph, rules: Sequence[Rule], by: str) -> PassResult:
    """Apply `rules` until none matches; `by` is the pass that does it. The stats count the hits of each rule.

    Raises `InternalError`, with the rules that repeat, when they run in circles.
    """
    by_root: dict[str, list[Rule]] = {}
    for rule in rules:
        by_root.setdefault(rule.root, []).append(rule)
    rewriter, hits = Rewriter(graph, by), Counter[str]()
    budget = _LEAST_BUDGET + _HITS_PER_NODE * len(graph.nodes)
    waiting = deque(node.name for node in graph.nodes)
    while waiting:
        name = waiting.popleft()
        node = rewriter.editor.producer(name)
        if node is None or node.name != name:
            continue
        applied = _apply_first(by_root.get(node.op, ()), rewriter, node, waiting)
        if applied is None:
            continue
        hits[applied.name] += 1
        if hits.total() > budget:
            repeating = ", ".join(f"{found} ({count})" for found, count in hits.most_common(3))
            raise InternalError(f"the rules do not come to an end: {repeating}", where=f"value %{name}")
    if not hits:
        return PassResult(graph, False)
    editor = rewriter.editor
    editor.constants = {name: constant for name, constant in editor.constants.items() if editor.is_used(name)}
    return PassResult(finish_edit(editor, graph), True, dict(sorted(hits.items())))


def _apply_first(rules: Sequence[Rule], rewriter: Rewriter, node: Node, waiting: deque[str]) -> Rule | None:
    for rule in rules:
        rewriter.added.clear()
        result = rule.rewrite(rewriter, node)
        if result is None:
            if rewriter.added:
                raise InternalError(f"rule {rule.name} added nodes and then did not match", where=f"%{node.name}")
            continue
        rewriter.editor.replace(node, result, "merged")
        _drop_unread(rewriter.editor, node, result)
        waiting.extend(rewriter.added)
        waiting.extend(user.name for user in rewriter.editor.users(result))
        return rule
    return None


def _drop_unread(editor: GraphEditor, node: Node, result: str) -> None:
    """Drop what only the replaced node read."""
    candidates = list(node.present_inputs)
    while candidates:
        name = candidates.pop()
        producer = editor.producer(name)
        if producer is None or any(editor.is_used(value.name) for value in producer.outputs):
            continue
        editor.drop(producer, "merged", result)
        candidates.extend(producer.present_inputs)
