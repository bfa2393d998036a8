"""Pass: what a quantised model multiplies is multiplied as integers (precision `int8`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.table import row
from birc.compiler.passes import rules_quantized_products, rules_requantization
from birc.compiler.passes.base import Pass, PassResult
from birc.compiler.passes.rules import Rule, apply_rules
from birc.compiler.passes.rules_unsigned_products import NARROW

RULES: Final[tuple[Rule, ...]] = (*rules_quantized_products.RULES, *rules_requantization.RULES)


def multiplies_quantised(graph: Graph) -> bool:
    """Whether a graph multiplies 8-bit integers, or what is dequantised, perhaps turned around on the way."""
    operands = (name for node in graph.nodes if node.op in ("matmul", "conv2d") for name in node.inputs[:2])
    return any(_is_quantised(graph, name) for name in operands)


def _is_quantised(graph: Graph, name: str) -> bool:
    node = graph.producer(name)
    while node is not None and row(node.op).category == "view":
        name = node.inputs[0]
        node = graph.producer(name)
    return graph.type_of(name).dtype.name in NARROW or (node is not None and node.op == "dequantize")


@dataclass(frozen=True)
class QuantizedProducts(Pass):
    """Products of dequantised 8-bit operands become products of integers, whose sums are scaled.

    It stands before the other passes of its phase: they compute dequantised constants, and know no more where those
    came from.

    before:
        graph "g" {
          input %x : f32[2,3]
          const %s : f32[] = 0.5
          const %z : i8[] = 1
          const %w : i8[3,2] = [1, 2, 3, -4, 5, 6]
          const %t : f32[2] = [0.25, 2.0]
          %q : i8[2,3] = quantize(%x, %s, %z) {to = i8} from "quantize"
          %a : f32[2,3] = dequantize(%q, %s, %z) from "dequantize"
          %b : f32[3,2] = dequantize(%w, %t) from "weights"
          %p : f32[2,2] = matmul(%a, %b) from "product"
          %y : i8[2,2] = quantize(%p, %s, %z) {to = i8} from "again"
          output %y
        }
    after:
        graph "g" {
          input %x : f32[2,3]
          const %s : f32[] = 0.5
          const %z : i8[] = 1
          const %w.centred : i8[3,2] = [1, 2, 3, -4, 5, 6]
          const %p.sums : i32[1,2] = [9, 4]
          const %p.scale.1 : f32[1,2] = [0.25, 2.0]
          const %y.one : f32[] = 1.0
          %q : i8[2,3] = quantize(%x, %s, %z) {to = i8} from "quantize"
          %p.1 : i32[2,2] = matmul(%q, %w.centred) from "product" "dequantize" "weights"
          %p.2 : i32[2,2] = sub(%p.1, %p.sums) from "product" "dequantize" "weights"
          %p.3 : f32[2,2] = cast(%p.2) {to = f32} from "product" "dequantize" "weights"
          %y.1 : f32[2,2] = mul(%p.3, %p.scale.1) from "again" "product" "dequantize" "weights"
          %y : i8[2,2] = quantize(%y.1, %y.one, %z) {to = i8} from "again"
          output %y
        }
    """

    name: ClassVar[str] = "quantized_products"
    rules: tuple[Rule, ...] = RULES

    def run(self, graph: Graph) -> PassResult:
        return apply_rules(graph, self.rules, self.name)
