"""Views and movements: the same elements in another shape, order, selection or surrounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from birc.compiler.ir.access import Relations
from birc.compiler.ir.attributes import Attribute, Attributes, AttributeValue, integer, integers, number
from birc.compiler.ir.errors import TypeRuleError, UnknownDimError
from birc.compiler.ir.op import Arrays, OpRow, Sample, Types
from birc.compiler.ir.ops.costs import free, per_element
from birc.compiler.ir.ops.numeric import is_floating
from birc.compiler.ir.ops.rank_access import output_loops
from birc.compiler.ir.ops.type_rules import broadcast_shapes, require_axis, same_dtype
from birc.compiler.ir.types import Dim, TensorType
from birc.runtime.dtypes import dtype

TO_THE_END: Final = (1 << 63) - 1
"""As an end of `slice`: all that is left, also of a dimension whose size is not known yet."""


def _reshape_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    (x,) = types
    shape = integers(attributes, "shape")
    if math.prod(shape) != x.num_elements:
        raise TypeRuleError(f"{x} has {x.num_elements} elements, shape {list(shape)} has {math.prod(shape)}")
    return (x.with_shape(shape),)


def _reshape(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    return (arrays[0].reshape(integers(attributes, "shape")),)


def _reshape_access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """x: the element at the same row-major position."""
    loops, names = output_loops(output)
    read: list[str] = []
    for from_dims, to_dims in reshape_groups(types[0].sizes, output.sizes):
        position = _flat_index([names[dim] for dim in to_dims], [output.sizes[dim] for dim in to_dims])
        read.extend(_unflatten(position, [types[0].sizes[dim] for dim in from_dims]))
    return Relations(tuple(loops), (tuple(read),))


def reshape_groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[Sequence[int], Sequence[int]]]:
    """The shortest runs of dimensions of both shapes with equal numbers of elements."""
    if 0 in before:
        return [(range(len(before)), range(len(after)))]
    groups: list[tuple[Sequence[int], Sequence[int]]] = []
    left = right = 0
    while left < len(before) or right < len(after):
        first_left, first_right = left, right
        elements_left, left = (before[left], left + 1) if left < len(before) else (1, left)
        elements_right, right = (after[right], right + 1) if right < len(after) else (1, right)
        while elements_left != elements_right:
            if elements_left < elements_right:
                elements_left, left = elements_left * before[left], left + 1
            else:
                elements_right, right = elements_right * after[right], right + 1
        groups.append((range(first_left, left), range(first_right, right)))
    return groups


def _flat_index(names: Sequence[str], sizes: Sequence[int]) -> str:
    terms = []
    for place, (name, size) in enumerate(zip(names, sizes, strict=True)):
        step = math.prod(sizes[place + 1 :])
        if size != 1:
            terms.append(name if step == 1 else f"{step} * {name}")
    return " + ".join(terms) or "0"


def _unflatten(position: str, sizes: Sequence[int]) -> list[str]:
    """The index in each dimension of the element at a row-major position."""
    wide = [place for place, size in enumerate(sizes) if size != 1]
    read = ["0"] * len(sizes)
    for place in wide:
        step = math.prod(sizes[place + 1 :])
        index = position if step <= 1 else f"({position}) // {step}"
        read[place] = index if place == wide[0] or not sizes[place] else f"({index}) % {sizes[place]}"
    return read


def _transpose_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    (x,) = types
    perm = integers(attributes, "perm")
    if sorted(perm) != list(range(x.rank)):
        raise TypeRuleError(f"perm {list(perm)} does not order the dimensions of {x}")
    return (x.with_shape(tuple(x.shape[dim] for dim in perm)),)


def _transpose(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    return (arrays[0].transpose(integers(attributes, "perm")),)


def _transpose_access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """x: dimension perm[i] by the output's dimension i."""
    loops, names = output_loops(output)
    perm = integers(attributes, "perm")
    return Relations(tuple(loops), (tuple(names[perm.index(dim)] for dim in range(output.rank)),))


def _slice_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    (x,) = types
    ranges = [integers(attributes, name) for name in ("starts", "ends", "steps")]
    if any(len(item) != x.rank for item in ranges):
        raise TypeRuleError(f"starts, ends and steps need one number for each of the {x.rank} dimensions of {x}")
    return (x.with_shape(tuple(map(_sliced_size, x.shape, *ranges))),)


def _sliced_size(size: Dim, start: int, end: int, step: int) -> Dim:
    if isinstance(size, str):
        if (start, end, step) != (0, TO_THE_END, 1):
            raise UnknownDimError(size)
        return size
    last = size if end == TO_THE_END else end
    if not 0 <= start <= last <= size:
        raise TypeRuleError(f"slice {start}:{end} is not within a dimension of size {size}")
    return -(-(last - start) // step)


def _slice(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    ranges = (integers(attributes, name) for name in ("starts", "ends", "steps"))
    return (arrays[0][tuple(map(slice, *ranges))],)


def _slice_access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """x: start + step * index of the output."""
    loops, names = output_loops(output)
    starts, steps = integers(attributes, "starts"), integers(attributes, "steps")
    read = tuple(
        _shifted(name if step == 1 else f"{step} * {name}", start)
        for name, start, step in zip(names, starts, steps, strict=True)
    )
    return Relations(tuple(loops), (read,))


def _shifted(index: str, offset: int) -> str:
    if not offset:
        return index
    return f"{index} + {offset}" if offset > 0 else f"{index} - {-offset}"


def _expand_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    (x,) = types
    shape = integers(attributes, "shape")
    if broadcast_shapes(x.shape, shape) != shape:
        raise TypeRuleError(f"{x} does not broadcast to {list(shape)}")
    return (x.with_shape(shape),)


def _expand(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    return (np.broadcast_to(arrays[0], integers(attributes, "shape")),)


def _concat_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    first, axis = types[0], integer(attributes, "axis")
    require_axis(axis, first)
    total = 0
    for type in types:
        others = (*type.shape[:axis], *type.shape[axis + 1 :])
        if type.rank != first.rank or others != (*first.shape[:axis], *first.shape[axis + 1 :]):
            raise TypeRuleError(f"{first} and {type} differ in more than dimension {axis}")
        total += type.with_shape((type.shape[axis],)).sizes[0]
    shape = (*first.shape[:axis], total, *first.shape[axis + 1 :])
    return (TensorType(same_dtype(*types), shape),)


def _concat(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    return (np.concatenate(arrays, integer(attributes, "axis")),)


def _concat_access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """Each input: the output's index less the sizes of the inputs before it, where that is within it."""
    loops, names = output_loops(output)
    axis = integer(attributes, "axis")
    reads = []
    offset = 0
    for type in types:
        reads.append((*names[:axis], _shifted(names[axis], -offset), *names[axis + 1 :]))
        offset += type.sizes[axis]
    return Relations(tuple(loops), tuple(reads))


def _pad_rule(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    (x,) = types
    pads = integers(attributes, "pads")
    if len(pads) != 2 * x.rank:
        raise TypeRuleError(f"pads has {len(pads)} numbers, not 2 for each dimension of {x}")
    sides = zip(x.shape, pads[: x.rank], pads[x.rank :], strict=True)
    return (x.with_shape(tuple(_padded_size(*item) for item in sides)),)


def _padded_size(size: Dim, before: int, after: int) -> Dim:
    if isinstance(size, int):
        return size + before + after
    if before or after:
        raise UnknownDimError(size)
    return size


def _pad(arrays: Arrays, attributes: Attributes) -> tuple[np.ndarray, ...]:
    (x,) = arrays
    pads, value = integers(attributes, "pads"), number(attributes, "value")
    sides = tuple(zip(pads[: x.ndim], pads[x.ndim :], strict=True))
    filler = value if is_floating(x.dtype) else int(value)
    result = np.full([size + sum(side) for size, side in zip(x.shape, sides, strict=True)], filler, x.dtype)
    result[tuple(slice(before, before + size) for size, (before, _) in zip(x.shape, sides, strict=True))] = x
    return (result,)


def _pad_access(types: Types, output: TensorType, attributes: Attributes) -> Relations:
    """x: the output's index less the padding before, where that is within x."""
    loops, names = output_loops(output)
    before = integers(attributes, "pads")[: output.rank]
    return Relations(tuple(loops), (tuple(map(_shifted, names, (-count for count in before))),))


def _sample(attributes: dict[str, AttributeValue], *shapes: tuple[int, ...], elements: str = "f32") -> Sample:
    return Sample(tuple(TensorType(dtype(elements), shape) for shape in shapes), attributes)


_SHAPE: Final = Attribute("ints", "shape of the result", minimum=0)

ROWS: Final[tuple[OpRow, ...]] = (
    OpRow(
        name="reshape",
        doc="The elements in row-major order in another shape.",
        inputs="x",
        category="view",
        loops="i*",
        access=_reshape_access,
        infer=_reshape_rule,
        evaluate=_reshape,
        cost=free,
        attributes={"shape": _SHAPE},
        samples=(
            _sample({"shape": (6, 4)}, (2, 3, 4)),
            _sample({"shape": (2, 3, 2, 2)}, (6, 4)),
            _sample({"shape": (4, 6)}, (6, 4)),
            _sample({"shape": (1, 5, 1, 8, 9)}, (5, 1, 6, 12)),
            _sample({"shape": ()}, (1, 1)),
            _sample({"shape": (0, 4)}, (2, 0), elements="i64"),
        ),
    ),
    OpRow(
        name="transpose",
        doc="Dimension i of the result is dimension perm[i] of x.",
        inputs="x",
        category="view",
        loops="i*",
        access=_transpose_access,
        infer=_transpose_rule,
        evaluate=_transpose,
        cost=per_element(1),
        attributes={"perm": Attribute("ints", "order of the dimensions", minimum=0)},
        samples=(
            _sample({"perm": (1, 0)}, (2, 3)),
            _sample({"perm": (0, 3, 1, 2)}, (2, 3, 4, 5)),
            _sample({"perm": (2, 0, 1)}, (2, 3, 4), elements="bf16"),
        ),
    ),
    OpRow(
        name="slice",
        doc="Every step-th element from start to before end, in each dimension.",
        inputs="x",
        category="view",
        loops="i*",
        access=_slice_access,
        infer=_slice_rule,
        evaluate=_slice,
        cost=per_element(1),
        attributes={
            "starts": Attribute("ints", "first index of each dimension", minimum=0),
            "ends": Attribute(
                "ints", f"one after the last index of each dimension; {TO_THE_END}: to the end", minimum=0
            ),
            "steps": Attribute("ints", "step of each dimension", minimum=1),
        },
        samples=(
            _sample({"starts": (1, 0), "ends": (4, 3), "steps": (1, 1)}, (5, 3)),
            _sample({"starts": (0, 2, 1), "ends": (2, 9, TO_THE_END), "steps": (1, 3, 2)}, (2, 10, 5)),
            _sample({"starts": (2,), "ends": (2,), "steps": (1,)}, (4,), elements="i64"),
        ),
    ),
    OpRow(
        name="expand",
        doc="x repeated along dimensions of size 1, as numpy broadcasts.",
        inputs="x",
        category="view",
        loops="i*",
        access={"x": "i*"},
        infer=_expand_rule,
        evaluate=_expand,
        cost=per_element(1),
        attributes={"shape": _SHAPE},
        samples=(
            _sample({"shape": (4, 2, 3)}, (2, 1)),
            _sample({"shape": (2, 3)}, ()),
            _sample({"shape": (2, 3)}, (2, 3), elements="i32"),
        ),
    ),
    OpRow(
        name="concat",
        doc="The inputs one after the other along the axis.",
        inputs="xs*",
        category="movement",
        loops="i*",
        access=_concat_access,
        infer=_concat_rule,
        evaluate=_concat,
        cost=per_element(1),
        attributes={"axis": Attribute("int", "dimension along which the inputs lie", minimum=0)},
        samples=(
            _sample({"axis": 0}, (2, 3)),
            _sample({"axis": 1}, (2, 3), (2, 1), (2, 4)),
            _sample({"axis": 0}, (2,), (0,), (5,), elements="i64"),
        ),
    ),
    OpRow(
        name="pad",
        doc="x with elements of a fixed value before and after it in each dimension.",
        inputs="x",
        category="movement",
        loops="i*",
        access=_pad_access,
        infer=_pad_rule,
        evaluate=_pad,
        cost=per_element(1),
        attributes={
            "pads": Attribute("ints", "elements before each dimension, then after each", minimum=0),
            "value": Attribute("float", "value of the new elements"),
        },
        samples=(
            _sample({"pads": (0, 1, 2, 0), "value": 0.0}, (3, 4)),
            _sample({"pads": (0, 0, 1, 1, 0, 0, 2, 1), "value": 1.5}, (1, 2, 3, 3)),
            _sample({"pads": (2, 1), "value": -3.0}, (4,), elements="i32"),
        ),
    ),
)
