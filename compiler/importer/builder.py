"""The graph under construction: core rows with inferred types; arithmetic on shapes is done at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from birc.compiler.importer.limits import check_value_size
from birc.compiler.importer.lookahead import Declared
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.ir.attributes import Attributes, AttributeValue
from birc.compiler.ir.graph import Constant, Fate, FateKind, Graph, Node, Value
from birc.compiler.ir.op import OpRow
from birc.compiler.ir.table import row
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError

PASS_NAME: Final = "import"

# Arithmetic on shapes is evaluated while importing, so that Reshape and Slice know their parameters; anything
# larger is left to constant folding, which knows how to keep splats.
_SHAPE_ELEMENTS: Final = 65_536
_FLOAT_ELEMENTS: Final = 64
_HOST_ELEMENTS: Final = 2**24
_KEPT: Final = frozenset({"dequantize"})
"""Ops that stay on constants: precision `int8` multiplies what they take."""

_INDEX_INPUTS: Final = {"gather": 1, "gather_nd": 1}
"""The input whose values make a row fault when they leave its table."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a builder at one moment."""

    num_nodes: int
    num_fates: int
    types: Mapping[str, TensorType]
    constants: Mapping[str, Constant]


DeviceProblem = Callable[[Node, Sequence[TensorType]], str | None]


class GraphBuilder:
    """Collects nodes and constants. What comes between two calls of `finish_node` is of one ONNX node."""

    def __init__(self, reserved_names: Iterable[str], device_problem: DeviceProblem = lambda *_: None) -> None:
        """`device_problem` says why the device cannot run a node with inputs of these types, None when it can."""
        self._device_problem = device_problem
        self._types: dict[str, TensorType] = {}
        self._constants: dict[str, Constant] = {}
        self._nodes: list[Node] = []
        self._fates: list[Fate] = []
        self._reserved = set(reserved_names)
        self._pending_nodes: list[Node] = []
        self._pending_constants: dict[str, Constant] = {}
        self._owner = "model"
        self._counters: dict[str, int] = {}
        self._assumption = ""
        self.declared: Declared = lambda _: None
        self.renamed_outputs: dict[str, str] = {}

    # What is known about values

    def type_of(self, value: str) -> TensorType:
        """The type of a value made so far."""
        return self._types[value]

    def shape(self, value: str) -> tuple[int, ...]:
        """The shape of a value made so far, as numbers.

        Raises `UnknownDimError` for a dimension without a size, which the user is then asked for.
        """
        return self._types[value].sizes

    def rank(self, value: str) -> int:
        """The number of dimensions of a value made so far, which is known where their sizes are not."""
        return self._types[value].rank

    def constant_of(self, value: str) -> np.ndarray | None:
        """The data of a value, None when it is only known at run time. One without elements is always known."""
        found = self._constants.get(value) or self._pending_constants.get(value)
        if found is not None:
            return found.data
        type = self._types[value]
        return np.empty(type.sizes, type.dtype.numpy) if 0 in type.shape else None

    @property
    def constants(self) -> dict[str, np.ndarray]:
        """The data of all accepted constants by name."""
        return {name: constant.data for name, constant in self._constants.items()}

    def computed_values(self) -> set[str]:
        """The values that device nodes compute."""
        return {output.name for node in self._nodes for output in node.outputs}

    def maker(self, value: str) -> Node | None:
        """The node that computes a value; None for inputs and constants."""
        made = (node for nodes in (self._pending_nodes, self._nodes) for node in reversed(nodes))
        return next((node for node in made if node.name == value), None)

    def is_constant(self, value: str) -> bool:
        """Whether the value is an accepted constant."""
        return value in self._constants

    def has_type(self, value: str) -> bool:
        """Whether `value` is a tensor of numbers of a known shape."""
        return value in self._types

    def required_constant(self, value: str, meaning: str) -> np.ndarray:
        """The data of a value. Raises `CannotLower` when it depends on the model's inputs."""
        data = self.constant_of(value)
        if data is None:
            raise CannotLower(f"the {meaning} must be known, but comes from the inputs of the model")
        return data

    def declared_shape(self, node: OnnxNode, position: int = 0) -> tuple[int, ...] | None:
        """The shape that the model itself gives for a result of `node`; None where neither a declaration nor
        onnx's shape inference fixes every dimension.

        A parameter that is only known at run time can often be read off it. `guarded` then holds the program to it.
        """
        if position >= len(node.outputs) or not node.outputs[position]:
            return None
        return self.declared(node.outputs[position])

    # Building

    def guarded(self, x: str, condition: str) -> str:
        """`x`, from a program that faults where the scalar bool `condition` is false at run time.

        It is a gather from a table of one entry, whose index leaves the table.
        """
        if self._assumption:
            condition = self.emit("or", (condition, self.emit("not", (self._assumption,))))
        table = self.emit("reshape", (x,), {"shape": (1, *self.shape(x))})
        refused = self.emit("cast", (self.emit("not", (condition,)),), {"to": dtype("i32")})
        # Counted from the end an index of -1 would be the one entry: 1 is beyond it.
        return self.emit("gather", (table, refused), {"axis": 0})

    @property
    def is_speculative(self) -> bool:
        """Whether what is emitted now may turn out, at run time, not to be wanted."""
        return self._assumption != ""

    @contextmanager
    def assuming(self, condition: str) -> Iterator[None]:
        """What is emitted inside is wanted only where the scalar bool `condition` is true at run time.

        It is computed in any case, so that it must not fault in the other one: guards hold then, and indices are 0.
        """
        outer = self._assumption
        self._assumption = self.emit("and", (outer, condition)) if outer else condition
        try:
            yield
        finally:
            self._assumption = outer

    def add_unknown(self, name: str, type: TensorType) -> None:
        """A value whose node could not be lowered, so that the nodes after it can be tried."""
        self._types[name] = type

    def reserve(self, name: str) -> None:
        """Keep a name that a value outside of the graph has."""
        self._reserved.add(name)

    def add_input(self, value: Value) -> None:
        """An input of the model."""
        check_value_size(value.type, f"input {value.name!r}")
        self._types[value.name] = value.type

    def add_constant(self, name: str, data: np.ndarray) -> None:
        """A constant of the model, under its own name."""
        self._constants[name] = Constant.of(data)
        self._types[name] = self._constants[name].type

    def keep_constant(self, stem: str, data: np.ndarray) -> str:
        """A constant of an inner graph, which outlives the node that is being lowered."""
        name = self.unique(stem)
        self.add_constant(name, data)
        return name

    def rename_constant(self, name: str, stem: str) -> str:
        """Give a constant that no device node reads another name, so that `name` is free; returns the new one."""
        renamed = self.unique(stem)
        self._constants[renamed], self._types[renamed] = self._constants.pop(name), self._types.pop(name)
        return renamed

    def constant(self, data: np.ndarray) -> str:
        """A constant that a lowering needs."""
        return self._pending_constant(Constant.of(data))

    def splat(self, value: object, type: TensorType) -> str:
        """A constant whose elements are all `value`; takes no memory."""
        self._check_size(type)
        return self._pending_constant(Constant.splat(value, type))

    def scalar(self, value: object, like: str) -> str:
        """A constant of rank 0 of the element type of `like`."""
        return self.constant(np.asarray(value).astype(self._types[like].dtype.numpy))

    def emit(self, op: str, inputs: Sequence[str], attributes: Mapping[str, AttributeValue] | None = None) -> str:
        """Apply a core row; its type rule gives the type of the result. Returns the result's name.

        A result without elements is known, whatever the inputs are.

        Raises `TypeRuleError` when the inputs contradict the rule.
        """
        entry = row(op)
        if self._assumption and op in _INDEX_INPUTS:
            inputs = self._harmless(inputs, _INDEX_INPUTS[op])
        values = entry.complete(attributes or {})
        (result,) = entry.output_types(tuple(self._types[name] for name in inputs if name), values)
        self._check_size(result)
        if 0 in result.shape:
            return self.constant(np.empty(result.sizes, result.dtype.numpy))
        data = [self.constant_of(name) for name in inputs if name]
        known = [array for array in data if array is not None]
        if len(known) == len(data) and known and _is_folded_here(result) and op not in _KEPT:
            return self.constant(self._evaluated(entry, known, values))
        name = self._fresh_name()
        node = Node(op, tuple(inputs), (Value(name, result),), values)
        is_static = all(self._types[entry].is_static for entry in node.present_inputs) and result.is_static
        is_folded = known and len(known) == len(data) and result.dtype.device is not None
        if is_static and not is_folded:
            problem = self._device_problem(node, tuple(self._types[entry] for entry in node.present_inputs))
            if problem is not None:
                raise CannotLower(problem)
        self._pending_nodes.append(node)
        self._types[name] = result
        return name

    def _check_size(self, type: TensorType) -> None:
        check_value_size(type, f"node {self._owner!r}")

    def _harmless(self, inputs: Sequence[str], place: int) -> tuple[str, ...]:
        """`inputs` with indices of 0 at `place` where the assumption does not hold."""
        indices = self.emit("where", (self._assumption, inputs[place], self.scalar(0, inputs[place])))
        return (*inputs[:place], indices, *inputs[place + 1 :])

    def _evaluated(self, entry: OpRow, data: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
        try:
            return np.asarray(entry.evaluate(tuple(data), attributes)[0])
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise BadModelError(
                f"{entry.name} fails on its constants: {error}", where=f"node {self._owner!r}"
            ) from error

    def start_node(self, name: str) -> None:
        """Begin the lowering of the ONNX node called `name`, dropping what an abandoned one left."""
        for abandoned in [*(node.name for node in self._pending_nodes), *self._pending_constants]:
            del self._types[abandoned]
        self._owner = name
        self._pending_nodes, self._pending_constants = [], {}

    def settle(self) -> None:
        """Accept what was emitted since `start_node`, in the middle of a node that has inner graphs."""
        self._accept({})

    @property
    def num_nodes(self) -> int:
        """How many nodes were accepted so far."""
        return len(self._nodes)

    @property
    def num_pending(self) -> int:
        """How many nodes were emitted since `start_node`, or since what was settled last."""
        return len(self._pending_nodes)

    def checkpoint(self) -> Checkpoint:
        """What was accepted so far, to come back to with `restore`."""
        return Checkpoint(len(self._nodes), len(self._fates), dict(self._types), dict(self._constants))

    def restore(self, state: Checkpoint) -> None:
        """Forget everything since the checkpoint was taken."""
        del self._nodes[state.num_nodes :]
        del self._fates[state.num_fates :]
        self._types, self._constants = dict(state.types), dict(state.constants)
        self._pending_nodes, self._pending_constants = [], {}

    def finish_node(self, results: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
        """Accept what was emitted since `start_node`; name `results` as `wanted` where they are new values.

        Returns the names under which the results are known from now on.
        """
        made = {value.name for node in self._pending_nodes for value in node.outputs} | set(self._pending_constants)
        renamed: dict[str, str] = {}
        for result, name in zip(results, wanted, strict=True):
            if result in made and result not in renamed and name and name not in self._types:
                renamed[result] = name
        names = tuple(renamed.get(result, result) for result in results)
        if not self._pending_nodes:
            folded = all(result in made for result in results)
            self.record_fate(self._owner, "folded" if folded else "removed", names[0] if names else "")
        self._accept(renamed)
        return names

    def _accept(self, renamed: Mapping[str, str]) -> None:
        for name, constant in self._pending_constants.items():
            self._constants[renamed.get(name, name)] = constant
            self._types[renamed.get(name, name)] = constant.type
        for node in self._pending_nodes:
            accepted = _renamed(node, renamed).replace(sources=(self._owner,))
            self._nodes.append(accepted)
            self._types.update((value.name, value.type) for value in accepted.outputs)
        self._pending_nodes, self._pending_constants = [], {}

    def record_fate(self, source: str, fate: FateKind, into: str) -> None:
        """Say what became of an ONNX node without nodes of its own."""
        self._fates.append(Fate(source, fate, PASS_NAME, into))

    def graph(self, name: str, inputs: Sequence[Value], outputs: Mapping[str, str]) -> Graph:
        """The finished graph; `outputs` maps the names it must have to the values that they are."""
        kept = {entry.name for entry in inputs} | set(outputs)
        renamed: dict[str, str] = {}
        for wanted, value in outputs.items():
            if self._name_output(wanted, renamed.get(value, value), kept):
                renamed[value] = wanted
        self.renamed_outputs = renamed
        self._nodes = [_renamed(node, renamed) for node in self._nodes] if renamed else self._nodes
        self._fates = [replace(fate, into=renamed.get(fate.into, fate.into)) for fate in self._fates]
        used = {entry for node in self._nodes for entry in node.present_inputs} | set(outputs)
        constants = {key: constant for key, constant in self._constants.items() if key in used}
        alive = {source for node in self._nodes for source in node.sources}
        fates = {fate.source: fate for fate in self._fates if fate.source not in alive}
        return Graph(name, tuple(inputs), tuple(outputs), tuple(self._nodes), constants, tuple(fates.values()))

    def _name_output(self, wanted: str, value: str, kept: set[str]) -> bool:
        """See that there is a value called `wanted`: copy `value` when it is one of `kept`.

        Returns whether `value` is to be renamed instead.
        """
        if wanted == value:
            return False
        type = self._types[wanted] = self._types[value]
        if value in self._constants:
            self._constants[wanted] = self._constants[value]
            return False
        if value in kept:
            self._nodes.append(Node("reshape", (value,), (Value(wanted, type),), {"shape": type.sizes}))
            return False
        return True

    def _pending_constant(self, constant: Constant) -> str:
        name = self._fresh_name()
        self._pending_constants[name] = constant
        self._types[name] = constant.type
        return name

    def unique(self, stem: str) -> str:
        """`stem`, with a number behind it where a value has that name already."""
        name, count = stem, 1
        while name in self._types or name in self._reserved:
            count += 1
            name = f"{stem}_{count}"
        return name

    def _fresh_name(self) -> str:
        count = self._counters[self._owner] = self._counters.get(self._owner, 0) + 1
        return self.unique(f"{self._owner}.{count}")


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    outputs = tuple(Value(names.get(value.name, value.name), value.type) for value in node.outputs)
    return node.replace(inputs=tuple(names.get(name, name) for name in node.inputs), outputs=outputs)


def _is_folded_here(type: TensorType) -> bool:
    """Whether a result of constants is computed at once: shape arithmetic, and what no program could hold."""
    if type.dtype.device is None:
        return type.num_elements <= _HOST_ELEMENTS
    limit = _FLOAT_ELEMENTS if type.dtype.is_float else _SHAPE_ELEMENTS
    return type.num_elements <= limit
