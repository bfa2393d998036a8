"""Rules on the products whose results are the scores of a softmax."""

from __future__ import annotations

from typing import Final

from birc.compiler.ir.attributes import integer
from birc.compiler.ir.graph import Node
from birc.compiler.passes.rules import Rewriter, Rule

SMALLEST_FACTOR: Final = 2.0**-20
LARGEST_FACTOR: Final = 2.0**20
"""Between these, sums of products that are scaled last leave the range of FP32 only where scores are of no use."""


def factor_of_scores(rewriter: Rewriter, node: Node) -> str | None:
    """softmax(... (a * c) @ b ...) = softmax(... (a @ b) * c ...), and the same for b: there c costs nothing

    A factor of an operand takes a kernel of its own, unless the one that makes the operand may take it.
    """
    type = node.output.type
    if not type.dtype.is_float or type.dtype.name == "f16" or not _are_scores(rewriter, node):
        return None
    for place, name in enumerate(node.inputs):
        scaled = rewriter.producer(name, "mul")
        if scaled is None or not rewriter.has_one_use(name):
            continue
        for operand, factor in (scaled.inputs, scaled.inputs[::-1]):
            number, constant = rewriter.number(factor), rewriter.constant(factor)
            if number is None or constant is None or constant.data.size > 1 or constant.type.rank > type.rank:
                continue
            if rewriter.sizes(operand) != scaled.output.type.sizes:
                continue
            if SMALLEST_FACTOR <= number <= LARGEST_FACTOR:
                operands = tuple(operand if i == place else other for i, other in enumerate(node.inputs))
                product = rewriter.emit("matmul", operands, node.attributes, replaces=(node, scaled))
                # As others look for the factor of scores.
                scalar = rewriter.add_constant(constant.data.reshape(()), factor) if constant.type.rank else factor
                return rewriter.emit("mul", (product, scalar), replaces=(node,))
    return None


def _are_scores(rewriter: Rewriter, product: Node) -> bool:
    """Whether a product, scaled and masked or not, is read by a softmax over its columns alone."""
    name = product.name
    while rewriter.has_one_use(name):
        (reader,) = rewriter.editor.users(name)
        if reader.op == "softmax":
            return integer(reader.attributes, "axis") == product.output.type.rank - 1
        if reader.op not in ("add", "mul", "where") or reader.output.type.sizes != product.output.type.sizes:
            return False
        name = reader.name
    return False


RULES: Final[tuple[Rule, ...]] = (Rule("factor-of-scores", "matmul", factor_of_scores),)
