"""Reads a chain of arithmetic as a polynomial of one value, in whatever order it was written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from birc.compiler.ir.graph import Node
from birc.compiler.passes.rules import Rewriter

Polynomial = Mapping[int, float]
"""Coefficients by power."""

_HIGHEST_POWER: Final = 3
_DEEPEST: Final = 6


def polynomial_of(rewriter: Rewriter, value: str, x: str, depth: int = _DEEPEST) -> Polynomial | None:
    """`value` as a polynomial of `x` of degree 3 at most; None when it is something else."""
    if value == x:
        return {1: 1.0}
    number = rewriter.number(value)
    if number is not None:
        return {0: number}
    node = rewriter.producer(value, "add", "sub", "mul", "div", "pow", "neg")
    if node is None or depth == 0:
        return None
    operands = [polynomial_of(rewriter, name, x, depth - 1) for name in node.inputs]
    known = [operand for operand in operands if operand is not None]
    if len(known) != len(operands):
        return None
    return _combine(node, known)


def _combine(node: Node, operands: list[Polynomial]) -> Polynomial | None:
    left = operands[0]
    if node.op == "neg":
        return _scaled(left, -1.0)
    right = operands[1]
    if node.op == "add":
        return _sum(left, right)
    if node.op == "sub":
        return _sum(left, _scaled(right, -1.0))
    if node.op == "mul":
        return _product(left, right)
    if set(right) != {0}:
        return None
    if node.op == "div":
        return _scaled(left, 1.0 / right[0]) if right[0] else None
    return _power(left, right[0])


def _scaled(polynomial: Polynomial, factor: float) -> Polynomial:
    return {power: coefficient * factor for power, coefficient in polynomial.items()}


def _sum(left: Polynomial, right: Polynomial) -> Polynomial:
    return {power: left.get(power, 0.0) + right.get(power, 0.0) for power in {*left, *right}}


def _product(left: Polynomial, right: Polynomial) -> Polynomial | None:
    result: dict[int, float] = {}
    for power, coefficient in left.items():
        for other_power, other in right.items():
            result[power + other_power] = result.get(power + other_power, 0.0) + coefficient * other
    return result if max(result) <= _HIGHEST_POWER else None


def _power(base: Polynomial, exponent: float) -> Polynomial | None:
    if exponent not in (1.0, 2.0, 3.0):
        return None
    result: Polynomial | None = base
    for _ in range(int(exponent) - 1):
        result = None if result is None else _product(result, base)
    return result
