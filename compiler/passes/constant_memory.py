"""What the constants of a graph take once they are stored, against a limit, before anything is allocated for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from birc.compiler.ir.graph import GROUP, Graph, Node
from birc.compiler.ir.table import row
from birc.runtime.errors import LimitError

DEFAULT_LIMIT_BYTES: Final = 8 * 2**30
"""Of all constants of a model together."""


def check_constants(graph: Graph, most_bytes: int) -> None:
    """Raises `LimitError` when the constants of `graph` take more than `most_bytes`, naming the largest.

    A constant of equal elements is stored as one of them where only element-wise ops read it.
    """
    stored: dict[str, int] = {}
    for name, op in _constant_uses(graph):
        constant = graph.constants[name]
        is_spread = op != GROUP and row(op).category == "elementwise"
        if not (constant.is_splat and is_spread):
            stored[name] = constant.type.num_bytes
    check_bytes(stored, most_bytes)


def check_bytes(bytes_by_name: Mapping[str, int], most_bytes: int) -> None:
    """Raises `LimitError` when these tensors together take more than `most_bytes`."""
    total = sum(bytes_by_name.values())
    if total > most_bytes:
        largest = max(bytes_by_name, key=lambda name: (bytes_by_name[name], name))
        raise LimitError(
            f"the constants take {total} bytes, the limit is {most_bytes}; the largest is {largest!r} with "
            f"{bytes_by_name[largest]} bytes",
            where="--mem-limit",
            hint="give it more, or make the model smaller",
        )


def _constant_uses(graph: Graph) -> Iterator[tuple[str, str]]:
    """Every constant of the graph with the op of a node that reads it, also inside of groups."""
    for node in graph.nodes:
        inner = _inner_uses(node) if node.op == GROUP else None
        for place, name in enumerate(node.present_inputs):
            if name not in graph.constants:
                continue
            if inner is None:
                yield name, node.op
            else:
                yield from ((name, op) for op in inner[place])
    yield from ((name, GROUP) for name in graph.outputs if name in graph.constants)


def _inner_uses(group: Node) -> list[list[str]]:
    """For every input of a group the ops of the nodes in its body that read it."""
    body = group.body
    if body is None:
        return [[GROUP] for _ in group.present_inputs]
    readers: dict[str, list[str]] = {}
    for node in body.nodes:
        for name in node.present_inputs:
            readers.setdefault(name, []).append(node.op)
    return [readers.get(value.name, [GROUP]) for value in body.inputs]
