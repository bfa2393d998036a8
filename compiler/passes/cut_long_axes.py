"""Pass: axes that are reduced get lengths that one or two dimensions of a descriptor can walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from birc.compiler.ir.graph import Graph
from birc.compiler.passes.base import Pass, PassResult
from birc.compiler.passes.rules import apply_rules
from birc.compiler.passes.rules_long_axes import rules


@dataclass(frozen=True)
class CutLongAxes(Pass):
    """Axes with a prime factor beyond `longest`, the most elements of a dimension, are cut in pieces or padded.

    before:
        graph "g" {
          input %x : f32[2,8209]
          %y : f32[2] = reduce_max(%x) {axes = [1], keepdims = 0} from "most"
          output %y
        }
    after:
        graph "g" {
          input %x : f32[2,8209]
          %y.1 : f32[2,8192] = slice(%x) {starts = [0, 0], ends = [2, 8192], steps = [1, 1]} from "most"
          %y.2 : f32[2] = reduce_max(%y.1) {axes = [1], keepdims = 0} from "most"
          %y.3 : f32[2,17] = slice(%x) {starts = [0, 8192], ends = [2, 8209], steps = [1, 1]} from "most"
          %y.4 : f32[2] = reduce_max(%y.3) {axes = [1], keepdims = 0} from "most"
          %y : f32[2] = maximum(%y.2, %y.4) from "most"
          output %y
        }
    """

    name: ClassVar[str] = "cut_long_axes"
    longest: int = 8192

    def run(self, graph: Graph) -> PassResult:
        return apply_rules(graph, rules(self.longest), self.name)
