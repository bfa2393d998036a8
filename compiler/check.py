"""Where every node of a model would run, the rule that decides it and what can be done: nothing is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from birc.compiler.importer.imported import PlacedNode
from birc.compiler.importer.importer import import_parts
from birc.compiler.importer.placement import HostPart
from birc.compiler.importer.read import ModelSource
from birc.compiler.importer.remedies import near_names, rule_of
from birc.compiler.passes.lower.lower import device_problem


@dataclass(frozen=True, slots=True)
class CheckedNode:
    """A node with the rule that keeps it from the device and the remedy; both are "" for a node on the device."""

    node: PlacedNode
    rule: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """All nodes of a model in order; `programs` and `host_steps` are the parts that it would be cut into."""

    model: str
    nodes: tuple[CheckedNode, ...]
    programs: int
    host_steps: int

    def count(self, place: str) -> int:
        """How many nodes are on the device, on the host, or unsupported."""
        return sum(checked.node.place == place for checked in self.nodes)


def check_model(model: ModelSource, dims: Mapping[str, int] | None = None, batch: int | None = None) -> Check:
    """Check an ONNX model (a path, the bytes of a file, or a `ModelProto`).

    Raises `BadModelError` for a model that cannot be read and `UsageError` for a dimension without a size that a node
    needs; operators that nobody can run are a result.
    """
    imported = import_parts(model, dims, batch, device_problem, open_dims=True)
    hosts = sum(isinstance(part, HostPart) for part in imported.parts)
    nodes = tuple(map(_checked, imported.nodes))
    return Check(imported.name, nodes, len(imported.parts) - hosts, hosts)


def _checked(node: PlacedNode) -> CheckedNode:
    if node.place == "device":
        return CheckedNode(node)
    rule, near = rule_of(node), near_names(node)
    remedy = f"domain {' or '.join(near)} has a {node.op_type}; {rule.remedy}" if near else rule.remedy
    return CheckedNode(node, rule.name, remedy)
