"""What importing a model gives: its parts, its boundary, and where every node of it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from birc.compiler.importer.dimensions import FixedDimension
from birc.compiler.importer.placement import DevicePart, HostPart
from birc.compiler.ir.types import TensorType
from birc.runtime.errors import UnsupportedError
from birc.runtime.variant import HostNode

Place = Literal["device", "host", "unsupported"]


@dataclass(frozen=True, slots=True)
class PlacedNode:
    """One ONNX node and where it runs; `reason` says why not on the device, "" where it does; `outputs` are values."""

    name: str
    op_type: str
    domain: str
    opset: int
    place: Place
    reason: str = ""
    outputs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"node {self.name!r}: {self.op_type} ({self.domain or 'ai.onnx'} {self.opset}): {self.reason}"


@dataclass(frozen=True, slots=True)
class Imported:
    """The parts in order (none when an operator is not supported anywhere) and the boundary.

    `types` are those of every value that parts share, by name. `nodes` are all ONNX nodes in order, those of the
    model's own functions instead of their calls. `dimensions` are those of the inputs that were given sizes, and
    `axes` says which dimensions of the inputs they are.
    """

    name: str
    parts: tuple[DevicePart | HostPart, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: Mapping[str, onnx.TypeProto | TensorType | None]
    constants: Mapping[str, np.ndarray | onnx.TensorProto]
    functions: tuple[onnx.FunctionProto, ...]
    nodes: tuple[PlacedNode, ...]
    dimensions: tuple[FixedDimension, ...]
    axes: Mapping[str, tuple[str | None, ...]]

    @property
    def unsupported(self) -> tuple[PlacedNode, ...]:
        """The nodes that nobody can run."""
        return tuple(node for node in self.nodes if node.place == "unsupported")

    @property
    def host_nodes(self) -> tuple[HostNode, ...]:
        """The nodes on the host, in order."""
        return tuple(call.node for part in self.parts if isinstance(part, HostPart) for call in part.calls)

    def require_supported(self) -> None:
        """Raise `UnsupportedError` with every operator that nobody can run."""
        if self.unsupported:
            listed = "; ".join(map(str, self.unsupported))
            count = len(self.unsupported)
            raise UnsupportedError(
                f"{count} operator{'s are' if count > 1 else ' is'} not supported: {listed}",
                hint="birc check lists every node with what can be done",
            )
