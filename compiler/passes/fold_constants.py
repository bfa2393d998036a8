"""Pass: compute at compile time what only depends on constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import GROUP, Graph, Node
from birc.compiler.passes.base import Pass, PassResult, finish_edit
from birc.compiler.passes.constant_values import evaluate


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace nodes whose inputs are all constants by their results.

    A result is not made when it takes more than 64 MiB or 16 times what its inputs take; splats stay splats.

    before:
        graph "g" {
          input %x : f32[2]
          const %a : f32[] = 2.0
          const %b : f32[] = 3.0
          %c : f32[] = add(%a, %b) from "add_0"
          %y : f32[2] = mul(%x, %c) from "mul_0"
          output %y
        }
    after:
        graph "g" {
          input %x : f32[2]
          const %c.folded : f32[] = 5.0
          %y : f32[2] = mul(%x, %c.folded) from "mul_0"
          output %y
          fate "add_0" folded by fold_constants into %c.folded
        }
    """

    name: ClassVar[str] = "fold_constants"

    def run(self, graph: Graph) -> PassResult:
        editor = GraphEditor(graph, self.name)
        folded = sum(_fold(editor, node) for node in graph.nodes)
        if not folded:
            return PassResult(graph, False)
        editor.drop_unused()
        return PassResult(finish_edit(editor, graph), True, {"folded": folded})


def _fold(editor: GraphEditor, original: Node) -> bool:
    node = editor.producer(original.name)
    if node is None or node.op == GROUP or len(node.outputs) != 1 or not node.present_inputs:
        return False
    inputs = [editor.constants[name] for name in node.present_inputs if name in editor.constants]
    if len(inputs) != len(node.present_inputs):
        return False
    result = evaluate(node.op, inputs, node.attributes, node.output.type)
    if result is None:
        return False
    editor.replace(node, editor.add_constant(result, f"{node.name}.folded"), "folded")
    return True
