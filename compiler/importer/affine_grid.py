"""Lowering of AffineGrid and CenterCropPad: a result whose size another input gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.floats import in_f32, require_single
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.run_time import are, declared_result, element, flattened, held
from birc.compiler.importer.shape import slice_axis
from birc.compiler.importer.term import Term, stacked
from birc.runtime.errors import BadModelError


def _affine_grid(node: OnnxNode, build: GraphBuilder) -> Results:
    """Each component is a row of the matrix times the position (x, y, z, 1), whose parts vary along one axis each."""
    theta = node.input(0)
    kind, shape = build.type_of(theta).dtype, build.shape(theta)
    require_single(build, theta)
    if len(shape) != 3 or shape[1:] not in ((2, 3), (3, 4)):
        raise BadModelError(f"theta is {list(shape)}, not [N, 2, 3] or [N, 3, 4]", where=node.where)
    spatial = shape[1]
    theta, sizes = _held_sizes(node, build, theta, spatial)
    matrix = Term(build, in_f32(build, theta))
    is_aligned = bool(node.int_attribute("align_corners", 0))
    batch, ones = shape[0], (1,) * spatial
    components = []
    for row in range(spatial):
        entries = matrix.at(1, row)
        total = entries.part(1, spatial, spatial + 1).reshape(batch, *ones)
        for column in range(spatial):
            axis = spatial - 1 - column  # x is the last axis
            line = tuple(sizes[place] if place == axis else 1 for place in range(spatial))
            factor = entries.part(1, column, column + 1).reshape(batch, *ones)
            total = total + factor * _positions(sizes[axis], is_aligned).reshape(line)
        components.append(total)
    return cast(build, stacked(components, -1).name, kind)


def _positions(size: int, is_aligned: bool) -> npt.NDArray[np.float32]:
    """-1 to 1 at the centres of the outermost elements, or at their outer edges."""
    counted = np.arange(size, dtype=np.float64)
    if is_aligned:
        return (-1 + 2 * counted / max(size - 1, 1)).astype(np.float32)
    return ((2 * counted + 1) / size - 1).astype(np.float32)


def _held_sizes(node: OnnxNode, build: GraphBuilder, theta: str, spatial: int) -> tuple[str, tuple[int, ...]]:
    """theta and the spatial sizes of the grid; where they come at run time theta is held to the declared ones."""
    size, batch = node.input(1), build.shape(theta)[0]
    if build.shape(size) != (spatial + 2,):
        raise BadModelError(f"size holds {build.shape(size)} numbers, not {spatial + 2}", where=node.where)
    known = build.constant_of(size)
    if known is not None:
        numbers = tuple(int(entry) for entry in known)
        if numbers[0] != batch:
            raise BadModelError(f"a grid for a batch of {numbers[0]} from {batch} matrices", where=node.where)
        return theta, numbers[2:]
    declared = declared_result(node, build)
    if len(declared) != spatial + 2 or declared[0] != batch or declared[-1] != spatial:
        raise BadModelError(f"declares {list(declared)} for {spatial} dimensions", where=node.where)
    sizes = declared[1:-1]
    places = (0, *range(2, spatial + 2))
    conditions = [
        are(build, flattened(build, element(build, size, place)), (wanted,))
        for place, wanted in zip(places, (batch, *sizes), strict=True)
    ]
    return held(build, theta, conditions), sizes


def _center_crop_pad(node: OnnxNode, build: GraphBuilder) -> Results:
    """The middle of what is too large, zeros around what is too small; an odd element goes to the end."""
    x, shape = node.input(0), build.shape(node.input(0))
    rank = len(shape)
    axes = [positive_axis(node, axis, rank) for axis in node.ints_attribute("axes", range(rank))]
    x, sizes = _held_target(node, build, x, axes)
    before, after = [0] * rank, [0] * rank
    for axis, size in zip(axes, sizes, strict=True):
        surplus = shape[axis] - size
        if surplus >= 0:
            x = slice_axis(build, x, axis, surplus // 2, surplus // 2 + size)
        else:
            before[axis], after[axis] = -surplus // 2, -surplus - -surplus // 2
    if not any((*before, *after)):
        return x
    return build.emit("pad", (x,), {"pads": (*before, *after), "value": 0.0})


def _held_target(node: OnnxNode, build: GraphBuilder, x: str, axes: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    target, shape = node.input(1), build.shape(x)
    if build.shape(target) != (len(axes),):
        raise BadModelError(f"{build.shape(target)} sizes for {len(axes)} axes", where=node.where)
    known = build.constant_of(target)
    if known is not None:
        return x, tuple(int(entry) for entry in known)
    declared = declared_result(node, build)
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    if len(declared) != len(shape) or any(declared[axis] != shape[axis] for axis in kept):
        raise BadModelError(f"declares {list(declared)} for {list(shape)}", where=node.where)
    sizes = tuple(declared[axis] for axis in axes)
    return held(build, x, [are(build, target, sizes)]), sizes


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("AffineGrid", _affine_grid),
    OpType("CenterCropPad", _center_crop_pad),
)
