"""Rules that bring scales together between integer products, as onnxruntime's fused quantised operators do.

What is quantised with a scale s is divided by s once for every element; where it is a sum of things that are scaled
already, their constant factors take 1 / s. In FP32 the quotients differ by a rounding.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.ir.attributes import integers
from birc.compiler.ir.graph import Node
from birc.compiler.passes.rules import Rewriter, Rule

_DEEPEST: Final = 8
"""Sums within sums that are followed."""

_KEEPS_ORDER: Final = frozenset({"max_pool2d"})


def divided_beforehand(rewriter: Rewriter, node: Node) -> str | None:
    """quantize(x * c + y * d, s) = quantize(x * (c / s) + y * (d / s), 1)"""
    scale = _scale(rewriter, node)
    if scale is None or np.all(scale == 1.0) or not _is_scalable(rewriter, node.inputs[0], _DEEPEST):
        return None
    value = _scaled(rewriter, node, node.inputs[0], 1.0 / scale)
    one = rewriter.add_constant(np.array(1.0, np.float32), f"{node.name}.one")
    return rewriter.emit("quantize", (value, one, *node.inputs[2:]), node.attributes, replaces=(node,))


def saturated_instead(rewriter: Rewriter, node: Node) -> str | None:
    """quantize(relu(x), s, z) = quantize(x, s, z) where z is the least integer, to which all below it saturates"""
    relu, scale = rewriter.producer(node.inputs[0], "relu"), _scale(rewriter, node)
    if relu is None or scale is None or not np.all(_zero(rewriter, node) == np.iinfo(node.output.type.dtype.numpy).min):
        return None
    return rewriter.emit("quantize", (relu.inputs[0], *node.inputs[1:]), node.attributes, replaces=(node, relu))


def kept_integers(rewriter: Rewriter, node: Node) -> str | None:
    """quantize(dequantize(x, s, z), s, z) = x"""
    source = rewriter.producer(node.inputs[0], "dequantize")
    if source is None or not _undoes(rewriter, node, source) or not rewriter.may_stand_for(source.inputs[0], node.name):
        return None
    return source.inputs[0]


def ordered_integers(rewriter: Rewriter, node: Node) -> str | None:
    """quantize(max_pool2d(dequantize(x, s, z)), s, z) = max_pool2d(x) for one scale above 0"""
    pool = rewriter.producer(node.inputs[0], *_KEEPS_ORDER)
    source = rewriter.producer(pool.inputs[0], "dequantize") if pool is not None else None
    if pool is None or source is None or not _undoes(rewriter, node, source) or _scale(rewriter, node) is None:
        return None
    if rewriter.type_of(node.inputs[1]).num_elements != 1:
        return None
    return rewriter.emit(pool.op, (source.inputs[0],), pool.attributes, replaces=(node, pool, source))


def view_of_integers(rewriter: Rewriter, node: Node) -> str | None:
    """view(dequantize(x, s, z)) = dequantize(view(x), s, z); a transpose turns s and z with it"""
    source = rewriter.producer(node.inputs[0], "dequantize")
    if source is None or not rewriter.has_one_use(source.name):
        return None
    others = list(source.inputs[1:])
    single = all(rewriter.type_of(name).num_elements == 1 for name in others)
    if not single and node.op != "transpose":
        return None
    if single:
        others = [_flat(rewriter, node, name) for name in others]
    else:
        others = [_turned(rewriter, node, name) for name in others]
    value = rewriter.emit(node.op, (source.inputs[0],), node.attributes, replaces=(node, source))
    return rewriter.emit("dequantize", (value, *others), replaces=(node, source))


def _scale(rewriter: Rewriter, node: Node) -> np.ndarray | None:
    """The scale of a quantize, when it is known and above 0."""
    constant = rewriter.constant(node.inputs[1])
    if constant is None or node.output.type.dtype.bits < 8 or rewriter.type_of(node.inputs[1]).dtype.name != "f32":
        return None
    scale = np.asarray(constant.data, np.float64)
    return scale if bool((scale > 0.0).all()) else None


def _zero(rewriter: Rewriter, node: Node) -> np.ndarray:
    """The zero point of a quantize; NaN, which equals no integer, where it is computed."""
    if len(node.inputs) < 3 or not node.inputs[2]:
        return np.zeros(())
    constant = rewriter.constant(node.inputs[2])
    return np.asarray(constant.data).astype(np.float64) if constant is not None else np.full((), np.nan)


def _undoes(rewriter: Rewriter, quantize: Node, dequantize: Node) -> bool:
    """Whether a quantize has the element type, scale and zero point of a dequantize."""
    if quantize.output.type.dtype != rewriter.type_of(dequantize.inputs[0]).dtype:
        return False
    theirs, ours = (tuple(name for name in node.inputs[1:] if name) for node in (quantize, dequantize))
    if theirs == ours:
        return True
    pairs = [(rewriter.constant(a), rewriter.constant(b)) for a, b in zip(theirs, ours, strict=False)]
    return len(theirs) == len(ours) and all(
        a is not None and b is not None and np.array_equal(np.asarray(a.data), np.asarray(b.data)) for a, b in pairs
    )


def _is_scalable(rewriter: Rewriter, name: str, depth: int) -> bool:
    """Whether a value is made of constant multiples that nobody else reads."""
    if rewriter.constant(name) is not None:
        return True
    node = rewriter.producer(name, "mul", "dequantize", "add", "relu")
    if node is None or depth == 0 or (node.op != "dequantize" and not rewriter.has_one_use(name)):
        return False
    if node.op in ("mul", "dequantize"):
        return rewriter.constant(node.inputs[1]) is not None
    return all(_is_scalable(rewriter, operand, depth - 1) for operand in node.inputs)


def _scaled(rewriter: Rewriter, root: Node, name: str, factor: np.ndarray) -> str:
    """A value that is scalable, times a factor."""
    node = rewriter.producer(name, "mul", "dequantize", "add", "relu")
    if node is None:
        return _multiple(rewriter, name, factor)
    if node.op in ("mul", "dequantize"):
        inputs = (node.inputs[0], _multiple(rewriter, node.inputs[1], factor), *node.inputs[2:])
    else:
        inputs = tuple(_scaled(rewriter, root, operand, factor) for operand in node.inputs)
    return rewriter.emit(node.op, inputs, node.attributes, replaces=(root, node))


def _multiple(rewriter: Rewriter, name: str, factor: np.ndarray) -> str:
    constant = rewriter.constant(name)
    data = np.asarray(constant.data if constant is not None else 0.0, np.float64)
    return rewriter.add_constant((data * factor).astype(np.float32), name)


def _flat(rewriter: Rewriter, node: Node, name: str) -> str:
    """A single number without dimensions."""
    if rewriter.type_of(name).rank == 0:
        return name
    return rewriter.emit("reshape", (name,), {"shape": ()}, replaces=(node,))


def _turned(rewriter: Rewriter, node: Node, name: str) -> str:
    """A scale or zero point, with all dimensions of what it scales, transposed with it."""
    rank, shape = rewriter.type_of(node.name).rank, rewriter.sizes(name)
    seen = rewriter.emit("reshape", (name,), {"shape": (1,) * (rank - len(shape)) + shape}, replaces=(node,))
    return rewriter.emit("transpose", (seen,), {"perm": integers(node.attributes, "perm")}, replaces=(node,))


RULES: Final[tuple[Rule, ...]] = (
    *(Rule(f"{view}-of-integers", view, view_of_integers) for view in ("transpose", "reshape", "slice", "expand")),
    Rule("kept-integers", "quantize", kept_integers),
    Rule("ordered-integers", "quantize", ordered_integers),
    Rule("saturated-instead", "quantize", saturated_instead),
    Rule("divided-beforehand", "quantize", divided_beforehand),
)
