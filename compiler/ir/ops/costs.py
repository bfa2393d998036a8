"""Cost rules that several families share."""

from __future__ import annotations

from birc.compiler.ir.attributes import Attributes
from birc.compiler.ir.op import Cost, CostRule, Types


def per_element(vector_ops: int, sfu_ops: int = 0) -> CostRule:
    """So many element operations and special functions for each element of the output."""

    def cost(inputs: Types, outputs: Types, attributes: Attributes) -> Cost:
        elements = outputs[0].num_elements
        return Cost(vector_ops=vector_ops * elements, sfu_ops=sfu_ops * elements)

    return cost


def free(inputs: Types, outputs: Types, attributes: Attributes) -> Cost:
    """No arithmetic; bytes that move are counted where they move."""
    return Cost()
