"""Type rules that several families share: element type checks, broadcasting, axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from birc.compiler.ir.attributes import Attributes
from birc.compiler.ir.errors import TypeRuleError
from birc.compiler.ir.op import Infer, Types
from birc.compiler.ir.types import Dim, TensorType
from birc.runtime.dtypes import DType

DTypeTest = Callable[[DType], bool]


def is_float(dtype: DType) -> bool:
    return dtype.kind == "float"


def is_number(dtype: DType) -> bool:
    return dtype.kind != "bool"


def is_bool(dtype: DType) -> bool:
    return dtype.kind == "bool"


def is_index(dtype: DType) -> bool:
    return dtype.name in ("i32", "i64")


def require(test: DTypeTest, wanted: str, *types: TensorType) -> None:
    """Raise `TypeRuleError` unless every element type passes the test."""
    for type in types:
        if not test(type.dtype):
            raise TypeRuleError(f"takes {wanted} elements, not {type}", hint="cast the input")


def same_dtype(*types: TensorType) -> DType:
    """The one element type of all. Raises `TypeRuleError` when they differ."""
    first = types[0].dtype
    if any(type.dtype is not first and type.dtype != first for type in types):
        listed = ", ".join(map(str, types))
        raise TypeRuleError(f"inputs differ in element type: {listed}", hint="cast one of them")
    return first


def broadcast_shapes(*shapes: Sequence[Dim]) -> tuple[Dim, ...]:
    """The common shape under numpy broadcasting. A symbol goes with itself and with 1 only."""
    rank = max(len(shape) for shape in shapes)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        for place, size in enumerate(shape, rank - len(shape)):
            if size == 1 or size == result[place]:
                continue
            if result[place] != 1:
                listed = " and ".join(str(list(item)) for item in shapes)
                raise TypeRuleError(f"shapes {listed} do not broadcast: {result[place]} against {size}")
            result[place] = size
    return tuple(result)


def broadcast_rule(test: DTypeTest, wanted: str, result: DType | None = None) -> Infer:
    """The rule of an elementwise op: equal element types, broadcasting, elements of `result` or the same."""

    def infer(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
        require(test, wanted, *types)
        dtype = same_dtype(*types)
        shape = types[0].shape if len(types) == 1 else broadcast_shapes(*(type.shape for type in types))
        return (TensorType(result or dtype, shape),)

    return infer


def require_rank(type: TensorType, name: str, rank: int) -> None:
    if type.rank != rank:
        raise TypeRuleError(f"{name} has {rank} dimensions, not {type}")


def require_axis(axis: int, type: TensorType) -> None:
    """An axis is counted from the front: negative ones are resolved before the IR."""
    if not 0 <= axis < type.rank:
        raise TypeRuleError(f"axis {axis} is not a dimension of {type}", hint=f"0 to {type.rank - 1}")


def require_sizes(type: TensorType, name: str, shape: Sequence[Dim]) -> None:
    if type.shape != tuple(shape):
        raise TypeRuleError(f"{name} has the shape {list(shape)}, not {type}")
