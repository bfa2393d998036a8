"""Concatenations that only pointwise convolutions read: these take the pieces where they lie, panel after panel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np

from birc.compiler.ir.attributes import integer, integers
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.ir.plan import RED, Access, Contraction, Dimension, Index, View
from birc.compiler.passes.lower.environment import Environment, Panels
from birc.compiler.passes.lower.frame import Frame, unit
from birc.compiler.passes.lower.group import GroupLowering
from birc.compiler.passes.lower.parts import patterns
from birc.compiler.passes.lower.views import transpose
from birc.runtime.machine import Machine, TcoreFormat

MOST_PANELS = 4
"""Each has loads of its own, and may end in the middle of an operation's depth."""
MOST_PADDING = 1.25
"""How much deeper the product may become by that: a copy of the pieces would take less than more of it."""


def panels_of(env: Environment, node: Node, machine: Machine) -> Panels | None:
    """The panels that a concatenation is left as; None where it has to be made."""
    graph, readers = env.graph, list(_readers(env.graph, node))
    is_read = bool(readers) and node.name not in graph.outputs
    if node.op != "concat" or integer(node.attributes, "axis") != 1 or not is_read:
        return None
    if len(node.inputs) > MOST_PANELS or any(name in graph.constants for name in node.inputs):
        return None
    if any(weights is None or any(patterns(env, node.name, weights)) for weights in readers):
        return None
    types = {env.storage(graph.type_of(name)) for name in (*node.inputs, *filter(None, readers))}
    form = machine.format(env.tcore_format(node.name, *filter(None, readers)))
    widths = [graph.type_of(name).sizes[1] for name in node.inputs]
    step = _step(widths, form)
    ends = list(accumulate(_rounded(width, step) for width in widths))
    is_little = ends[-1] <= MOST_PADDING * _rounded(sum(widths), form.k_unit)
    if len(types) > 1 or not all(widths) or not is_little or ends[-1] > env.max_dim:
        return None
    return Panels(node.inputs, (0, *ends[:-1]), ends[-1])


def _readers(graph: Graph, node: Node) -> Iterator[str | None]:
    """For each node that reads a value the constant by which it multiplies it pixel by pixel; None for others."""
    for user in graph.users(node.name):
        if user.body is None:
            yield _weights(graph, user, node.name, user.inputs)
            continue
        outer = dict(zip((value.name for value in user.body.inputs), user.inputs, strict=True))
        for inner in user.body.nodes:
            names = tuple(outer.get(name, "") for name in inner.inputs)
            if node.name in names:
                yield _weights(graph, inner, node.name, names)


def _weights(graph: Graph, node: Node, name: str, inputs: Sequence[str]) -> str | None:
    """The constant weights of a pointwise convolution of a value, as they are called outside; None for other nodes."""
    is_product = node.op == "conv2d" and inputs[0] == name and inputs.count(name) == 1
    return inputs[1] if is_product and inputs[1] in graph.constants and is_pointwise(graph, node, inputs[1]) else None


def is_pointwise(graph: Graph, node: Node, weights: str) -> bool:
    """Whether a convolution with constant weights is a product of matrices, of pixels that are all there."""
    attributes = node.attributes
    plain = integer(attributes, "group") == 1 and not any(integers(attributes, "pads"))
    return plain and graph.constants[weights].type.sizes[2:] == (1, 1)


def _step(widths: Sequence[int], form: TcoreFormat) -> int:
    """The depth of operations that pads the panels least; of those the greatest."""
    steps = range(form.k_unit, form.k_max + 1, form.k_unit)
    return min(steps, key=lambda step: (sum(_rounded(width, step) for width in widths), -step))


def _rounded(width: int, step: int) -> int:
    return -(-width // step) * step


def panelled_conv2d(lowering: GroupLowering, node: Node, panels: Panels) -> None:
    """A pointwise convolution of panels: sets frame, red dims and contraction."""
    env, names = lowering.env, [lowering.outer[name] for name in node.inputs[:2]]
    n, o, out_y, out_x = node.output.type.sizes
    stride_y, stride_x = integers(node.attributes, "stride")
    operands = []
    for name, first in zip(panels.names, panels.firsts, strict=True):
        view = transpose(env.view(name), (0, 2, 3, 1))
        index = (unit("n"), Index((("y", stride_y),)), Index((("x", stride_x),)), Index((("c", 1),), -first))
        operands.append(Access(view, index))
    sizes = [env.graph.type_of(name).sizes[1] for name in panels.names]
    weights = np.asarray(env.graph.constants[names[1]].data).reshape(o, -1)
    stacked = np.zeros((o, panels.depth), weights.dtype)
    for first, end, size in zip(panels.firsts, accumulate(sizes), sizes, strict=True):
        stacked[:, first : first + size] = weights[:, end - size : end]
    stored = env.packed_constant(
        names[1], ("panels", panels.firsts), stacked, env.storage(env.graph.constants[names[1]].type)
    )
    b = Access(View(stored.buffer, stored.offset, (panels.depth, o), (1, panels.depth)), (unit("c"), unit("o")))
    a, *further = operands
    lowering.frame = Frame(node.output.type.sizes, ((n,), (o,), (out_y,), (out_x,)), (0, 2, 3, 1), ("n", "y", "x", "o"))
    lowering.red_dims = (Dimension("c", panels.depth, RED),)
    lowering.contraction = Contraction(a, b, 3, 1, ("n", "y", "x"), ("o",), env.tcore_format(*names), tuple(further))
    lowering.macs = math.prod((n, o, out_y, out_x, sum(sizes)))
