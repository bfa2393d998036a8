"""What a fused graph has in each kernel."""

from __future__ import annotations

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.verify import verify_graph
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.fuse import Fuse
from birc.compiler.passes.lower.lower import VIEWS


def groups(graph: Graph) -> list[list[str]]:
    """The ops of every kernel, in order; views are none."""
    fused = run_passes(graph, (Fuse(),))
    verify_graph(fused)
    return [
        [member.op for member in node.body.nodes] if node.body is not None else [node.op]
        for node in fused.nodes
        if node.op not in VIEWS
    ]
