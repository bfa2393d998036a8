"""Pass: products of integers in the forms that the device computes exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from birc.compiler.ir.graph import Graph
from birc.compiler.passes import (
    rules_deep_products,
    rules_unsigned_products,
    rules_wide_products,
    rules_wide_reductions,
)
from birc.compiler.passes.base import Pass, PassResult
from birc.compiler.passes.rules import Rule, apply_rules

RULES: Final[tuple[Rule, ...]] = (
    *rules_unsigned_products.RULES,
    *rules_deep_products.RULES,
    *rules_wide_products.RULES,
    *rules_wide_reductions.RULES,
)


@dataclass(frozen=True)
class IntegerProducts(Pass):
    """8-bit products become signed ones, no deeper than their sums are exact; wider integers go to the vector cores.

    before:
        graph "g" {
          input %a : u8[2,3]
          const %b : i8[3,2] = [1, 2, 3, -4, 5, 6]
          %y : i32[2,2] = matmul(%a, %b) from "product"
          output %y
        }
    after:
        graph "g" {
          input %a : u8[2,3]
          const %b : i8[3,2] = [1, 2, 3, -4, 5, 6]
          const %y.number : i32[] = 128
          const %b.sums : i32[1,2] = [1152, 512]
          %y.1 : i32[2,3] = cast(%a) {to = i32} from "product"
          %y.2 : i32[2,3] = sub(%y.1, %y.number) from "product"
          %y.3 : i8[2,3] = cast(%y.2) {to = i8} from "product"
          %y.4 : i32[2,2] = matmul(%y.3, %b) from "product"
          %y : i32[2,2] = add(%y.4, %b.sums) from "product"
          output %y
        }
    """

    name: ClassVar[str] = "integer_products"
    rules: tuple[Rule, ...] = RULES

    def run(self, graph: Graph) -> PassResult:
        return apply_rules(graph, self.rules, self.name)
