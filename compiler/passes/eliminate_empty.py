"""Pass: what has no elements is a constant, and what is computed from nothing is computed now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import GROUP, Constant, Graph, Node
from birc.compiler.ir.table import row
from birc.compiler.ir.types import TensorType
from birc.compiler.passes.base import Pass, PassResult, finish_edit
from birc.compiler.passes.constant_values import MOST_BYTES, uniform_or_dense


@dataclass(frozen=True)
class EliminateEmpty(Pass):
    """Replace values without elements by empty constants, and compute what reads nothing else, such as a sum over them.

    The device never sees them; a rule takes them out of concatenations.

    before:
        graph "g" {
          input %x : f32[2,0]
          input %z : f32[2,3]
          %n : f32[2,0] = neg(%x) from "neg_0"
          %s : f32[2,1] = reduce_sum(%n) {axes = [1], keepdims = 1} from "sum_0"
          %c : f32[2,4] = concat(%n, %z, %s) {axis = 1} from "concat_0"
          output %c
          output %n
        }
    after:
        graph "g" {
          input %x : f32[2,0]
          input %z : f32[2,3]
          const %n.folded : f32[2,0] = []
          const %s.folded : f32[2,1] = splat(0.0)
          const %n : f32[2,0] = []
          %c : f32[2,4] = concat(%n.folded, %z, %s.folded) {axis = 1} from "concat_0"
          output %c
          output %n
          fate "neg_0" folded by eliminate_empty into %n.folded
          fate "sum_0" folded by eliminate_empty into %s.folded
        }
    """

    name: ClassVar[str] = "eliminate_empty"

    def run(self, graph: Graph) -> PassResult:
        if not any(0 in type.shape for type in _types(graph)):
            return PassResult(graph, False)
        editor = GraphEditor(graph, self.name)
        changed = sum(_eliminate(editor, node) for node in graph.nodes)
        if not changed:
            return PassResult(graph, False)
        editor.drop_unused()
        return PassResult(finish_edit(editor, graph), True, {"nodes": changed})


def _types(graph: Graph) -> list[TensorType]:
    made = [value.type for node in graph.nodes for value in node.outputs]
    return [*made, *(value.type for value in graph.inputs), *(constant.type for constant in graph.constants.values())]


def _eliminate(editor: GraphEditor, original: Node) -> bool:
    node = editor.producer(original.name)
    if node is None or node.op == GROUP:
        return False
    if all(0 in value.type.shape for value in node.outputs):
        editor.fold(node, [np.zeros(value.type.sizes, value.type.dtype.numpy) for value in node.outputs])
        return True
    empty = [name for name in node.present_inputs if 0 in editor.type_of(name).shape]
    if not empty or len(node.outputs) != 1:
        return False
    return len(empty) == len(node.present_inputs) and _computed(editor, node, empty)


def _computed(editor: GraphEditor, node: Node, inputs: Sequence[str]) -> bool:
    """Put the result of a node that reads nothing in its place, unless it is large."""
    if node.output.type.num_bytes > MOST_BYTES:
        return False
    types = [editor.type_of(name) for name in inputs]
    (data,) = row(node.op).evaluate(tuple(np.zeros(type.sizes, type.dtype.numpy) for type in types), node.attributes)
    constant: Constant = uniform_or_dense(np.asarray(data))
    editor.replace(node, editor.add_constant(constant, f"{node.name}.folded"), "folded")
    return True
