"""Rules on views: what does nothing goes, two in a row become one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from birc.compiler.ir.attributes import element_type, integer, integers
from birc.compiler.ir.graph import Node
from birc.compiler.passes.rules import Rewriter, Rule


def _input_unless(rewriter: Rewriter, node: Node, acts: bool) -> str | None:
    """The input of a node that does nothing."""
    value = node.inputs[0]
    return None if acts or not rewriter.may_stand_for(value, node.name) else value


def same_shape(rewriter: Rewriter, node: Node) -> str | None:
    """A reshape or expand to the same shape is its input."""
    return _input_unless(rewriter, node, rewriter.type_of(node.inputs[0]).shape != node.output.type.shape)


def same_order(rewriter: Rewriter, node: Node) -> str | None:
    """transpose(x) in the given order = x"""
    perm = integers(node.attributes, "perm")
    return _input_unless(rewriter, node, perm != tuple(range(len(perm))))


def same_type(rewriter: Rewriter, node: Node) -> str | None:
    """cast(x) to its own element type = x"""
    return _input_unless(rewriter, node, rewriter.type_of(node.inputs[0]).dtype != element_type(node.attributes, "to"))


def whole_slice(rewriter: Rewriter, node: Node) -> str | None:
    """slice(x) of everything = x"""
    whole = rewriter.type_of(node.inputs[0]).shape == node.output.type.shape
    return _input_unless(rewriter, node, not whole or set(integers(node.attributes, "steps")) - {1} != set())


def single_concat(rewriter: Rewriter, node: Node) -> str | None:
    """concat(x) of one piece = x"""
    return _input_unless(rewriter, node, len(node.inputs) != 1)


def no_padding(rewriter: Rewriter, node: Node) -> str | None:
    """pad(x) by nothing = x"""
    return _input_unless(rewriter, node, any(integers(node.attributes, "pads")))


def reshape_of_reshape(rewriter: Rewriter, node: Node) -> str | None:
    """reshape(reshape(x)) = reshape(x)"""
    inner = rewriter.producer(node.inputs[0], "reshape")
    if inner is None:
        return None
    return rewriter.emit("reshape", (inner.inputs[0],), node.attributes, replaces=(node, inner))


def transpose_of_transpose(rewriter: Rewriter, node: Node) -> str | None:
    """transpose(transpose(x)) = transpose(x)"""
    inner = rewriter.producer(node.inputs[0], "transpose")
    if inner is None:
        return None
    first, second = integers(inner.attributes, "perm"), integers(node.attributes, "perm")
    perm = tuple(first[axis] for axis in second)
    return rewriter.emit("transpose", (inner.inputs[0],), {"perm": perm}, replaces=(node, inner))


def transpose_between_reshapes(rewriter: Rewriter, node: Node) -> str | None:
    """reshape(transpose(reshape(x))) = transpose(x), where axes that the transpose keeps together were merged for it"""
    inner = rewriter.producer(node.inputs[0], "transpose")
    merged = rewriter.producer(inner.inputs[0], "reshape") if inner is not None else None
    if inner is None or merged is None or not node.output.type.num_elements:
        return None
    perm, wide = integers(inner.attributes, "perm"), rewriter.sizes(merged.inputs[0])
    places = _split_places(merged.output.type.sizes, wide)
    if places is None:
        return None
    order = tuple(place for axis in perm for place in places[axis])
    if tuple(wide[place] for place in order) != node.output.type.sizes:
        return None
    return rewriter.emit("transpose", (merged.inputs[0],), {"perm": order}, replaces=(node, inner, merged))


def _split_places(sizes: Sequence[int], wide: Sequence[int]) -> list[range] | None:
    """The axes of `wide` that each axis of `sizes` is made of; None where it is not made of whole ones."""
    places, first = [], 0
    for axis, size in enumerate(sizes):
        end, product = first, 1
        is_last = axis == len(sizes) - 1
        while end < len(wide) and (product < size or is_last):
            product *= wide[end]
            end += 1
        if product != size:
            return None
        places.append(range(first, end))
        first = end
    return places if first == len(wide) else None


def expand_of_expand(rewriter: Rewriter, node: Node) -> str | None:
    """expand(expand(x)) = expand(x)"""
    inner = rewriter.producer(node.inputs[0], "expand")
    if inner is None:
        return None
    return rewriter.emit("expand", (inner.inputs[0],), node.attributes, replaces=(node, inner))


def slice_of_slice(rewriter: Rewriter, node: Node) -> str | None:
    """slice(slice(x)) = slice(x)"""
    inner = rewriter.producer(node.inputs[0], "slice")
    if inner is None:
        return None
    starts, steps, ends = [], [], []
    for place, size in enumerate(node.output.type.sizes):
        inner_start = integers(inner.attributes, "starts")[place]
        inner_step = integers(inner.attributes, "steps")[place]
        starts.append(inner_start + integers(node.attributes, "starts")[place] * inner_step)
        steps.append(inner_step * integers(node.attributes, "steps")[place])
        ends.append(starts[-1] + max(size - 1, 0) * steps[-1] + (1 if size else 0))
    attributes = {"starts": tuple(starts), "ends": tuple(ends), "steps": tuple(steps)}
    if not node.output.type.num_elements:
        return None
    return rewriter.emit("slice", (inner.inputs[0],), attributes, replaces=(node, inner))


def rows_of_product(rewriter: Rewriter, node: Node) -> str | None:
    """reshape(matmul(a, b)) = matmul(reshape(a), b), where flat rows get their dimensions back"""
    product = rewriter.producer(node.inputs[0], "matmul")
    if product is None or not _splits_rows(rewriter, node) or rewriter.type_of(product.inputs[1]).rank != 2:
        return None
    a, b = product.inputs
    rows = rewriter.emit(
        "reshape", (a,), {"shape": (*node.output.type.sizes[:-1], rewriter.sizes(a)[-1])}, replaces=(node,)
    )
    return rewriter.emit("matmul", (rows, b), product.attributes, replaces=(node, product))


def rows_of_sum(rewriter: Rewriter, node: Node) -> str | None:
    """reshape(x + bias) = reshape(x) + bias, where flat rows get their dimensions back"""
    total = rewriter.producer(node.inputs[0], "add")
    if total is None or not _splits_rows(rewriter, node):
        return None
    for x, bias in (total.inputs, reversed(total.inputs)):
        if rewriter.producer(x, "matmul") is not None and rewriter.sizes(bias) == node.output.type.sizes[-1:]:
            rows = rewriter.emit("reshape", (x,), node.attributes, replaces=(node,))
            return rewriter.emit("add", (rows, bias), total.attributes, replaces=(node, total))
    return None


def _splits_rows(rewriter: Rewriter, node: Node) -> bool:
    """Whether a reshape only splits the rows of a matrix that nothing else reads."""
    before, after = rewriter.sizes(node.inputs[0]), node.output.type.sizes
    return len(before) == 2 < len(after) and before[-1] == after[-1] and rewriter.has_one_use(node.inputs[0])


def concat_without_empty(rewriter: Rewriter, node: Node) -> str | None:
    """concat(x, y) = concat(x), where y has no elements"""
    kept = tuple(name for name in node.inputs if rewriter.type_of(name).num_elements)
    if not kept or len(kept) == len(node.inputs):
        return None
    return rewriter.emit("concat", kept, node.attributes, replaces=(node,))


def concat_of_concat(rewriter: Rewriter, node: Node) -> str | None:
    """concat(x, y, z) = concat(concat(x, y), z), where concat(x, y) is made anyway: it can lie in what it begins"""
    beginnings = (
        other
        for other in rewriter.editor.users(node.inputs[0])
        if other.op == "concat"
        and other.attributes == node.attributes
        and 1 < len(other.inputs) < len(node.inputs)
        and node.inputs[: len(other.inputs)] == other.inputs
    )
    longest = max(beginnings, key=lambda other: len(other.inputs), default=None)
    if longest is None:
        return None
    rest = node.inputs[len(longest.inputs) :]
    return rewriter.emit("concat", (longest.name, *rest), node.attributes, replaces=(node,))


def concat_of_slices(rewriter: Rewriter, node: Node) -> str | None:
    """concat(slice(x, 0:2), slice(x, 2:4), y) = concat(slice(x, 0:4), y)"""
    axis = integer(node.attributes, "axis")
    for place, (first, second) in enumerate(pairwise(rewriter.producer(name, "slice") for name in node.inputs)):
        if first is None or second is None or first.inputs != second.inputs or not _go_on(first, second, axis):
            continue
        ends = integers(second.attributes, "ends")
        both = rewriter.emit("slice", first.inputs, {**first.attributes, "ends": ends}, replaces=(node,))
        pieces = (*node.inputs[:place], both, *node.inputs[place + 2 :])
        return rewriter.emit("concat", pieces, node.attributes, replaces=(node,))
    return None


def _go_on(first: Node, second: Node, axis: int) -> bool:
    """Whether a slice begins along an axis where another one ends, and is like it along all others."""
    names = ("starts", "ends", "steps")
    one, other = ([*zip(*(integers(node.attributes, name) for name in names), strict=True)] for node in (first, second))
    (_, end, step), (start, _, next_step) = one[axis], other[axis]
    is_like = all(place == axis or bounds == other[place] for place, bounds in enumerate(one))
    return is_like and start == end and step == next_step == 1


RULES: Final[tuple[Rule, ...]] = (
    Rule("same-shape-reshape", "reshape", same_shape),
    Rule("same-shape-expand", "expand", same_shape),
    Rule("same-order-transpose", "transpose", same_order),
    Rule("same-type-cast", "cast", same_type),
    Rule("whole-slice", "slice", whole_slice),
    Rule("single-concat", "concat", single_concat),
    Rule("concat-without-empty", "concat", concat_without_empty),
    Rule("concat-of-concat", "concat", concat_of_concat),
    Rule("concat-of-slices", "concat", concat_of_slices),
    Rule("no-padding", "pad", no_padding),
    Rule("reshape-of-reshape", "reshape", reshape_of_reshape),
    Rule("transpose-of-transpose", "transpose", transpose_of_transpose),
    Rule("transpose-between-reshapes", "reshape", transpose_between_reshapes),
    Rule("expand-of-expand", "expand", expand_of_expand),
    Rule("slice-of-slice", "slice", slice_of_slice),
    Rule("rows-of-product", "reshape", rows_of_product),
    Rule("rows-of-sum", "reshape", rows_of_sum),
)
