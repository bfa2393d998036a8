"""Ops on the bits of integers: logic, shifts, and the same bits taken for another element type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from birc.compiler.ir.attributes import Attribute, Attributes, element_type
from birc.compiler.ir.errors import TypeRuleError
from birc.compiler.ir.op import Arrays, OpRow, Sample, Types
from birc.compiler.ir.ops.costs import per_element
from birc.compiler.ir.ops.elementwise_rows import binary, pair_samples, unary, unary_samples
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import DType, dtype


def _is_integer(entry: DType) -> bool:
    return entry.is_integer


def _inside(x: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a shift leaves bits of x in place, and by how much it moves there."""
    bits = np.iinfo(x.dtype).bits
    inside = (places >= 0) & (places < bits)
    return inside, np.where(inside, places, 0).astype(x.dtype)


def _shift_left(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    inside, distance = _inside(x, places)
    return np.where(inside, np.left_shift(x, distance), x.dtype.type(0))


def _shift_right(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    inside, distance = _inside(x, places)
    beyond = np.where(x < 0, x.dtype.type(-1), x.dtype.type(0)) if x.dtype.kind == "i" else x.dtype.type(0)
    return np.where(inside, np.right_shift(x, distance), beyond)


def _bitcast_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    (x,) = types
    to = element_type(attributes, "to")
    if to.bits != x.dtype.bits:
        raise TypeRuleError(f"the bits of {x.dtype} are no {to}: {x.dtype.bits} against {to.bits} bits")
    return (x.with_dtype(to),)


def _bitcast(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    (x,) = arrays
    to = element_type(attributes, "to")
    if to.kind == "bool":
        return (x.view(np.uint8) != 0,)
    return (np.ascontiguousarray(x).view(to.numpy).reshape(x.shape),)


def _logic(name: str, doc: str, function: Callable[..., Any]) -> OpRow:
    return binary(
        name,
        doc,
        function,
        test=_is_integer,
        wanted="integer",
        samples=pair_samples("i32", "u8", low=-100.0, high=100.0),
    )


def _shift(name: str, doc: str, function: Callable[..., Any]) -> OpRow:
    return binary(
        name,
        doc,
        function,
        test=_is_integer,
        wanted="integer",
        samples=pair_samples("i32", "i8", "u16", low=-3.0, high=40.0),
    )


ROWS: Final[tuple[OpRow, ...]] = (
    _logic("bitwise_and", "The bits that are set in both.", np.bitwise_and),
    _logic("bitwise_or", "The bits that are set in one or both.", np.bitwise_or),
    _logic("bitwise_xor", "The bits that are set in exactly one.", np.bitwise_xor),
    unary(
        "bitwise_not",
        "Every bit turned over.",
        np.bitwise_not,
        test=_is_integer,
        wanted="integer",
        samples=unary_samples("i32", "u8", low=-100.0, high=100.0),
    ),
    _shift("shift_left", "The bits of a moved up by b places; 0 unless b is from 0 to the width less 1.", _shift_left),
    _shift(
        "shift_right",
        "The bits of a moved down by b places, copies of a sign follow; those alone for other b.",
        _shift_right,
    ),
    OpRow(
        name="bitcast",
        doc="The same bits as elements of another type of the same width.",
        inputs="x",
        category="elementwise",
        loops="i*",
        access={"x": "i*"},
        infer=_bitcast_rule,
        evaluate=_bitcast,
        cost=per_element(1),
        attributes={"to": Attribute("dtype", "element type of the result")},
        samples=(
            Sample((TensorType(dtype("f32"), (2, 3)),), {"to": dtype("i32")}),
            Sample((TensorType(dtype("i32"), (4,)),), {"to": dtype("f32")}, 1e9, 1.1e9),
            Sample((TensorType(dtype("i8"), (5,)),), {"to": dtype("u8")}, -9.0, 9.0),
            Sample((TensorType(dtype("bf16"), ()),), {"to": dtype("u16")}),
        ),
    ),
)
