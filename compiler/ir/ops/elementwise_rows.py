"""Constructors of elementwise rows: one or two inputs that broadcast, with or without attributes, and their samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from birc.compiler.ir.attributes import Attribute, Attributes, AttributeValue
from birc.compiler.ir.op import Arrays, OpRow, Sample
from birc.compiler.ir.ops.costs import per_element
from birc.compiler.ir.ops.numeric import elementwise, with_attributes
from birc.compiler.ir.ops.type_rules import DTypeTest, broadcast_rule, is_bool, is_float, is_number
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import dtype

BOOL: Final = dtype("bool")

_PAIRS: Final = (((2, 3), (2, 3)), ((4, 1, 3), (5, 1)), ((), (2, 2)))
_SHAPES: Final[tuple[tuple[int, ...], ...]] = ((), (5,), (2, 3, 4))


def pair_samples(
    *types: str, attributes: Mapping[str, AttributeValue] | None = None, low: float = -2.0, high: float = 2.0
) -> tuple[Sample, ...]:
    return tuple(
        Sample(tuple(TensorType(dtype(name), shape) for shape in pair), attributes or {}, low, high)
        for name in types
        for pair in _PAIRS
    )


def unary_samples(
    *types: str, attributes: Mapping[str, AttributeValue] | None = None, low: float = -2.0, high: float = 2.0
) -> tuple[Sample, ...]:
    return tuple(
        Sample((TensorType(dtype(name), shape),), attributes or {}, low, high) for name in types for shape in _SHAPES
    )


def binary(
    name: str,
    doc: str,
    function: Callable[..., Any],
    *,
    test: DTypeTest = is_number,
    wanted: str = "number",
    ops: int = 1,
    sfu: int = 0,
    samples: tuple[Sample, ...] = (),
) -> OpRow:
    return OpRow(
        name=name,
        doc=doc,
        inputs="a b",
        category="elementwise",
        loops="i*",
        access={"a": "i*", "b": "i*"},
        infer=broadcast_rule(test, wanted),
        evaluate=elementwise(function),
        cost=per_element(ops, sfu),
        samples=samples or pair_samples("f32", "i32"),
    )


def comparison(name: str, doc: str, function: Callable[..., Any]) -> OpRow:
    """The row of a comparison: bool from two inputs of one type."""

    def evaluate(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
        return (np.asarray(function(*arrays), np.bool_),)

    return OpRow(
        name=name,
        doc=doc,
        inputs="a b",
        category="elementwise",
        loops="i*",
        access={"a": "i*", "b": "i*"},
        infer=broadcast_rule(lambda entry: True, "any", BOOL),
        evaluate=evaluate,
        cost=per_element(1),
        samples=pair_samples("f32", "i32"),
    )


def logical(name: str, doc: str, function: Callable[..., Any]) -> OpRow:
    """The row of a connective of truth values."""
    return binary(name, doc, function, test=is_bool, wanted="bool", samples=pair_samples("bool"))


def unary(
    name: str,
    doc: str,
    function: Callable[[np.ndarray], np.ndarray],
    *,
    test: DTypeTest = is_float,
    wanted: str = "float",
    ops: int = 1,
    sfu: int = 0,
    samples: tuple[Sample, ...] = (),
) -> OpRow:
    return OpRow(
        name=name,
        doc=doc,
        inputs="x",
        category="elementwise",
        loops="i*",
        access={"x": "i*"},
        infer=broadcast_rule(test, wanted),
        evaluate=elementwise(function),
        cost=per_element(ops, sfu),
        samples=samples or unary_samples("f32", "bf16"),
    )


def parametric(
    name: str,
    doc: str,
    attributes: dict[str, Attribute],
    function: Callable[[np.ndarray, Attributes], np.ndarray],
    *,
    ops: int,
    sfu: int = 0,
    samples: tuple[Sample, ...],
    test: DTypeTest = is_float,
    wanted: str = "float",
) -> OpRow:
    return OpRow(
        name=name,
        doc=doc,
        inputs="x",
        category="elementwise",
        loops="i*",
        access={"x": "i*"},
        infer=broadcast_rule(test, wanted),
        evaluate=with_attributes(function),
        cost=per_element(ops, sfu),
        samples=samples,
        attributes=attributes,
    )
