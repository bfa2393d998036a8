"""Which row of the importer's table an ONNX node has, or why none."""

from __future__ import annotations

import onnx

from birc.compiler.importer.host_only import HOST_ONLY
from birc.compiler.importer.lowering import OpType
from birc.compiler.importer.old_forms import MODERN
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.op_types import find_op_type


def find_row(node: OnnxNode) -> OpType | None:
    """The lowering of `node`, which sees it as operator set 7 would have it where it is older."""
    if node.domain:
        return find_op_type(node.domain, node.op_type, node.version)
    found = find_op_type("", node.op_type, max(node.version, MODERN))
    is_there = onnx.defs.has(node.op_type, node.version) or (found is not None and found.is_extension)
    return found if is_there else None


def why_unknown(node: OnnxNode) -> str:
    """The reason why a node without a row is not on the device."""
    if node.domain:
        return f"no operator of domain {node.domain!r} is known by that name"
    if not onnx.defs.has(node.op_type, node.version):
        return f"ONNX has no such operator in operator set {node.version}"
    return HOST_ONLY.get(node.op_type, "no lowering for it")
