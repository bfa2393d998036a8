"""Rotation of pairs of elements by angles whose cosines and sines are given: rotary position embeddings."""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.ir.access import Loop, Relations
from birc.compiler.ir.attributes import Attribute, Attributes, integer
from birc.compiler.ir.errors import TypeRuleError, UnknownDimError
from birc.compiler.ir.op import Arrays, OpRow, Sample, Types, sample_types
from birc.compiler.ir.ops.costs import per_element
from birc.compiler.ir.ops.numeric import narrowed, widened
from birc.compiler.ir.ops.rank_access import broadcast_read, output_loops
from birc.compiler.ir.ops.type_rules import broadcast_shapes, is_float, require, same_dtype
from birc.compiler.ir.types import TensorType


def _rotate_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    x, *tables = types
    require(is_float, "float", *types)
    same_dtype(*types)
    size = x.shape[-1] if x.rank else 1
    if isinstance(size, str):
        raise UnknownDimError(size)
    if size % 2:
        raise TypeRuleError(f"the last dimension of {x} does not consist of pairs")
    for table in tables:
        whole = (*x.shape[:-1], size // 2 if _is_for_pairs(table, size) else size)
        if broadcast_shapes(whole, table.shape) != whole:
            raise TypeRuleError(f"{table} does not broadcast to {x}, nor to one angle a pair")
    return (x.logical,)


def _is_for_pairs(table: TensorType, size: int) -> bool:
    """Whether a table for so many elements has one angle for both elements of a pair."""
    return table.rank > 0 and table.shape[-1] == size // 2


def _rotate(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x = widened(arrays[0])
    pairs = x.shape[-1] // 2
    order = np.arange(2 * pairs).reshape((pairs, 2) if integer(attributes, "interleaved") else (2, pairs))
    first, second = order.T if integer(attributes, "interleaved") else order
    cosine, sine = (widened(array) for array in arrays[1:])
    turned, of_pair = np.empty_like(x), np.empty(2 * pairs, np.int64)
    turned[..., first], turned[..., second] = -x[..., second], x[..., first]
    of_pair[first] = of_pair[second] = np.arange(pairs)
    cosine, sine = (table[..., of_pair] if table.shape[-1:] == (pairs,) else table for table in (cosine, sine))
    with np.errstate(all="ignore"):
        return (narrowed(x * cosine + turned * sine, arrays[0].dtype),)


def _rotate_access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """x: both elements of the pair; the tables broadcast, those of one angle a pair by its number."""
    loops, names = output_loops(output)
    last, pairs = names[-1], output.sizes[-1] // 2
    interleaved = integer(attributes, "interleaved")
    other = f"{last} - {last} % 2 + k" if interleaved else f"{last} % {pairs} + {pairs} * k"
    of_pair = f"{last} // 2" if interleaved else f"{last} % {pairs}"
    tables = tuple(
        broadcast_read(table, (*names[:-1], of_pair if _is_for_pairs(table, 2 * pairs) else last))
        for table in types[1:]
    )
    return Relations((*loops, Loop("k", 2, True)), ((*names[:-1], other), *tables))


ROWS: Final[tuple[OpRow, ...]] = (
    OpRow(
        name="rotate",
        doc=(
            "x * cosine + turned * sine, where turned has -b, a for each pair a, b of the last dimension. "
            "The tables have an angle for each element, or one for each pair."
        ),
        inputs="x cosine sine",
        category="movement",
        loops="i* | k",
        access=_rotate_access,
        infer=_rotate_rule,
        evaluate=_rotate,
        cost=per_element(3),
        attributes={
            "interleaved": Attribute("int", "1: the elements of a pair are neighbours, 0: halves apart", minimum=0)
        },
        samples=(
            Sample(sample_types((2, 3, 8), (2, 3, 4), (2, 3, 4)), {"interleaved": 0}),
            Sample(sample_types((2, 3, 8), (2, 3, 4), (2, 3, 4)), {"interleaved": 1}),
            Sample(sample_types((1, 5, 6), (1, 5, 3), (1, 5, 3), elements="bf16"), {"interleaved": 0}),
        ),
    ),
)
