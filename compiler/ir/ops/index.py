"""Indexed reads: which elements are read, the values of another input say."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.ir.access import Relations
from birc.compiler.ir.attributes import Attribute, Attributes, integer
from birc.compiler.ir.errors import TypeRuleError
from birc.compiler.ir.op import Arrays, OpRow, Sample, Types
from birc.compiler.ir.ops.costs import per_element
from birc.compiler.ir.ops.rank_access import output_loops, reductions
from birc.compiler.ir.ops.type_rules import is_index, require, require_axis
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import dtype

_F32: Final = dtype("f32")
_BF16: Final = dtype("bf16")


def _gather_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    x, indices = types
    axis = integer(attributes, "axis")
    require(is_index, "i32 or i64 (indices)", indices)
    require_axis(axis, x)
    return (x.with_shape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])),)


def _gather(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x, indices = arrays
    return (np.take(x, indices, integer(attributes, "axis")),)


def _gather_access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """x: all of the axis (data says which element), the rest as the output; indices: their own part of it."""
    x, indices = types
    axis = integer(attributes, "axis")
    loops, names = output_loops(output)
    (along,) = reductions([x.sizes[axis]])
    after = axis + indices.rank
    reads = ((*names[:axis], along.name, *names[after:]), tuple(names[axis:after]))
    return Relations((*loops, along), reads)


def _gather_nd_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    x, indices = types
    batch = integer(attributes, "batch_dims")
    require(is_index, "i32 or i64 (indices)", indices)
    if indices.rank == 0 or batch >= min(x.rank, indices.rank):
        raise TypeRuleError(f"batch_dims {batch} does not fit {x} and indices {indices}")
    (depth,) = indices.with_shape(indices.shape[-1:]).sizes
    if not 1 <= depth <= x.rank - batch:
        raise TypeRuleError(f"indices {indices} address {depth} dimensions, {x} has {x.rank - batch} after the batch")
    if x.shape[:batch] != indices.shape[:batch]:
        raise TypeRuleError(f"{x} and indices {indices} differ in their first {batch} dimensions")
    return (x.with_shape((*indices.shape[:-1], *x.shape[batch + depth :])),)


def _gather_nd(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    x, indices = arrays
    batch = integer(attributes, "batch_dims")
    leading = indices.shape[:-1]
    of_batch = np.ogrid[tuple(slice(size) for size in leading)][:batch] if batch else []
    addressed = [indices[..., place] for place in range(indices.shape[-1])]
    return (np.asarray(x[(*of_batch, *addressed)]),)


def _gather_nd_access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """x: all of the addressed dimensions, the rest as the output; indices: the whole address."""
    x, indices = types
    batch, depth = integer(attributes, "batch_dims"), indices.sizes[-1]
    loops, names = output_loops(output)
    along = reductions(x.sizes[batch : batch + depth])
    (address,) = reductions([depth], "d")
    leading = indices.rank - 1
    reads = (
        (*names[:batch], *(loop.name for loop in along), *names[leading:]),
        (*names[:leading], address.name),
    )
    return Relations((*loops, *along, address), reads)


def _indices(low: int, high: int, *shape: int, holder: type[np.integer] = np.int64) -> np.ndarray:
    """Spread over the range `low` to before `high`, in no particular order."""
    values = (7 * np.arange(math.prod(shape)) + 3) % (high - low) + low
    return values.reshape(shape).astype(holder)


ROWS: Final[tuple[OpRow, ...]] = (
    OpRow(
        name="gather",
        doc="The slices of x along the axis that the indices name; negative ones count from the end.",
        inputs="x indices",
        category="index",
        loops="i* | k",
        access=_gather_access,
        infer=_gather_rule,
        evaluate=_gather,
        cost=per_element(1),
        attributes={"axis": Attribute("int", "dimension that is indexed", minimum=0)},
        data_dependent=True,
        samples=(
            Sample((TensorType(_F32, (5, 3)), _indices(0, 5, 4)), {"axis": 0}),
            Sample((TensorType(_F32, (2, 6, 3)), _indices(-6, 6, 2, 2)), {"axis": 1}),
            Sample((TensorType(_BF16, (4, 6)), _indices(0, 6, holder=np.int32)), {"axis": 1}),
        ),
    ),
    OpRow(
        name="gather_nd",
        doc="The slices of x whose leading index is a row of the last dimension of the indices.",
        inputs="x indices",
        category="index",
        loops="i* | k* d",
        access=_gather_nd_access,
        infer=_gather_nd_rule,
        evaluate=_gather_nd,
        cost=per_element(1),
        attributes={"batch_dims": Attribute("int", "leading dimensions that x and indices share", minimum=0)},
        data_dependent=True,
        samples=(
            Sample((TensorType(_F32, (3, 4, 2)), _indices(0, 3, 5, 2)), {"batch_dims": 0}),
            Sample((TensorType(_F32, (2, 4, 3)), _indices(-3, 3, 2, 2, 1)), {"batch_dims": 1}),
            Sample((TensorType(_F32, (3, 4)), _indices(0, 3, 2)), {"batch_dims": 0}),
        ),
    ),
)
