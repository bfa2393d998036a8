"""Pass: functions that exporters spell out in primitive ops become one op again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

from birc.compiler.ir.attributes import integer, integers
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.passes import rules_masks, rules_rotation
from birc.compiler.passes.base import Pass, PassResult
from birc.compiler.passes.polynomials import Polynomial, polynomial_of
from birc.compiler.passes.rules import Rewriter, Rule, apply_rules

# Exporters round their constants to single precision and sometimes to four digits (0.7978846 for sqrt(2 /
# pi)).
_RELATIVE_TOLERANCE: Final = 1e-5

_ERF_SLOPE: Final[Polynomial] = {1: math.sqrt(0.5)}
# tanh approximation of GELU, Hendrycks and Gimpel (2016).
_TANH_ARGUMENT: Final[Polynomial] = {1: math.sqrt(2 / math.pi), 3: math.sqrt(2 / math.pi) * 0.044715}


@dataclass(frozen=True, slots=True)
class _Factors:
    """A product, flattened: what is multiplied, the constant numbers in it, and the nodes that multiply."""

    values: tuple[str, ...]
    number: float
    nodes: tuple[Node, ...]


def _factors(rewriter: Rewriter, node: Node) -> _Factors:
    """The factors of a `mul` through all `mul` nodes that only serve it, and divisions by numbers."""
    values: list[str] = []
    nodes, waiting, number = [node], list(node.inputs), 1.0
    while waiting:
        value = waiting.pop(0)
        constant = rewriter.number(value)
        inner = rewriter.producer(value, "mul", "div") if rewriter.has_one_use(value) else None
        divisor = rewriter.number(inner.inputs[1]) if inner is not None and inner.op == "div" else None
        if constant is not None:
            number *= constant
        elif inner is not None and inner.op == "mul":
            nodes.append(inner)
            waiting.extend(inner.inputs)
        elif inner is not None and divisor:
            nodes.append(inner)
            number /= divisor
            waiting.append(inner.inputs[0])
        else:
            values.append(value)
    return _Factors(tuple(values), number, tuple(nodes))


def silu(rewriter: Rewriter, node: Node) -> str | None:
    """x * sigmoid(x) = silu(x)"""
    for x, gate in (node.inputs, reversed(node.inputs)):
        sigmoid = rewriter.producer(gate, "sigmoid")
        if sigmoid is not None and sigmoid.inputs[0] == x:
            return rewriter.emit("silu", (x,), replaces=(node, sigmoid))
    return None


def erf_gelu(rewriter: Rewriter, node: Node) -> str | None:
    """0.5 * x * (1 + erf(x / sqrt(2))) = gelu(x), in any order"""
    return _gelu(rewriter, node, "erf", _ERF_SLOPE, "none")


def tanh_gelu(rewriter: Rewriter, node: Node) -> str | None:
    """0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) = gelu(x) {tanh}, in any order"""
    return _gelu(rewriter, node, "tanh", _TANH_ARGUMENT, "tanh")


def _gelu(rewriter: Rewriter, node: Node, curve: str, argument: Polynomial, approximate: str) -> str | None:
    factors = _factors(rewriter, node)
    if len(factors.values) != 2 or not _close(factors.number, 0.5):
        return None
    for x, gate in (factors.values, reversed(factors.values)):
        raised = rewriter.producer(gate, "add")
        inner = _raised_by_one(rewriter, raised, curve) if raised is not None else None
        if raised is None or inner is None or not rewriter.has_one_use(gate):
            continue
        same_type = rewriter.type_of(x).logical == node.output.type.logical
        if same_type and _same(polynomial_of(rewriter, inner.inputs[0], x), argument):
            replaced = (*factors.nodes, raised, inner)
            return rewriter.emit("gelu", (x,), {"approximate": approximate}, replaces=replaced)
    return None


def _raised_by_one(rewriter: Rewriter, node: Node, op: str) -> Node | None:
    """The node of `op` to which `node` adds 1."""
    for value, other in (node.inputs, reversed(node.inputs)):
        inner = rewriter.producer(value, op)
        if inner is not None and rewriter.number(other) == 1.0:
            return inner
    return None


def _same(found: Polynomial | None, wanted: Polynomial) -> bool:
    if found is None:
        return False
    significant = {power: value for power, value in found.items() if value}
    return set(significant) == set(wanted) and all(_close(significant[power], wanted[power]) for power in wanted)


def _close(found: float, wanted: float) -> bool:
    return math.isclose(found, wanted, rel_tol=_RELATIVE_TOLERANCE)


def rms_norm(rewriter: Rewriter, node: Node) -> str | None:
    """x * rsqrt(mean(x^2) + epsilon) * scale = rms_norm(x, scale), in any order"""
    factors = _factors(rewriter, node)
    if len(factors.values) != 3 or factors.number != 1.0:
        return None
    for root_at in range(3):
        root = rewriter.producer(factors.values[root_at], "rsqrt")
        others = [value for place, value in enumerate(factors.values) if place != root_at]
        if root is None:
            continue
        for x, scale in (others, others[::-1]):
            found = _mean_of_squares(rewriter, root.inputs[0], x)
            if found is not None and rewriter.type_of(x).logical == node.output.type.logical:
                axis, epsilon, inner = found
                return _emit_rms_norm(rewriter, (*factors.nodes, root, *inner), x, scale, axis, epsilon)
    return None


def rms_norm_by_division(rewriter: Rewriter, node: Node) -> str | None:
    """x / sqrt(mean(x^2) + epsilon) * scale = rms_norm(x, scale)"""
    for quotient, scale in (node.inputs, reversed(node.inputs)):
        division = rewriter.producer(quotient, "div")
        root = rewriter.producer(division.inputs[1], "sqrt") if division is not None else None
        if division is None or root is None or not rewriter.has_one_use(quotient):
            continue
        x = division.inputs[0]
        found = _mean_of_squares(rewriter, root.inputs[0], x)
        if found is not None and rewriter.type_of(x).logical == node.output.type.logical:
            axis, epsilon, inner = found
            return _emit_rms_norm(rewriter, (node, division, root, *inner), x, scale, axis, epsilon)
    return None


def _emit_rms_norm(
    rewriter: Rewriter, replaced: tuple[Node, ...], x: str, scale: str, axis: int, epsilon: float
) -> str | None:
    normal, given = rewriter.sizes(x)[axis:], rewriter.sizes(scale)
    if math.prod(given) != math.prod(normal) or given[len(given) - len(normal) :] != normal:
        return None
    if given != normal:
        scale = rewriter.emit("reshape", (scale,), {"shape": normal}, replaces=replaced[:1])
    attributes = {"axis": axis, "epsilon": epsilon}
    return rewriter.emit("rms_norm", (x, scale), attributes, replaces=replaced)


def _mean_of_squares(rewriter: Rewriter, value: str, x: str) -> tuple[int, float, tuple[Node, ...]] | None:
    """`value` = mean(x^2) + epsilon over the last axes: the first of them, epsilon, and the nodes."""
    shifted = rewriter.producer(value, "add")
    if shifted is None:
        return None
    for summand, other in (shifted.inputs, reversed(shifted.inputs)):
        epsilon, mean = rewriter.number(other), rewriter.producer(summand, "reduce_mean")
        if epsilon is None or mean is None or integer(mean.attributes, "keepdims") != 1:
            continue
        axes, rank = integers(mean.attributes, "axes"), rewriter.type_of(x).rank
        is_square = _same(polynomial_of(rewriter, mean.inputs[0], x), {2: 1.0})
        if is_square and axes and axes == tuple(range(axes[0], rank)):
            square = rewriter.producer(mean.inputs[0], "mul", "pow")
            return axes[0], epsilon, (shifted, mean, *((square,) if square is not None else ()))
    return None


def layer_norm(rewriter: Rewriter, node: Node) -> str | None:
    """(x - mean(x)) * rsqrt(mean((x - mean(x))^2) + epsilon) * scale + bias = layer_norm(x, scale, bias)"""
    for product, bias in (node.inputs, reversed(node.inputs)):
        outer = rewriter.producer(product, "rms_norm")
        if outer is None or not rewriter.has_one_use(product):
            continue
        centred = rewriter.producer(outer.inputs[0], "sub")
        mean = rewriter.producer(centred.inputs[1], "reduce_mean") if centred is not None else None
        if centred is None or mean is None or mean.inputs[0] != centred.inputs[0]:
            continue
        axis, rank = integer(outer.attributes, "axis"), rewriter.type_of(centred.inputs[0]).rank
        over_same = integers(mean.attributes, "axes") == tuple(range(axis, rank))
        same_shape = rewriter.type_of(bias).logical == rewriter.type_of(outer.inputs[1]).logical
        if over_same and same_shape and integer(mean.attributes, "keepdims") == 1:
            inputs = (mean.inputs[0], outer.inputs[1], bias)
            return rewriter.emit("layer_norm", inputs, outer.attributes, replaces=(node, outer, centred, mean))
    return None


RULES: Final[tuple[Rule, ...]] = (
    Rule("silu", "mul", silu),
    Rule("erf-gelu", "mul", erf_gelu),
    Rule("tanh-gelu", "mul", tanh_gelu),
    Rule("rms-norm", "mul", rms_norm),
    Rule("rms-norm-by-division", "mul", rms_norm_by_division),
    Rule("layer-norm", "add", layer_norm),
    *rules_rotation.RULES,
    *rules_masks.RULES,
)


@dataclass(frozen=True)
class RecogniseComposites(Pass):
    """Put SiLU, GELU, RMSNorm, LayerNorm and rotary embeddings in the place of the primitive ops that spell them out.

    before:
        graph "g" {
          input %x : f32[4]
          %gate : f32[4] = sigmoid(%x) from "sigmoid_0"
          %y : f32[4] = mul(%x, %gate) from "mul_0"
          output %y
        }
    after:
        graph "g" {
          input %x : f32[4]
          %y : f32[4] = silu(%x) from "mul_0" "sigmoid_0"
          output %y
        }
    """

    name: ClassVar[str] = "recognise_composites"
    rules: tuple[Rule, ...] = RULES

    def run(self, graph: Graph) -> PassResult:
        return apply_rules(graph, self.rules, self.name)
