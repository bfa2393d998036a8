"""Whether an input may be padded along a dimension: whether what is added leaves the rest of the results as it was.

Along a safe dimension each element of a result depends on nothing but elements at the same place, so that the results
for a smaller size are the first part of the results for a larger one. Two things show that:

* The graph, imported for other sizes, is the same node by node; only the sizes of dimensions, and of the constants
  along them, follow. `Family` compares the graphs: a size that is always the same multiple of the dimension's makes
  the axis one of that dimension; the constants of a smaller graph must be the first parts of the larger one's.
* In the access relations of every node, an axis of the dimension is read at the place that is written, or at the
  first place alone, which any size has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from birc.compiler.ir.access import index_range
from birc.compiler.ir.attributes import integer
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.ir.ops.shape import reshape_groups
from birc.compiler.ir.table import row
from birc.compiler.ir.types import TensorType

_FOLLOWS_TYPE: Final = frozenset({("reshape", "shape"), ("expand", "shape"), ("slice", "ends")})
"""Attributes that the type of the result repeats."""

_COUNTS_PLACES: Final = "max_pool2d_position"
"""The op whose result is a place, counted along its input's last dimensions."""

_MIXES: Final = "mixes elements along it"


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of a value along a dimension of the inputs; `inner` elements of it belong to one of the dimension."""

    dimension: str
    inner: int


Axes = tuple[Axis | None, ...]


class Family:
    """Graphs of one model for several sizes of its dimensions: compared with the one whose sizes are the largest."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        self._graph = graph
        self._sizes = dict(sizes)
        self._problems: dict[str, str] = {}
        self._types = _types(graph)
        self._options = {name: [self._candidates(size) for size in type.sizes] for name, type in self._types.items()}

    def _candidates(self, size: int) -> list[Axis | None]:
        """What an axis of this size may be: always as long, or a multiple of a dimension."""
        multiples = (Axis(name, size // n) for name, n in self._sizes.items() if n > 1 and size and size % n == 0)
        return [None, *multiples]

    def refuse(self, dimensions: Iterable[str], reason: str) -> None:
        """Say why these dimensions must not be padded; the first reason stays."""
        for name in dimensions:
            self._problems.setdefault(name, reason)

    def compare(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        """Take in the graph for these sizes, none of which is larger."""
        changed = [name for name, size in sizes.items() if size != self._sizes[name]]
        reason = self._difference(graph)
        if reason:
            self.refuse(changed, reason)
            return
        types = _types(graph)
        for name, options in self._options.items():
            for place, size in enumerate(types[name].sizes):
                fitting = [option for option in options[place] if size == self._size(option, name, place, sizes)]
                if fitting:
                    options[place] = fitting
                else:
                    self.refuse(changed, f"the size of {name!r} is no multiple of it")

    def _size(self, option: Axis | None, name: str, place: int, sizes: Mapping[str, int]) -> int:
        if option is None:
            return self._types[name].sizes[place]
        return option.inner * sizes[option.dimension]

    def _difference(self, other: Graph) -> str | None:
        """How a graph differs from the first in more than sizes."""
        for node, twin in zip(self._graph.nodes, other.nodes, strict=False):
            if (node.op, node.inputs, node.outputs[0].name) != (twin.op, twin.inputs, twin.outputs[0].name):
                return f"{_named(node)} is computed in another way for another size"
            for name, value in node.attributes.items():
                if twin.attributes.get(name) != value and (node.op, name) not in _FOLLOWS_TYPE:
                    return f"{name!r} of {_named(node)} depends on its size"
        if len(self._graph.nodes) != len(other.nodes) or self._types.keys() != _types(other).keys():
            return "other nodes are needed for another size"
        for name, constant in self._graph.constants.items():
            if not _begins_with(constant.data, other.constants[name].data):
                users = self._graph.users(name)
                taker = _named(users[0]) if users else "an output"
                return f"{taker} takes the constant {name!r}, which depends on its size"
        if any(type.rank != self._types[name].rank for name, type in _types(other).items()):
            return "the number of dimensions depends on its size"
        return None

    def problems(self) -> Mapping[str, str]:
        """The dimensions that must not be padded, each with the reason."""
        axes = self.axes()
        for node in self._graph.nodes:
            self._check(node, axes)
        return dict(self._problems)

    def axes(self) -> Mapping[str, Axes]:
        """The axes of every value by its name."""
        return {name: tuple(options[0] for options in places) for name, places in self._options.items()}

    def _check(self, node: Node, axes: Mapping[str, Axes]) -> None:
        types = self._graph.input_types(node)
        taken = [axes[name] for name in node.present_inputs]
        if not any(axis for operand in taken for axis in operand):
            return
        for output in node.outputs:
            given = axes[output.name]
            if node.op == "reshape":
                mixed = _mixed_by_reshape(types[0], output.type, taken[0], given)
            else:
                mixed = self._mixed_by_reads(node, types, output.type, taken, given)
            self.refuse(sorted(mixed), f"{_named(node)} {_MIXES}")

    def _mixed_by_reads(
        self, node: Node, types: tuple[TensorType, ...], output: TensorType, taken: list[Axes], given: Axes
    ) -> set[str]:
        """The dimensions of which an element of the output reads another place than its own."""
        relations = row(node.op).relations(types, output, node.attributes)
        ranges = {loop.name: (0, loop.extent - 1) for loop in relations.loops}
        writes = dict(zip((loop.name for loop in relations.parallel), given, strict=True))
        mixed = set()
        for place, (read, operand) in enumerate(zip(relations.reads, taken, strict=True)):
            for dim, (index, axis) in enumerate(zip(read, operand, strict=True)):
                if axis is None or writes.get(index) == axis:
                    continue
                low, high = index_range(index, ranges)
                if not 0 <= low <= high < axis.inner and not self._gathers_first(node, place, dim):
                    mixed.add(axis.dimension)
        if node.op == _COUNTS_PLACES:
            mixed.update(axis.dimension for axis in taken[0][2:] if axis)
        return mixed

    def _gathers_first(self, node: Node, place: int, dim: int) -> bool:
        """Whether a gather takes nothing but the first place of the axis."""
        if node.op != "gather" or place != 0 or dim != integer(node.attributes, "axis"):
            return False
        indices = self._graph.constants.get(node.inputs[1])
        return indices is not None and not indices.data.any()


def _types(graph: Graph) -> dict[str, TensorType]:
    """The types of all values by name: inputs, constants and results."""
    types = {value.name: value.type for value in graph.inputs}
    types.update((name, constant.type) for name, constant in graph.constants.items())
    types.update((value.name, value.type) for node in graph.nodes for value in node.outputs)
    return types


def _named(node: Node) -> str:
    """A node by the ONNX nodes that it comes from."""
    return f"node {', '.join(node.sources) or node.name!r} ({node.op})"


def _begins_with(whole: np.ndarray, part: np.ndarray) -> bool:
    """Whether `part` is the first part of `whole` along every dimension, bit by bit."""
    if whole.ndim != part.ndim or any(least > most for least, most in zip(part.shape, whole.shape, strict=True)):
        return False
    begin = whole[tuple(map(slice, part.shape))]
    if np.array_equal(begin, part):
        return True
    return begin.tobytes() == part.tobytes()  # NaN is not equal to itself


def _mixed_by_reshape(before: TensorType, after: TensorType, taken: Axes, given: Axes) -> set[str]:
    """The dimensions that do not stay outermost among the dimensions with which they are merged or split."""
    mixed = set()
    for from_dims, to_dims in reshape_groups(before.sizes, after.sizes):
        sides = (
            [axes[dim] for dim in dims if type.sizes[dim] != 1]
            for dims, type, axes in ((from_dims, before, taken), (to_dims, after, given))
        )
        old, new = (list(side) for side in sides)
        names = [axis.dimension for axis in (*old, *new) if axis]
        for name in set(names):
            leads = all(side and side[0] is not None and side[0].dimension == name for side in (old, new))
            if not leads or names.count(name) != 2:
                mixed.add(name)
    return mixed
