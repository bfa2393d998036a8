"""How the dimensions of a value follow each other in memory, as far as the views that it is seen through tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from birc.compiler.ir.attributes import integers
from birc.compiler.ir.graph import GROUP, Graph, Node
from birc.compiler.ir.table import row
from birc.compiler.ir.types import TensorType

Order = tuple[int, ...]
"""The dimensions of a value, the outermost in memory first."""


def row_major(rank: int) -> Order:
    """The order in which the last dimension is innermost."""
    return tuple(range(rank))


def order_of(node: Node, source: TensorType, order: Order | None, result: TensorType) -> Order | None:
    """The order of the result of a node whose first operand, of type `source`, has an `order`; None if it has none.

    A view shows its operand where that lies. A result of any other op has a place of its own.
    """
    if row(node.op).category != "view":
        return result.layout or row_major(result.rank)
    if order is None:
        return None
    match node.op:
        case "transpose":
            moved_to = {old: new for new, old in enumerate(integers(node.attributes, "perm"))}
            return tuple(moved_to[axis] for axis in order)
        case "reshape":
            return _reshaped(order, source.sizes, result.sizes)
    return order if len(order) == result.rank else None


def _reshaped(order: Order, old: Sequence[int], new: Sequence[int]) -> Order | None:
    """The order of a value whose dimensions are divided into several; None where some are merged."""
    if order == row_major(len(old)):
        return row_major(len(new))
    parts: dict[int, list[int]] = {}
    place = 0
    for axis, size in enumerate(old):
        parts[axis], product = [], 1
        while place < len(new) and (product < size or new[place] == 1):
            product *= new[place]
            parts[axis].append(place)
            place += 1
        if product != size:
            return None
    return tuple(part for axis in order for part in parts[axis]) if place == len(new) else None


def seen_order(graph: Graph, name: str) -> Order | None:
    """The order of a value in a graph whose types say how what is no view lies; None if it has none."""
    type, producer = graph.type_of(name), graph.producer(name)
    if producer is None or producer.op == GROUP or row(producer.op).category != "view":
        return type.layout or row_major(type.rank)
    source = producer.inputs[0]
    return order_of(producer, graph.type_of(source), seen_order(graph, source), type)


def read_order(name: str, type: TensorType, orders: Mapping[str, Order | None]) -> Order | None:
    """The order of a value; of one that `orders` do not know, an input or a constant, that of its type."""
    return orders[name] if name in orders else type.layout or row_major(type.rank)
