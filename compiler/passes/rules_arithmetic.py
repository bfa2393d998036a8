"""Rules on arithmetic: neutral elements, powers, divisions, roots, chains of constants, choices."""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.ir.graph import Node
from birc.compiler.passes.constant_values import evaluate
from birc.compiler.passes.rules import Rewriter, Rule


def _operands(rewriter: Rewriter, node: Node) -> tuple[str, str] | None:
    """The computed and the constant operand of a commutative op; None when there are not one of each."""
    left, right = node.inputs
    if rewriter.constant(right) is not None and rewriter.constant(left) is None:
        return left, right
    if rewriter.constant(left) is not None and rewriter.constant(right) is None:
        return right, left
    return None


def _kept(rewriter: Rewriter, value: str, node: Node) -> str | None:
    """`value`, if it has the type of the node's result and may stand for it."""
    same = rewriter.type_of(value).logical == node.output.type.logical
    return value if same and rewriter.may_stand_for(value, node.name) else None


def _without_neutral(rewriter: Rewriter, node: Node, neutral: float) -> str | None:
    pair = _operands(rewriter, node)
    if pair is None or rewriter.number(pair[1]) != neutral:
        return None
    return _kept(rewriter, pair[0], node)


def add_zero(rewriter: Rewriter, node: Node) -> str | None:
    """x + 0 = x"""
    return _without_neutral(rewriter, node, 0.0)


def multiply_by_one(rewriter: Rewriter, node: Node) -> str | None:
    """x * 1 = x"""
    return _without_neutral(rewriter, node, 1.0)


def subtract_zero(rewriter: Rewriter, node: Node) -> str | None:
    """x - 0 = x"""
    return _kept(rewriter, node.inputs[0], node) if rewriter.number(node.inputs[1]) == 0.0 else None


def divide_by_one(rewriter: Rewriter, node: Node) -> str | None:
    """x / 1 = x"""
    return _kept(rewriter, node.inputs[0], node) if rewriter.number(node.inputs[1]) == 1.0 else None


def divide_by_power_of_two(rewriter: Rewriter, node: Node) -> str | None:
    """x / c = x * (1 / c) where 1 / c is exact: c holds powers of two only"""
    divisor = rewriter.constant(node.inputs[1])
    if divisor is None or not divisor.type.dtype.is_float or rewriter.constant(node.inputs[0]) is not None:
        return None
    values = divisor.data.flat[:1] if divisor.is_splat else divisor.data
    mantissas, _ = np.frexp(values.astype(np.float64))
    with np.errstate(divide="ignore", over="ignore"):
        inverse = (1.0 / values.astype(np.float64)).astype(values.dtype)
    normal = np.abs(inverse.astype(np.float64)) >= np.finfo(np.float32).tiny
    if not (np.all(np.abs(mantissas) == 0.5) and np.all(np.isfinite(inverse)) and np.all(normal)):
        return None
    reciprocal = evaluate("reciprocal", (divisor,), {}, divisor.type)
    if reciprocal is None:
        return None
    factor = rewriter.add_constant(reciprocal, f"{node.inputs[1]}.reciprocal")
    return rewriter.emit("mul", (node.inputs[0], factor), replaces=(node,))


def small_power(rewriter: Rewriter, node: Node) -> str | None:
    """pow(x, c) for c = 1, 2, 3, 0.5, -0.5, -1 by products, roots and reciprocals"""
    base, exponent = node.inputs[0], rewriter.number(node.inputs[1])
    same_type = rewriter.type_of(base).logical == node.output.type.logical
    if exponent is None or not same_type or not node.output.type.dtype.is_float or rewriter.constant(base):
        return None
    if exponent == 1.0:
        return _kept(rewriter, base, node)
    if exponent in (2.0, 3.0):
        square = rewriter.emit("mul", (base, base), replaces=(node,))
        return square if exponent == 2.0 else rewriter.emit("mul", (square, base), replaces=(node,))
    op = {0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}.get(exponent)
    return rewriter.emit(op, (base,), replaces=(node,)) if op else None


def reciprocal_of_root(rewriter: Rewriter, node: Node) -> str | None:
    """reciprocal(sqrt(x)) = rsqrt(x)"""
    root = rewriter.producer(node.inputs[0], "sqrt")
    return None if root is None else rewriter.emit("rsqrt", root.inputs, replaces=(node, root))


def one_over_root(rewriter: Rewriter, node: Node) -> str | None:
    """1 / sqrt(x) = rsqrt(x)"""
    root = rewriter.producer(node.inputs[1], "sqrt")
    if root is None or rewriter.number(node.inputs[0]) != 1.0:
        return None
    if rewriter.type_of(root.name).logical != node.output.type.logical:
        return None
    return rewriter.emit("rsqrt", root.inputs, replaces=(node, root))


def _merged_constants(rewriter: Rewriter, node: Node) -> str | None:
    """(x op a) op b = x op (a op b) for constants a, b"""
    outer = _operands(rewriter, node)
    inner = rewriter.producer(outer[0], node.op) if outer else None
    if outer is None or inner is None or not node.output.type.dtype.is_float:
        return None
    pair = _operands(rewriter, inner)
    if pair is None or not rewriter.has_one_use(inner.name):
        return None
    combined = _combined(rewriter, node.op, pair[1], outer[1])
    if combined is None:
        return None
    return rewriter.emit(node.op, (pair[0], combined), replaces=(node, inner))


def _combined(rewriter: Rewriter, op: str, left: str, right: str) -> str | None:
    """A new constant `left op right`, if it is not larger than the larger of the two."""
    constants = (rewriter.editor.constants[left], rewriter.editor.constants[right])
    shape = np.broadcast_shapes(constants[0].data.shape, constants[1].data.shape)
    result = constants[0].type.with_shape(shape)
    if result.num_elements > max(constant.data.size for constant in constants):
        return None
    value = evaluate(op, constants, {}, result)
    return None if value is None else rewriter.add_constant(value, f"{right}.merged")


def merge_factors(rewriter: Rewriter, node: Node) -> str | None:
    """(x * a) * b = x * (a * b)"""
    return _merged_constants(rewriter, node)


def merge_terms(rewriter: Rewriter, node: Node) -> str | None:
    """(x + a) + b = x + (a + b)"""
    return _merged_constants(rewriter, node)


def merge_scale_and_shift(rewriter: Rewriter, node: Node) -> str | None:
    """(x * a + b) * c = x * (a * c) + b * c"""
    outer = _operands(rewriter, node)
    shifted = rewriter.producer(outer[0], "add") if outer else None
    if outer is None or shifted is None or not rewriter.has_one_use(shifted.name):
        return None
    shift = _operands(rewriter, shifted)
    scaled = rewriter.producer(shift[0], "mul") if shift else None
    if shift is None or scaled is None or not rewriter.has_one_use(scaled.name):
        return None
    scale = _operands(rewriter, scaled)
    if scale is None or not node.output.type.dtype.is_float:
        return None
    factor = _combined(rewriter, "mul", scale[1], outer[1])
    term = _combined(rewriter, "mul", shift[1], outer[1])
    if factor is None or term is None:
        return None
    product = rewriter.emit("mul", (scale[0], factor), replaces=(node, scaled))
    return rewriter.emit("add", (product, term), replaces=(node, shifted))


def known_choice(rewriter: Rewriter, node: Node) -> str | None:
    """where(c, x, y) = x or y when c is the same constant everywhere"""
    condition = rewriter.constant(node.inputs[0])
    if condition is None or condition.data.size == 0:
        return None
    values = condition.data.flat[:1] if condition.is_splat else condition.data
    if not (values.all() or not values.any()):
        return None
    chosen = node.inputs[1] if values.all() else node.inputs[2]
    if rewriter.type_of(chosen).shape == node.output.type.shape:
        return _kept(rewriter, chosen, node)
    return rewriter.emit("expand", (chosen,), {"shape": node.output.type.sizes}, replaces=(node,))


RULES: Final[tuple[Rule, ...]] = (
    Rule("add-zero", "add", add_zero),
    Rule("multiply-by-one", "mul", multiply_by_one),
    Rule("subtract-zero", "sub", subtract_zero),
    Rule("divide-by-one", "div", divide_by_one),
    Rule("one-over-root", "div", one_over_root),
    Rule("divide-by-power-of-two", "div", divide_by_power_of_two),
    Rule("small-power", "pow", small_power),
    Rule("reciprocal-of-root", "reciprocal", reciprocal_of_root),
    Rule("merge-factors", "mul", merge_factors),
    Rule("merge-terms", "add", merge_terms),
    Rule("merge-scale-and-shift", "mul", merge_scale_and_shift),
    Rule("known-choice", "where", known_choice),
)
