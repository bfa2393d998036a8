"""The graph: immutable nodes in static single assignment form over typed values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np

from birc.compiler.ir.attributes import AttributeValue
from birc.compiler.ir.errors import InvalidIRError
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import from_numpy

GROUP: Final = "group"
"""The op of a node that stands for one fused kernel and carries its body."""

FateKind = Literal["folded", "merged", "removed"]


@dataclass(frozen=True, slots=True)
class Value:
    """A named tensor: an input of a graph or an output of a node."""

    name: str
    type: TensorType


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One application of an op. Nodes compare by identity.

    `inputs` name values; "" is an optional input that is absent. `sources` are the names of the ONNX nodes it
    stands for. Only a node of op "group" has a `body`: a graph whose inputs are, in order, the node's, under
    names of its own.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[Value, ...]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    body: Graph | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.attributes, MappingProxyType):
            object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))

    @property
    def name(self) -> str:
        """The name of the first output, which names the node too."""
        return self.outputs[0].name if self.outputs else ""

    @property
    def output(self) -> Value:
        """The first output."""
        return self.outputs[0]

    @property
    def present_inputs(self) -> tuple[str, ...]:
        """The inputs without the absent ones."""
        return tuple(name for name in self.inputs if name)

    def replace(self, **changes: Any) -> Node:
        """A copy with the given fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A tensor whose data is known; `data` has the logical shape of `type` and is not to be written to."""

    type: TensorType
    data: np.ndarray

    def __post_init__(self) -> None:
        if self.data.dtype != self.type.dtype.numpy or self.data.shape != self.type.shape:
            raise InvalidIRError(f"data {self.data.dtype}{list(self.data.shape)} is not of type {self.type}")

    @staticmethod
    def of(data: np.ndarray) -> Constant:
        """The row-major constant that holds `data`."""
        return Constant(TensorType(from_numpy(data.dtype), data.shape), data)

    @staticmethod
    def splat(value: object, type: TensorType) -> Constant:
        """The constant whose elements are all `value`, held as one element seen through zero strides."""
        scalar = np.asarray(value).astype(type.dtype.numpy)
        return Constant(type, np.broadcast_to(scalar, type.sizes))

    @property
    def is_splat(self) -> bool:
        """Whether one stored element stands for all: never materialised before packing."""
        return self.data.ndim > 0 and self.data.size > 1 and not any(self.data.strides)


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of an ONNX node that has no node of its own any more.

    `by` is the pass that did it, `into` the value that took its place, if one did.
    """

    source: str
    fate: FateKind
    by: str
    into: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A graph in execution order. It may be invalid (see verify.py); graphs compare by identity."""

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Constant] = field(default_factory=dict)
    fates: tuple[Fate, ...] = ()
    _types: dict[str, TensorType] = field(init=False, repr=False)
    _producers: dict[str, Node] = field(init=False, repr=False)
    _users: dict[str, list[Node]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.constants, MappingProxyType):
            object.__setattr__(self, "constants", MappingProxyType(dict(self.constants)))
        types = {name: constant.type for name, constant in self.constants.items()}
        types.update((value.name, value.type) for value in self.inputs)
        producers: dict[str, Node] = {}
        users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for value in node.outputs:
                types[value.name] = value.type
                producers[value.name] = node
            for name in dict.fromkeys(node.present_inputs):
                users.setdefault(name, []).append(node)
        object.__setattr__(self, "_types", types)
        object.__setattr__(self, "_producers", producers)
        object.__setattr__(self, "_users", users)

    def type_of(self, name: str) -> TensorType:
        """The type of the value called `name`. Raises `InvalidIRError` when there is none."""
        found = self._types.get(name)
        if found is None:
            raise InvalidIRError(f"there is no value %{name}", where=f"graph {self.name!r}")
        return found

    def has_value(self, name: str) -> bool:
        return name in self._types

    def producer(self, name: str) -> Node | None:
        """The node that computes `name`; None for inputs, constants and unknown names."""
        return self._producers.get(name)

    def users(self, name: str) -> tuple[Node, ...]:
        """The nodes that read `name`, each once, in order; being an output of the graph is not among them."""
        return tuple(self._users.get(name, ()))

    def only_user(self, node: Node) -> Node | None:
        """The one node that reads a result which the graph does not give out."""
        users = self.users(node.name)
        return users[0] if len(users) == 1 and node.name not in self.outputs else None

    def input_types(self, node: Node) -> tuple[TensorType, ...]:
        """The types of the present inputs of `node`, as the rows' rules take them."""
        return tuple(self.type_of(name) for name in node.present_inputs)

    def replace(self, **changes: Any) -> Graph:
        """A copy with the given fields changed."""
        return replace(self, **changes)
