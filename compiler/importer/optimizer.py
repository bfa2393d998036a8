"""Lowering of the training domain's optimisers: one step of Adagrad, Adam or Momentum, on any number of tensors.

The equations are those of the ONNX operator reference. The learning rate R and the update count T are scalars of run
time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.term import Operand, Term, as_term, where
from birc.runtime.errors import BadModelError

_DOMAIN: Final = "ai.onnx.preview.training"

_Update = Callable[[OnnxNode, Term, Term, Sequence[Term]], tuple[Term, ...]]
"""One tensor's new value and new states, from R, T, and the tensor, its gradient and its states."""


def _optimizer(num_states: int, update: _Update) -> Lower:
    """The lowering of an optimiser with so many states a tensor: inputs and outputs come kind by kind."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        kinds = num_states + 2
        count, rest = divmod(len(node.inputs) - 2, kinds)
        if count < 1 or rest or len(node.outputs) > count * (num_states + 1):
            what = f"{len(node.inputs)} inputs and {len(node.outputs)} outputs; it takes 2 and {kinds} a tensor"
            raise BadModelError(what, where=node.where)
        rate, times = (Term(build, node.input(place)).reshape().to("f32") for place in range(2))
        made: list[str] = [""] * count * (num_states + 1)
        for tensor in range(count):
            operands = [Term(build, node.input(2 + kind * count + tensor)) for kind in range(kinds)]
            if any(operand.dtype.name != "f32" for operand in operands):
                raise CannotLower("its tensors are not f32, in which the device computes")
            made[tensor::count] = [result.name for result in update(node, rate, times, operands)]
        return tuple(made[: len(node.outputs)])

    return lower


def _times(factor: float, x: Term) -> Term:
    return x if factor == 1.0 else x * factor


def _plus(x: Term, factor: float, y: Term) -> Term:
    """x + factor y"""
    return x if factor == 0.0 else _times(factor, y) + x


def _regularized(node: OnnxNode, x: Term, gradient: Term) -> Term:
    return _plus(gradient, node.float_attribute("norm_coefficient", 0.0), x)


def _later(times: Term, later: Operand, first: Operand) -> Term:
    """`later`, but `first` in the first update."""
    return as_term(times.build, where(times > 0.0, later, first))


def _adagrad(node: OnnxNode, rate: Term, times: Term, operands: Sequence[Term]) -> tuple[Term, ...]:
    """h += g^2; x -= R / (1 + T decay) g / (sqrt(h) + epsilon)"""
    x, gradient, squares = operands
    decay = node.float_attribute("decay_factor", 0.0)
    rate = rate / (times * decay + 1.0) if decay else rate
    gradient = _regularized(node, x, gradient)
    squares = squares + gradient * gradient
    return x - rate * gradient / (squares.row("sqrt") + node.float_attribute("epsilon", 1e-6)), squares


def _momentum(node: OnnxNode, rate: Term, times: Term, operands: Sequence[Term]) -> tuple[Term, ...]:
    """v = alpha v + beta g, with beta = 1 at first; x -= R v, or R (g + alpha v) by Nesterov"""
    x, gradient, speed = operands
    mode = node.string_attribute("mode", "")
    if mode not in ("standard", "nesterov"):
        raise BadModelError(f"mode {mode!r} is neither standard nor nesterov", where=node.where)
    alpha, beta = node.float_attribute("alpha"), node.float_attribute("beta")
    gradient = _regularized(node, x, gradient)
    speed = _plus(_later(times, beta, 1.0) * gradient, alpha, speed)
    step = speed if mode == "standard" else _plus(gradient, alpha, speed)
    return x - rate * step, speed


def _adam(node: OnnxNode, rate: Term, times: Term, operands: Sequence[Term]) -> tuple[Term, ...]:
    """v = alpha v + (1 - alpha) g; h = beta h + (1 - beta) g^2; x -= R' v / (sqrt(h) + epsilon)

    R' is R at first, later R sqrt(1 - beta^T) / (1 - alpha^T).
    """
    x, gradient, mean, square = operands
    alpha, beta = node.float_attribute("alpha", 0.9), node.float_attribute("beta", 0.999)
    gradient = _regularized(node, x, gradient)
    mean = _plus(_times(1.0 - alpha, gradient), alpha, mean)
    square = _plus(_times(1.0 - beta, gradient * gradient), beta, square)
    root = square.row("sqrt") + node.float_attribute("epsilon", 1e-6)
    corrected = rate * _missing(beta, times).row("sqrt") / _missing(alpha, times)
    x = x - _later(times, corrected, rate) * (mean / root)
    return _times(1.0 - node.float_attribute("norm_coefficient_post", 0.0), x), mean, square


def _missing(decay: float, times: Term) -> Term:
    """1 - decay^T, without cancellation: 2 t / (1 + t) with t = tanh(-T log(decay) / 2)."""
    if decay < 0.0:
        raise CannotLower(f"it has the negative decay {decay:g}")
    if decay == 0.0:
        return as_term(times.build, np.asarray(1.0, np.float32))
    curve = (times * (-math.log(decay) / 2)).row("tanh")
    return curve * 2.0 / (curve + 1.0)


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Adagrad", _optimizer(1, _adagrad), domain=_DOMAIN),
    OpType("Adam", _optimizer(2, _adam), domain=_DOMAIN),
    OpType("Momentum", _optimizer(1, _momentum), domain=_DOMAIN),
)
