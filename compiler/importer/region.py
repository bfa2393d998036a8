"""Where nodes are lowered: in the model's graph, a function's body, or an inner graph."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

import onnx

from birc.compiler.importer.inner_graphs import Budget
from birc.compiler.importer.lookahead import Declared


@dataclass(frozen=True, slots=True)
class Region:
    """Where nodes are lowered: what names mean there and what the nodes are called.

    In a region that `is_whole` all nodes have lowerings, or the node that it is inside of has none.
    """

    values: MutableMapping[str, str]
    opsets: Mapping[str, int]
    attributes: Mapping[str, object]
    prefix: str
    owner: str
    depth: int
    declared: Declared
    is_whole: bool = False
    budget: Budget | None = None

    def node_name(self, proto: onnx.NodeProto, position: int, taken: dict[str, int]) -> str:
        """A stable name no other node has; `taken` counts those alike.

        Nodes of the standard's own functions go by the name of the caller.
        """
        if self.owner:
            return self.owner
        stem = f"{self.prefix}{proto.name or f'{proto.op_type}_{position}'}"
        name, count = stem, taken.get(stem, 0)
        while name in taken:
            count += 1
            name = f"{stem}_{count}"
        taken[stem] = max(count, 1)
        taken.setdefault(name, 1)
        return name
