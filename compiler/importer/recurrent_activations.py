"""The activation functions of recurrent operators: names, scales and the rows each becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.runtime.errors import BadModelError

_OF_CELL: Final = 2
"""The position of the function of LSTM's cell among those of a direction."""

_Rows = Callable[[GraphBuilder, str, float, float], str]


@dataclass(frozen=True, slots=True)
class _Kind:
    """One function. `alpha` and `beta` are their defaults, None where the function has no such scale."""

    rows: _Rows
    alpha: float | None = None
    beta: float | None = None


@dataclass(frozen=True, slots=True)
class Activation:
    """A function with its scales; `limit` bounds its argument on both sides, 0 leaves it free."""

    kind: _Kind
    alpha: float
    beta: float
    limit: float

    def apply(self, build: GraphBuilder, x: str) -> str:
        """The function of `x`, element by element."""
        if self.limit > 0:
            x = build.emit("clip", (x,), {"minimum": -self.limit, "maximum": self.limit})
        return self.kind.rows(build, x, self.alpha, self.beta)


def read_activations(node: OnnxNode, defaults: Sequence[str], directions: int) -> tuple[tuple[Activation, ...], ...]:
    """The functions of each direction, in the order of the operator's equations.

    The scales are listed for those functions alone that have them, in the order of the functions. `clip` bounds
    what the gates add up; the cell of LSTM, which its third function takes, stays free, as it does in onnxruntime.
    Raises `BadModelError` for a wrong number of functions and `CannotLower` for an unknown one.
    """
    names = _strings(node, "activations") or tuple(defaults) * directions
    if len(names) != len(defaults) * directions:
        what = f"{len(names)} activations; {len(defaults)} for each of {directions} directions are needed"
        raise BadModelError(what, where=node.where)
    alphas, betas = list(_floats(node, "activation_alpha")), list(_floats(node, "activation_beta"))
    limit = node.float_attribute("clip", 0.0)
    made: list[Activation] = []
    for name in names:
        kind = _KINDS.get(name.lower())
        if kind is None:
            raise CannotLower(f"activation {name!r} is none of ONNX's")
        bound = 0.0 if len(made) % len(defaults) == _OF_CELL else limit
        made.append(Activation(kind, _scale(kind.alpha, alphas), _scale(kind.beta, betas), bound))
    count = len(defaults)
    return tuple(tuple(made[place * count : (place + 1) * count]) for place in range(directions))


def _scale(default: float | None, given: list[float]) -> float:
    """The next of the `given` scales, which it takes off the list, for a function that has one."""
    if default is None:
        return 0.0
    return given.pop(0) if given else default


def _strings(node: OnnxNode, name: str) -> tuple[str, ...]:
    value = node.attributes.get(name, ())
    if not isinstance(value, tuple) or not all(isinstance(entry, str) for entry in value):
        raise BadModelError(f"attribute {name!r} of {node.op_type} must be a list of strings", where=node.where)
    return value


def _floats(node: OnnxNode, name: str) -> tuple[float, ...]:
    value = node.attributes.get(name, ())
    if not isinstance(value, tuple) or not all(isinstance(entry, float) for entry in value):
        raise BadModelError(f"attribute {name!r} of {node.op_type} must be a list of floats", where=node.where)
    return value


def _row(op: str) -> _Rows:
    return lambda build, x, alpha, beta: build.emit(op, (x,))


def _scaled(build: GraphBuilder, x: str, factor: float) -> str:
    return x if factor == 1.0 else build.emit("mul", (x, build.scalar(factor, x)))


def _affine(build: GraphBuilder, x: str, alpha: float, beta: float) -> str:
    return build.emit("add", (_scaled(build, x, alpha), build.scalar(beta, x)))


def _scaled_tanh(build: GraphBuilder, x: str, alpha: float, beta: float) -> str:
    return _scaled(build, build.emit("tanh", (_scaled(build, x, beta),)), alpha)


def _thresholded_relu(build: GraphBuilder, x: str, alpha: float, beta: float) -> str:
    above = build.emit("greater_equal", (x, build.scalar(alpha, x)))
    return build.emit("where", (above, x, build.scalar(0, x)))


def _softsign(build: GraphBuilder, x: str, alpha: float, beta: float) -> str:
    return build.emit("div", (x, build.emit("add", (build.emit("abs", (x,)), build.scalar(1, x)))))


def _leaky_relu(build: GraphBuilder, x: str, alpha: float, beta: float) -> str:
    return build.emit("leaky_relu", (x,), {"alpha": alpha})


def _elu(build: GraphBuilder, x: str, alpha: float, beta: float) -> str:
    return build.emit("elu", (x,), {"alpha": alpha})


def _hard_sigmoid(build: GraphBuilder, x: str, alpha: float, beta: float) -> str:
    return build.emit("hard_sigmoid", (x,), {"alpha": alpha, "beta": beta})


# Names and equations as RNN, GRU and LSTM give them in the ONNX operator reference; the defaults are those of the
# operators of the same names.
_KINDS: Final[Mapping[str, _Kind]] = {
    "affine": _Kind(_affine, 1.0, 0.0),
    "elu": _Kind(_elu, 1.0),
    "hardsigmoid": _Kind(_hard_sigmoid, 0.2, 0.5),
    "leakyrelu": _Kind(_leaky_relu, 0.01),
    "relu": _Kind(_row("relu")),
    "scaledtanh": _Kind(_scaled_tanh, 1.0, 1.0),
    "sigmoid": _Kind(_row("sigmoid")),
    "softplus": _Kind(_row("softplus")),
    "softsign": _Kind(_softsign),
    "tanh": _Kind(_row("tanh")),
    "thresholdedrelu": _Kind(_thresholded_relu, 1.0),
}
