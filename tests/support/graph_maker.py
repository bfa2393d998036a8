"""Small graphs for tests, written as expressions.

make = GraphMaker()
x = make.input(2, 3)
graph = make.graph(make("add", x, make.constant(1.0)))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from birc.compiler.ir.attributes import AttributeValue
from birc.compiler.ir.edit import make_node
from birc.compiler.ir.graph import Constant, Graph, Node, Value
from birc.compiler.ir.types import TensorType
from birc.compiler.ir.verify import verify_graph
from birc.runtime.dtypes import dtype


class GraphMaker:
    """Collects inputs, constants and nodes; every node has a source of its own."""

    def __init__(self) -> None:
        self._inputs: list[Value] = []
        self._constants: dict[str, Constant] = {}
        self._nodes: list[Node] = []
        self._types: dict[str, TensorType] = {}

    def input(self, *shape: int, element: str = "f32") -> str:
        """An input of the graph: x0, x1, ..."""
        value = Value(f"x{len(self._inputs)}", TensorType(dtype(element), shape))
        self._inputs.append(value)
        self._types[value.name] = value.type
        return value.name

    def constant(self, data: object, element: str = "f32") -> str:
        """A constant with these values: c0, c1, ..."""
        return self._add_constant(Constant.of(np.asarray(data, dtype(element).numpy)))

    def splat(self, value: object, *shape: int, element: str = "f32") -> str:
        """A constant whose elements are all `value`, stored once."""
        return self._add_constant(Constant.splat(value, TensorType(dtype(element), shape)))

    def random(self, *shape: int, low: float = -1.0, high: float = 1.0) -> str:
        """A constant of random values, the same in every run."""
        generator = np.random.default_rng([len(self._constants), *shape])
        return self.constant(generator.uniform(low, high, shape))

    def _add_constant(self, constant: Constant) -> str:
        name = f"c{len(self._constants)}"
        self._constants[name] = constant
        self._types[name] = constant.type
        return name

    def __call__(self, op: str, *inputs: str, **attributes: AttributeValue) -> str:
        """Apply a row: v0, v1, ...; from the ONNX nodes n0, n1, ..."""
        place = len(self._nodes)
        types = [self._types[name] for name in inputs if name]
        node = make_node(op, inputs, types, (f"v{place}",), attributes, (f"n{place}",))
        self._nodes.append(node)
        self._types[node.name] = node.output.type
        return node.name

    def type_of(self, name: str) -> TensorType:
        """The type of a value."""
        return self._types[name]

    def graph(self, *outputs: str) -> Graph:
        """The graph that gives out `outputs`, verified."""
        made = Graph("made", tuple(self._inputs), outputs, tuple(self._nodes), dict(self._constants))
        verify_graph(made)
        return made


def random_inputs(graph: Graph, seed: int = 0, low: float = -2.0, high: float = 2.0) -> dict[str, np.ndarray]:
    """Values for every input, the same for the same seed."""
    generator = np.random.default_rng(seed)
    values = {}
    for value in graph.inputs:
        drawn = generator.uniform(low, high, value.type.sizes)
        holder = value.type.dtype
        whole = drawn > 0 if holder.kind == "bool" else np.rint(np.abs(drawn))
        values[value.name] = (drawn if holder.is_float else whole).astype(holder.numpy)
    return values


def sources_of(graph: Graph) -> tuple[Sequence[str], Mapping[str, str]]:
    """The sources that nodes carry, in order, and what became of the others."""
    alive = [source for node in graph.nodes for source in node.sources]
    return alive, {fate.source: fate.fate for fate in graph.fates}
