"""Pairs of elements turned by angles, and what is computed of them: one kernel that stores both elements of a pair."""

from __future__ import annotations

from birc.compiler.ir.attributes import integer
from birc.compiler.ir.graph import Node
from birc.compiler.ir.plan import Kernel
from birc.compiler.passes.lower.environment import Environment
from birc.compiler.passes.lower.expression import Expression
from birc.compiler.passes.lower.frame import Frame, PartFrame
from birc.compiler.passes.lower.group import (
    GroupLowering,
    element_wise,
    group_kernel,
    group_stores,
    is_element_wise,
    open_group,
)

ROTATIONS = frozenset({"rotate"})


def is_rotation(node: Node) -> bool:
    """Whether a node is a rotation, or a group around one."""
    return any(inner.op in ROTATIONS for inner in (node.body.nodes if node.body is not None else (node,)))


def rotation(env: Environment, node: Node) -> Kernel:
    """The kernel of a rotation and of the element-wise nodes after it.

    Its space is that of the pairs: each operand is loaded once for the first elements and once for the second, a table
    of one angle a pair once for both.
    """
    sides = _sides(env, node)
    for inner in sides[0].nodes:
        for place, side in enumerate(sides):
            turns = not is_element_wise(inner)
            side.values[inner.name] = _turned(sides, place, inner) if turns else element_wise(side, inner)
    return group_kernel(sides[0], node, [store for side in sides for store in group_stores(side, node)])


def _sides(env: Environment, node: Node) -> tuple[GroupLowering, GroupLowering]:
    """The walk for the first element of every pair and that for the second, which share what they make."""
    first, second = open_group(env, node), open_group(env, node)
    second.builder = first.builder
    turning = next(inner for inner in first.nodes if inner.op in ROTATIONS)
    type = node.outputs[0].type
    pairs = type.sizes[-1] // 2
    for place, side in enumerate((first, second)):
        start, step = (place, 2) if integer(turning.attributes, "interleaved") else (place * pairs, 1)
        side.frame = PartFrame.of_last(type.sizes, type.layout, start, step, pairs)
    return first, second


def _turned(sides: tuple[GroupLowering, GroupLowering], place: int, node: Node) -> Expression:
    """a * cosine - b * sine of a pair (a, b), or b * cosine + a * sine."""
    side, b = sides[place], sides[place].builder
    x, cosine, sine = node.inputs
    own, other = side.expression(x), sides[1 - place].expression(x)
    across = b.op("vmul", other, _angle(side, sine))
    straight = b.op("vmul", own, _angle(side, cosine))
    return b.op("vadd" if place else "vsub", straight, across)


def _angle(side: GroupLowering, name: str) -> Expression | float:
    """A table's elements for one side of the pairs."""
    sizes = side.type_of(name).sizes
    if not sizes or sizes[-1] != side.frame.shape[-1]:
        return side.operand(name)
    frame = side.frame
    pairs = Frame(frame.shape, frame.factors, frame.order, frame.names)
    return side.env.load(side.builder, pairs, side.outer[name])
