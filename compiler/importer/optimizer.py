"""Lowering of the training domain's optimisers: one step of Adagrad, Adam or Momentum, on any number of tensors.

The equations are those of the ONNX operator reference. The learning rate R and the update count T are scalars of run
time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError

_DOMAIN: Final = "ai.onnx.preview.training"

_Update = Callable[[OnnxNode, GraphBuilder, tuple[str, str], list[str]], tuple[str, ...]]
"""One tensor's new value and new states, from (R, T) and the tensor, its gradient and its states."""


def _optimizer(num_states: int, update: _Update) -> Lower:
    """The lowering of an optimiser with so many states a tensor: inputs and outputs come kind by kind."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        kinds = num_states + 2
        count, rest = divmod(len(node.inputs) - 2, kinds)
        if count < 1 or rest or len(node.outputs) > count * (num_states + 1):
            what = f"{len(node.inputs)} inputs and {len(node.outputs)} outputs; it takes 2 and {kinds} a tensor"
            raise BadModelError(what, where=node.where)
        scalars = (_scalar(build, node.input(0)), _scalar(build, node.input(1)))
        made: list[str] = [""] * count * (num_states + 1)
        for tensor in range(count):
            operands = [node.input(2 + kind * count + tensor) for kind in range(kinds)]
            if any(build.type_of(operand).dtype.name != "f32" for operand in operands):
                raise CannotLower("its tensors are not f32, in which the device computes")
            made[tensor::count] = update(node, build, scalars, operands)
        return tuple(made[: len(node.outputs)])

    return lower


def _scalar(build: GraphBuilder, x: str) -> str:
    return cast(build, reshape(build, x, ()), dtype("f32"))


def _scaled(build: GraphBuilder, x: str, factor: float) -> str:
    return x if factor == 1.0 else build.emit("mul", (x, build.scalar(factor, x)))


def _sum(build: GraphBuilder, x: str, factor: float, y: str) -> str:
    """factor x + y"""
    return y if factor == 0.0 else build.emit("add", (_scaled(build, x, factor), y))


def _regularized(node: OnnxNode, build: GraphBuilder, x: str, gradient: str) -> str:
    return _sum(build, x, node.float_attribute("norm_coefficient", 0.0), gradient)


def _is_later(build: GraphBuilder, count: str) -> str:
    """Whether this is not the first update."""
    return build.emit("greater", (count, build.scalar(0, count)))


def _adagrad(node: OnnxNode, build: GraphBuilder, scalars: tuple[str, str], operands: list[str]) -> tuple[str, ...]:
    """h += g^2; x -= R / (1 + T decay) g / (sqrt(h) + epsilon)"""
    (rate, count), (x, gradient, squares) = scalars, operands
    slowed = _sum(build, count, node.float_attribute("decay_factor", 0.0), build.scalar(1, rate))
    rate = build.emit("div", (rate, slowed))
    gradient = _regularized(node, build, x, gradient)
    squares = build.emit("add", (squares, build.emit("mul", (gradient, gradient))))
    root = build.emit("sqrt", (squares,))
    root = build.emit("add", (root, build.scalar(node.float_attribute("epsilon", 1e-6), root)))
    step = build.emit("div", (build.emit("mul", (rate, gradient)), root))
    return build.emit("sub", (x, step)), squares


def _momentum(node: OnnxNode, build: GraphBuilder, scalars: tuple[str, str], operands: list[str]) -> tuple[str, ...]:
    """v = alpha v + beta g, with beta = 1 at first; x -= R v, or R (g + alpha v) by Nesterov"""
    (rate, count), (x, gradient, speed) = scalars, operands
    mode = node.string_attribute("mode", "")
    if mode not in ("standard", "nesterov"):
        raise BadModelError(f"mode {mode!r} is neither standard nor nesterov", where=node.where)
    alpha, beta = _required(node, "alpha"), _required(node, "beta")
    gradient = _regularized(node, build, x, gradient)
    factor = build.emit("where", (_is_later(build, count), build.scalar(beta, rate), build.scalar(1, rate)))
    speed = _sum(build, speed, alpha, build.emit("mul", (factor, gradient)))
    step = speed if mode == "standard" else _sum(build, speed, alpha, gradient)
    return build.emit("sub", (x, build.emit("mul", (rate, step)))), speed


def _required(node: OnnxNode, name: str) -> float:
    if not node.has(name):
        raise BadModelError(f"attribute {name!r} of {node.op_type} is missing", where=node.where)
    return node.float_attribute(name, 0.0)


def _adam(node: OnnxNode, build: GraphBuilder, scalars: tuple[str, str], operands: list[str]) -> tuple[str, ...]:
    """v = alpha v + (1 - alpha) g; h = beta h + (1 - beta) g^2; x -= R' v / (sqrt(h) + epsilon)

    R' is R at first, later R sqrt(1 - beta^T) / (1 - alpha^T).
    """
    (rate, count), (x, gradient, mean, square) = scalars, operands
    alpha, beta = node.float_attribute("alpha", 0.9), node.float_attribute("beta", 0.999)
    gradient = _regularized(node, build, x, gradient)
    mean = _sum(build, mean, alpha, _scaled(build, gradient, 1.0 - alpha))
    grown = _scaled(build, build.emit("mul", (gradient, gradient)), 1.0 - beta)
    square = _sum(build, square, beta, grown)
    root = build.emit("sqrt", (square,))
    root = build.emit("add", (root, build.scalar(node.float_attribute("epsilon", 1e-6), root)))
    up, down = _missing(build, beta, count), _missing(build, alpha, count)
    later = build.emit("div", (build.emit("mul", (rate, build.emit("sqrt", (up,)))), down))
    rate = build.emit("where", (_is_later(build, count), later, rate))
    x = build.emit("sub", (x, build.emit("mul", (rate, build.emit("div", (mean, root))))))
    return _scaled(build, x, 1.0 - node.float_attribute("norm_coefficient_post", 0.0)), mean, square


def _missing(build: GraphBuilder, decay: float, count: str) -> str:
    """1 - decay^count, without cancellation: 2 t / (1 + t) with t = tanh(-count log(decay) / 2)."""
    if decay < 0.0:
        raise CannotLower(f"it has the negative decay {decay:g}")
    if decay == 0.0:
        return build.scalar(1, count)
    curve = build.emit("tanh", (build.emit("mul", (count, build.scalar(-math.log(decay) / 2, count))),))
    return build.emit("div", (_scaled(build, curve, 2.0), build.emit("add", (curve, build.scalar(1, curve)))))


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Adagrad", _optimizer(1, _adagrad), domain=_DOMAIN),
    OpType("Adam", _optimizer(2, _adam), domain=_DOMAIN),
    OpType("Momentum", _optimizer(1, _momentum), domain=_DOMAIN),
)
