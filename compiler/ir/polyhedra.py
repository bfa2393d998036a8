"""Access relations as integer sets, for exact answers and proofs: the one module that imports islpy."""

from __future__ import annotations

from collections.abc import Sequence

import islpy as isl

from birc.compiler.ir.access import Box, Relations
from birc.compiler.ir.types import TensorType


def access_map(relations: Relations, operand: int, type: TensorType) -> isl.Map:
    """The map from iteration points to the elements of the operand (counted from 0) that they read.

    Points that index outside the operand, of type `type`, map to nothing.
    """
    loops = ", ".join(loop.name for loop in relations.loops)
    indices = ", ".join(relations.reads[operand])
    limits = [f"0 <= {loop.name} < {loop.extent}" for loop in relations.loops]
    limits += [f"0 <= {index} < {size}" for index, size in zip(relations.reads[operand], type.sizes, strict=True)]
    condition = f" : {' and '.join(limits)}" if limits else ""
    return isl.Map(f"{{ [{loops}] -> [{indices}]{condition} }}")


def iteration_set(relations: Relations, box: Box) -> isl.Set:
    """The iteration points that compute the output elements in `box`."""
    ranges = [*box, *((0, loop.extent) for loop in relations.reductions)]
    loops = ", ".join(loop.name for loop in relations.loops)
    limits = " and ".join(
        f"{start} <= {loop.name} < {stop}" for loop, (start, stop) in zip(relations.loops, ranges, strict=True)
    )
    condition = f" : {limits}" if limits else ""
    return isl.Set(f"{{ [{loops}]{condition} }}")


def exact_footprint(relations: Relations, box: Box, types: Sequence[TensorType]) -> tuple[Box | None, ...]:
    """The smallest box of each operand that the output elements in `box` need; None where they need none."""
    points = iteration_set(relations, box)
    return tuple(bounding_box(points.apply(access_map(relations, operand, type))) for operand, type in enumerate(types))


def bounding_box(elements: isl.Set) -> Box | None:
    """The smallest box around a bounded set; None when it is empty."""
    if elements.is_empty():
        return None
    return tuple(
        (int(elements.dim_min_val(dim).to_python()), int(elements.dim_max_val(dim).to_python()) + 1)
        for dim in range(elements.dim(isl.dim_type.set))
    )
