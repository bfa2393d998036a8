"""The element types that values have in memory: by type and precision, or FP32 because their op asks for that."""

from __future__ import annotations

from birc.compiler.ir.graph import GROUP, Graph, Node
from birc.compiler.ir.table import row
from birc.runtime.dtypes import DType


def stored_as(element: DType, precision: str, *, in_f32: bool = False) -> str:
    """The element type in memory: floats are BF16 in a `bf16` package, but for those that are `in_f32`.

    A type that no memory has stays, and is refused where it is addressed.
    """
    if in_f32:
        return "f32"
    name = element.device or element.name
    return "bf16" if precision == "bf16" and name in ("f32", "f16") else name


def kept_in_f32(graph: Graph) -> frozenset[str]:
    """The values that are in FP32 whatever the precision; also concatenations of nothing else, and what views show."""
    kept: set[str] = set()
    for node in graph.nodes:
        if node.op == GROUP and node.body is not None:
            inside = kept_in_f32(node.body)
            kept |= {
                value.name for value, inner in zip(node.outputs, node.body.outputs, strict=True) if inner in inside
            }
        elif _is_kept(node, kept):
            kept |= {value.name for value in node.outputs}
    return frozenset(kept)


def _is_kept(node: Node, kept: set[str]) -> bool:
    entry = row(node.op)
    return entry.in_f32 or ((node.op == "concat" or entry.category == "view") and kept.issuperset(node.present_inputs))
