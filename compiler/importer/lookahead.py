"""The shape that a value must have because of what a model does with it: steps back from declared results."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Final

import onnx

from birc.compiler.importer.domains import standard_domain

Shape = tuple[int, ...]
Declared = Callable[[str], Shape | None]
"""The shape of a value by its ONNX name; None where it is not known."""

_KEEPING: Final = frozenset(
    {"Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "CastLike", "Ceil", "Celu",
     "Clip", "Cos", "Cosh", "CumSum", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
     "HardSwish", "Hardmax", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "LogSoftmax", "Mish", "Neg",
     "Not", "PRelu", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh",
     "Softmax", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Trilu"}
)  # fmt: skip
"""Operators of the standard domain whose first result has the shape of their first input."""

_BROADCASTING: Final = frozenset(
    {"Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater",
     "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum",
     "Where", "Xor"}
)  # fmt: skip


class Lookahead:
    """The shapes of the values of one region. `known` tells what is declared or inferred of them; `lowered` tells the
    shapes of the values that the importer has made so far.
    """

    def __init__(self, nodes: Sequence[onnx.NodeProto], known: Declared, lowered: Declared) -> None:
        self._known = known
        self._lowered = lowered
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in nodes:
            if not standard_domain(node.domain) and node.output:
                for name in dict.fromkeys(node.input):
                    self._readers.setdefault(name, []).append(node)

    def shape_of(self, name: str) -> Shape | None:
        """The shape of value `name`: as it is known, or as a result that is made from it fixes it."""
        alike, pending = {name}, [name]
        while pending:
            value = pending.pop()
            found = self._known(value)
            if found is not None:
                return found
            for reader in self._readers.get(value, ()):
                result = reader.output[0]
                if result not in alike and self._keeps_shape(reader, value, alike):
                    alike.add(result)
                    pending.append(result)
        return None

    def _keeps_shape(self, reader: onnx.NodeProto, value: str, alike: Set[str]) -> bool:
        """Whether the result of `reader` has the shape of its operand `value`, which those of `alike` have too.

        A broadcast does when each of its other operands has that shape, or rank 0.
        """
        if reader.op_type in _KEEPING:
            return reader.input[0] == value
        if reader.op_type not in _BROADCASTING:
            return False
        return all(other in alike or self._lowered(other) == () for other in reader.input)
