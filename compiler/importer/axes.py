"""Axes and broadcasting: negative axes made positive, lists of axes from attributes or inputs."""

from __future__ import annotations

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.onnx_node import OnnxNode
from birc.runtime.errors import BadModelError


def positive_axis(node: OnnxNode, axis: int, rank: int, *, inclusive: bool = False) -> int:
    """`axis` counted from the front; `inclusive` allows `rank` itself. Raises `BadModelError` outside the
    range.
    """
    limit = rank + 1 if inclusive else rank
    resolved = axis + rank if axis < 0 else axis
    if not 0 <= resolved < limit:
        raise BadModelError(f"axis {axis} of {node.op_type} for a tensor of rank {rank}", where=node.where)
    return resolved


def positive_axes(node: OnnxNode, axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """`axes` counted from the front, ascending. Raises `BadModelError` for one that is out of range or named
    twice.
    """
    resolved = tuple(sorted(positive_axis(node, axis, rank) for axis in axes))
    if len(set(resolved)) != len(resolved):
        raise BadModelError(f"axes {list(axes)} of {node.op_type} name one twice", where=node.where)
    return resolved


def integers_of(node: OnnxNode, build: GraphBuilder, position: int, meaning: str) -> tuple[int, ...] | None:
    """The integers that input `position` holds, None when it is absent."""
    value = node.optional(position)
    if not value:
        return None
    return tuple(int(entry) for entry in build.required_constant(value, meaning).reshape(-1))


def axes_of(node: OnnxNode, build: GraphBuilder, position: int) -> tuple[int, ...] | None:
    """The axes as an attribute (older operator sets) or as input `position`; None when they are not given."""
    if node.has("axes"):
        return node.ints_attribute("axes")
    return integers_of(node, build, position, "list of axes")
