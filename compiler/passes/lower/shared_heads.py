"""Operands of products that repeat along a part of a dimension: keys and values that several heads share.

Exporters expand them and put the copies to the heads: no strides tell where those lie. As an operand of a product the
dimension can be seen as two, of which the inner one does not move: then nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence

from birc.compiler.ir.attributes import integers
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.ir.plan import View
from birc.compiler.passes.lower.environment import Environment, Shared
from birc.compiler.passes.lower.views import narrow, reshape, transpose
from birc.runtime.program import MAX_BOX_RANK

SPARE_DIMENSIONS = 2
"""Of those that an instruction addresses, what the division of products over SPCs needs (own_products.py)."""


def shared(env: Environment, node: Node) -> Shared | None:
    """What a view of the graph sees, with the dimension apart along which it repeats; None where it need not be."""
    source = env.shared.get(node.inputs[0])
    if source is not None:
        return _seen(source, node)
    if node.op != "reshape" or node.output.type.rank <= 2:
        return None
    view, sizes = env.view(node.inputs[0]), node.output.type.sizes
    walked = sum(extent > 1 for extent in sizes[:-2]) + 1 + 2
    if walked + SPARE_DIMENSIONS > MAX_BOX_RANK or reshape(view, sizes) is not None:
        return None
    return _with_part(view, sizes) if _is_only_multiplied(env.graph, node) else None


def _with_part(view: View, sizes: Sequence[int]) -> Shared | None:
    """The view, if it has one dimension more than `sizes`, along which it repeats, of one that products range over."""
    for axis in range(len(sizes) - 2):
        outer, inner = view.dims[axis : axis + 2]
        dims = (*sizes[:axis], outer, inner, *sizes[axis + 1 :])
        if view.dims == dims and outer * inner == sizes[axis] and view.strides[axis + 1] == 0:
            return Shared(view, axis)
    return None


def _seen(source: Shared, node: Node) -> Shared:
    """What a transposition of the matrices, or a slice of them, sees."""
    axis, view = source.axis, source.view
    if node.op == "transpose":
        order = [[place] if place < axis else [place + 1] for place in integers(node.attributes, "perm")]
        order[axis].insert(0, axis)
        return Shared(transpose(view, [place for places in order for place in places]), axis)
    starts, steps = (list(integers(node.attributes, name)) for name in ("starts", "steps"))
    starts[axis : axis + 1], steps[axis : axis + 1] = [0, 0], [1, 1]
    sizes = node.output.type.sizes
    extents = (*sizes[:axis], *view.dims[axis : axis + 2], *sizes[axis + 1 :])
    return Shared(narrow(view, starts, extents, steps), axis)


def _is_only_multiplied(graph: Graph, node: Node) -> bool:
    """Whether a value, or views of its matrices, are second operands of products and nothing else."""
    users = graph.users(node.name)
    return bool(users) and node.name not in graph.outputs and all(_multiplies(graph, user, node) for user in users)


def _multiplies(graph: Graph, user: Node, node: Node) -> bool:
    batch = node.output.type.rank - 2
    if user.op == "transpose":
        return integers(user.attributes, "perm")[:batch] == tuple(range(batch)) and _is_only_multiplied(graph, user)
    if user.op == "slice":
        are_whole = user.output.type.sizes[:batch] == node.output.type.sizes[:batch]
        return are_whole and _is_only_multiplied(graph, user)
    scope = user.body or graph
    outer = dict(zip((v.name for v in scope.inputs), user.inputs, strict=True)) if user.body is not None else {}
    readers = [
        inner
        for inner in (scope.nodes if user.body is not None else (user,))
        if any(outer.get(name, name) == node.name for name in inner.present_inputs)
    ]
    return all(_is_second(inner, outer, node) for inner in readers)


def _is_second(inner: Node, outer: dict[str, str], node: Node) -> bool:
    """Whether a node is a product whose second operand alone, of as many matrices as the result, is the value."""
    names = [outer.get(name, name) for name in inner.inputs]
    sizes = inner.output.type.sizes
    return inner.op == "matmul" and names.index(node.name) == 1 and sizes[:-2] == node.output.type.sizes[:-2]
