"""Between which numbers the integers of a graph lie, as far as ops and constants prove it.

What is proven to fit 32 bits is computed in one register lane, whatever its type; all else in the width of its type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from birc.compiler.ir.attributes import AttributeValue, integers, number
from birc.compiler.ir.graph import GROUP, Constant, Graph, Node
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import DType


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int

    @property
    def fits_lane(self) -> bool:
        """Whether INT32 holds every one of them."""
        return self.low >= -(1 << 31) and self.high < 1 << 31

    def union(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))


Ranges = dict[str, Range]
Attributes = Mapping[str, AttributeValue]
Rule = Callable[[list[Range], Node], Range | None]
"""The range of a node's result from those of its integer inputs; None where nothing is known."""

BOOL = Range(0, 1)
LANE_BITS = 32


def all_of(type: DType) -> Range:
    """The range of an integer type, or of truth values."""
    if type.kind == "bool":
        return BOOL
    if type.kind == "uint":
        return Range(0, (1 << type.bits) - 1)
    return Range(-(1 << type.bits - 1), (1 << type.bits - 1) - 1)


def _counts(type: DType) -> bool:
    return type.is_integer or type.kind == "bool"


def _of_constant(name: str, constant: Constant) -> Ranges:
    """Its least and largest number; of types that always fit a lane that of the type."""
    type = constant.type.dtype
    if not _counts(type):
        return {}
    if type.bits < LANE_BITS or not constant.data.size:
        return {name: all_of(type)}
    data = constant.data.reshape(-1)[:1] if constant.is_splat else constant.data
    return {name: Range(int(data.min()), int(data.max()))}


def graph_ranges(graph: Graph, known: Mapping[str, Range] | None = None) -> Ranges:
    """The range of every integer value of a graph; `known` are those of inputs of the body of a group."""
    found: Ranges = dict(known or {})
    for value in graph.inputs:
        if value.name not in found and _counts(value.type.dtype):
            found[value.name] = all_of(value.type.dtype)
    for name, constant in graph.constants.items():
        found |= _of_constant(name, constant)
    for node in graph.nodes:
        found |= _results(graph, node, found)
    return found


def body_inputs(node: Node, outer: Mapping[str, Range]) -> Ranges:
    """What is known of the inputs of a group's body."""
    if node.body is None:
        return {}
    pairs = zip(node.body.inputs, node.inputs, strict=True)
    return {value.name: outer[name] for value, name in pairs if name in outer}


def _results(graph: Graph, node: Node, found: Mapping[str, Range]) -> Ranges:
    if node.op == GROUP and node.body is not None:
        inner = graph_ranges(node.body, body_inputs(node, found))
        pairs = zip(node.outputs, node.body.outputs, strict=True)
        return {value.name: inner[name] for value, name in pairs if name in inner}
    results = {}
    for value in node.outputs:
        if _counts(value.type.dtype):
            results[value.name] = _result(graph, node, value.type, found)
    return results


def _result(graph: Graph, node: Node, type: TensorType, found: Mapping[str, Range]) -> Range:
    whole = all_of(type.dtype)
    rule = _RULES.get(node.op)
    if rule is None or type.dtype.kind == "bool":
        return whole
    operands = [found[name] for name in node.present_inputs if name in found]
    if node.op.startswith("reduce") and operands:
        sizes = graph.type_of(node.inputs[0]).sizes
        result: Range | None = _reduced(
            operands[0], node, math.prod(sizes[a] for a in integers(node.attributes, "axes"))
        )
    else:
        result = rule(operands, node) if operands else None
    inside = result is not None and whole.low <= result.low and result.high <= whole.high
    return result if result is not None and inside else whole


def _corners(function: Callable[[int, int], int]) -> Rule:
    """A function that is monotonous in each operand: its extremes lie where those of the operands do."""

    def rule(operands: list[Range], _: Node) -> Range | None:
        if len(operands) != 2:
            return None
        ends = product(*((r.low, r.high) for r in operands))
        values = [function(a, b) for a, b in ends]
        return Range(min(values), max(values))

    return rule


def _first(operands: list[Range], _: Node) -> Range | None:
    return operands[0]


def _any_of(operands: list[Range], node: Node) -> Range | None:
    """One of the operands; of `where` the condition is none."""
    values = operands[1:] if node.op == "where" else operands
    result = values[0]
    for other in values[1:]:
        result = result.union(other)
    return result


def _padded(operands: list[Range], node: Node) -> Range | None:
    value = number(node.attributes, "value")
    return operands[0].union(Range(int(value), int(value))) if value.is_integer() else None


def _reduced(x: Range, node: Node, count: int) -> Range | None:
    if node.op == "reduce_sum":
        return Range(x.low * count, x.high * count)
    if node.op == "reduce_prod":
        size = max(abs(x.low), abs(x.high), 1)
        if count * math.log2(size) > np.iinfo(np.int64).bits:
            return None
        return Range(-(size**count) if x.low < 0 else 0, size**count)
    return x if count else None


def _quotient(operands: list[Range], _: Node) -> Range | None:
    size = max(abs(operands[0].low), abs(operands[0].high))
    is_positive = all(r.low >= 0 for r in operands)
    return Range(0 if is_positive else -size, size)


def _remainder(operands: list[Range], _: Node) -> Range | None:
    """Between 0 and the divisor, on its side."""
    y = operands[-1]
    return Range(min(y.low + 1, 0), max(y.high - 1, 0))


def _magnitude(operands: list[Range], _: Node) -> Range | None:
    (x,) = operands
    least = 0 if x.low <= 0 <= x.high else min(abs(x.low), abs(x.high))
    return Range(least, max(abs(x.low), abs(x.high)))


def _clipped(operands: list[Range], node: Node) -> Range | None:
    (x,) = operands
    low, high = number(node.attributes, "minimum"), number(node.attributes, "maximum")
    least = x.low if low <= x.low else math.floor(min(low, float(1 << 64)))
    most = x.high if high >= x.high else math.ceil(max(high, -float(1 << 64)))
    return Range(min(least, most), max(least, most))


def _masked(operands: list[Range], _: Node) -> Range | None:
    """A number that is not negative masks with its own bits."""
    limits = [r.high for r in operands if r.low >= 0]
    return Range(0, min(limits)) if limits else None


def _combined(operands: list[Range], _: Node) -> Range | None:
    if any(r.low < 0 for r in operands):
        bits = max(max(r.high, -r.low - 1) for r in operands).bit_length()
        return Range(-(1 << bits), (1 << bits) - 1)
    return Range(0, (1 << max(r.high for r in operands).bit_length()) - 1)


_RULES: Mapping[str, Rule] = {
    "add": _corners(lambda a, b: a + b),
    "sub": _corners(lambda a, b: a - b),
    "mul": _corners(lambda a, b: a * b),
    "maximum": _corners(max),
    "minimum": _corners(min),
    "div": _quotient,
    "mod": _remainder,
    "neg": lambda operands, _: Range(-operands[0].high, -operands[0].low),
    "abs": _magnitude,
    "relu": lambda operands, _: Range(max(operands[0].low, 0), max(operands[0].high, 0)),
    "sign": lambda operands, _: Range(-1 if operands[0].low < 0 else 0, 1),
    "clip": _clipped,
    "where": _any_of,
    "bitwise_and": _masked,
    "bitwise_or": _combined,
    "bitwise_xor": _combined,
    "bitwise_not": lambda operands, _: Range(~operands[0].high, ~operands[0].low),
    "shift_right": lambda operands, _: Range(min(operands[0].low, 0), max(operands[0].high, 0)),
    "cast": _first,
    "convert": _first,
    "reshape": _first,
    "transpose": _first,
    "slice": _first,
    "expand": _first,
    "gather": _first,
    "gather_nd": _first,
    "concat": _any_of,
    "pad": _padded,
    "reduce_sum": _first,
    "reduce_mean": _first,
    "reduce_max": _first,
    "reduce_min": _first,
    "reduce_prod": _first,
}
