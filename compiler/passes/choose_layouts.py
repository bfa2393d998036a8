"""Choosing how tensors lie in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from birc.compiler.ir.attributes import integers
from birc.compiler.ir.graph import Graph, Node, Value
from birc.compiler.ir.table import row
from birc.compiler.ir.types import TensorType
from birc.compiler.passes.base import Pass, PassResult
from birc.compiler.passes.memory_order import Order, order_of, read_order, row_major

CHANNELS_LAST = (0, 2, 3, 1)
"""The order in memory of the dimensions (sample, channel, row, column) of an image, the innermost last."""
IMAGE_OPS = frozenset({"conv2d", "max_pool2d", "max_pool2d_position", "avg_pool2d", "lrn"})
"""Ops that walk the channels of each pixel: their results lie channels last."""
_FOLLOWING = frozenset({"elementwise", "reduction", "movement"})
"""Categories of ops whose results lie as their operands do."""


@dataclass(frozen=True, slots=True)
class ChooseLayouts(Pass):
    """Images lie channels last, so that a tile's depth is contiguous; what follows an image keeps its order.

    So does what is computed element by element of an image that is seen with an axis divided, or with axes of extent 1
    more or less, as signals are. A product that is only read transposed lies as its reader sees it, as long as columns
    stay innermost. What is gathered lies as the table does, seen through views: both are walked along what is
    innermost. Outputs of the graph stay row-major. Views (reshape, transpose, ...) have no layout of their own.

    before:
        graph "g" {
          input %x : f32[1,4,8,8]
          %p : f32[1,4,8,8] = lrn(%x) {size = 3, alpha = 0.1, beta = 0.5, k = 1.0}
          %y : f32[1,4,8,8] = relu(%p)
          output %y
        }
    after:
        graph "g" {
          input %x : f32[1,4,8,8]
          %p : f32[1,4,8,8]{0,2,3,1} = lrn(%x) {size = 3, alpha = 0.1, beta = 0.5, k = 1.0}
          %y : f32[1,4,8,8] = relu(%p)
          output %y
        }
    """

    name: ClassVar[str] = "choose_layouts"

    def run(self, graph: Graph) -> PassResult:
        layouts: dict[str, Order | None] = {}
        orders: dict[str, Order | None] = {}
        nodes = []
        for node in graph.nodes:
            layout = _as_table(graph, node, orders) if node.op == "gather" else _layout(graph, node, layouts, orders)
            outputs = tuple(
                Value(v.name, _with_layout(v.type, None if v.name in graph.outputs else layout)) for v in node.outputs
            )
            layouts.update((v.name, v.type.layout) for v in outputs)
            orders.update((v.name, _order(graph, node, v.type, orders)) for v in outputs)
            nodes.append(node if outputs == node.outputs else node.replace(outputs=outputs))
        changed = any(new is not old for new, old in zip(nodes, graph.nodes, strict=True))
        result = graph.replace(nodes=tuple(nodes)) if changed else graph
        return PassResult(result, changed, {"channels last": sum(layout is not None for layout in layouts.values())})


def _layout(
    graph: Graph, node: Node, layouts: Mapping[str, Order | None], orders: Mapping[str, Order | None]
) -> Order | None:
    if node.op in IMAGE_OPS:
        return CHANNELS_LAST
    if node.op == "matmul":
        return _as_read(graph, node)
    if row(node.op).category not in _FOLLOWING:
        return None
    shape = node.output.type.shape
    for name in node.present_inputs:
        layout = layouts.get(name)
        if layout is not None and len(layout) == len(shape):
            return layout
    return _of_reshaped(graph, node, layouts, orders) if row(node.op).category == "elementwise" else None


def _of_reshaped(
    graph: Graph, node: Node, layouts: Mapping[str, Order | None], orders: Mapping[str, Order | None]
) -> Order | None:
    """The order in which an operand lies that is another value, of an order of its own, reshaped; None for none."""
    for name in node.present_inputs:
        source, type = name, graph.type_of(name)
        while (producer := graph.producer(source)) is not None and producer.op == "reshape":
            source = producer.inputs[0]
        if type.sizes != node.output.type.sizes or layouts.get(source) is None:
            continue
        order = read_order(name, type, orders)
        if order is not None and order != row_major(type.rank):
            return order
    return None


def _order(graph: Graph, node: Node, type: TensorType, orders: dict[str, Order | None]) -> Order | None:
    """How a result lies; that of a node without operands as its type says."""
    if not node.present_inputs:
        return type.layout or row_major(type.rank)
    name = node.present_inputs[0]
    source = graph.type_of(name)
    return order_of(node, source, read_order(name, source, orders), type)


def _as_table(graph: Graph, node: Node, orders: dict[str, Order | None]) -> Order | None:
    """The order of the table of a gather by a list of places, if it is another than row-major."""
    name, rank = node.inputs[0], node.output.type.rank
    order = read_order(name, graph.type_of(name), orders)
    return None if graph.type_of(node.inputs[1]).rank != 1 or order == row_major(rank) else order


def _as_read(graph: Graph, node: Node) -> Order | None:
    """The order of the dimensions in the transposed view that alone reads a product; None when there is none."""
    users = graph.users(node.name)
    if len(users) != 1 or users[0].op != "transpose" or node.name in graph.outputs:
        return None
    order = integers(users[0].attributes, "perm")
    return order if order[-1] == len(order) - 1 else None


def _with_layout(type: TensorType, layout: Order | None) -> TensorType:
    return type if layout is None or len(layout) != type.rank else replace(type, layout=layout)
