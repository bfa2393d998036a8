"""What a row of the importer's table is: an ONNX op, the versions of it, and the function that lowers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.onnx_node import OnnxNode

Results = str | tuple[str, ...]
"""The value of each output that the node uses, in order; one name when there is one output."""

Lower = Callable[[OnnxNode, GraphBuilder], Results]


@dataclass(frozen=True, slots=True)
class OpType:
    """`lower` holds for operator sets `since` to `until`, both included; None: to the newest that is read.

    `is_extension` is for an operator that onnxruntime has in the standard's domain, also in sets where ONNX has none.
    """

    name: str
    lower: Lower
    since: int = 1
    until: int | None = None
    domain: str = ""
    is_extension: bool = False

    def covers(self, version: int) -> bool:
        """Whether this row holds for operator set `version`."""
        return self.since <= version and (self.until is None or version <= self.until)


def direct(op: str) -> Lower:
    """The lowering of an ONNX op that is a core row without attributes."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        return build.emit(op, node.inputs)

    return lower
