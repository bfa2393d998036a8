"""Pass: local rewrites that make a graph smaller or its nodes cheaper, by a table of rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from birc.compiler.ir.graph import Graph
from birc.compiler.passes import (
    rules_arithmetic,
    rules_convolution,
    rules_index,
    rules_scores,
    rules_unrolled,
    rules_views,
)
from birc.compiler.passes.base import Pass, PassResult
from birc.compiler.passes.rules import Rule, apply_rules

RULES: Final[tuple[Rule, ...]] = (
    *rules_views.RULES,
    *rules_arithmetic.RULES,
    *rules_convolution.RULES,
    *rules_index.RULES,
    *rules_scores.RULES,
    *rules_unrolled.RULES,
)


@dataclass(frozen=True)
class Simplify(Pass):
    """Apply the simplification rules until none matches.

    before:
        graph "g" {
          input %x : f32[2,3]
          const %two : f32[] = 2.0
          const %one : f32[] = 1.0
          %a : f32[6] = reshape(%x) {shape = [6]} from "reshape_0"
          %b : f32[3,2] = reshape(%a) {shape = [3, 2]} from "reshape_1"
          %c : f32[3,2] = mul(%b, %one) from "mul_0"
          %y : f32[3,2] = div(%c, %two) from "div_0"
          output %y
        }
    after:
        graph "g" {
          input %x : f32[2,3]
          const %two.reciprocal : f32[] = 0.5
          %b.1 : f32[3,2] = reshape(%x) {shape = [3, 2]} from "reshape_1" "reshape_0"
          %y : f32[3,2] = mul(%b.1, %two.reciprocal) from "div_0"
          output %y
          fate "mul_0" merged by simplify into %b.1
        }
    """

    name: ClassVar[str] = "simplify"
    rules: tuple[Rule, ...] = RULES

    def run(self, graph: Graph) -> PassResult:
        return apply_rules(graph, self.rules, self.name)
