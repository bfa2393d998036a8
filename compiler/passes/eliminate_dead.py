"""Pass: remove what nobody uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import Graph
from birc.compiler.passes.base import Pass, PassResult, finish_edit


@dataclass(frozen=True)
class EliminateDead(Pass):
    """Remove nodes and constants whose values nobody uses.

    before:
        graph "g" {
          input %x : f32[2]
          const %one : f32[] = 1.0
          %t : f32[2] = add(%x, %one) from "add_0"
          %y : f32[2] = neg(%x) from "neg_0"
          output %y
        }
    after:
        graph "g" {
          input %x : f32[2]
          %y : f32[2] = neg(%x) from "neg_0"
          output %y
          fate "add_0" removed by eliminate_dead
        }
    """

    name: ClassVar[str] = "eliminate_dead"

    def run(self, graph: Graph) -> PassResult:
        editor = GraphEditor(graph, self.name)
        nodes = editor.drop_unused()
        constants = len(graph.constants) - len(editor.constants)
        if not nodes and not constants:
            return PassResult(graph, False)
        return PassResult(finish_edit(editor, graph), True, {"nodes": nodes, "constants": constants})
