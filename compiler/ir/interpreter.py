"""The interpreter: a graph run node by node with the numpy meaning of its rows, the oracle of all levels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from birc.compiler.ir.graph import Graph, Node, Value
from birc.compiler.ir.table import row
from birc.runtime.errors import BadModelError, UsageError

Observer = Callable[[Node, Sequence[np.ndarray]], None]
"""Is told each node outside of groups with its outputs, in order of execution."""


def run_graph(
    graph: Graph, inputs: Mapping[str, np.ndarray], observer: Observer | None = None
) -> dict[str, np.ndarray]:
    """The outputs of `graph` by name, for arrays of exactly the types of its inputs.

    Symbolic dimensions take the sizes that the arrays have. Raises `UsageError` for inputs that are missing,
    unknown or of another type, `BadModelError` when a node fails on its data (an index out of range, an
    impossible shape).
    """
    _check_inputs(graph, inputs)
    return _run(graph, {value.name: np.asarray(inputs[value.name]) for value in graph.inputs}, observer)


def evaluate_node(node: Node, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The outputs of one node for its present inputs; the body is run for a group.

    Raises `BadModelError` when the node fails on its data.
    """
    if node.body is not None:
        given = {value.name: array for value, array in zip(node.body.inputs, arrays, strict=True)}
        results = _run(node.body, given, None)
        return tuple(results[name] for name in node.body.outputs)
    try:
        return row(node.op).evaluate(arrays, node.attributes)
    except (IndexError, ValueError) as error:
        raise BadModelError(f"{node.op} fails on its data: {error}", where=_place(node)) from error


def _run(graph: Graph, values: dict[str, np.ndarray], observer: Observer | None) -> dict[str, np.ndarray]:
    """Run the nodes in order; a value is let go after its last reader."""
    values.update((name, constant.data) for name, constant in graph.constants.items())
    pending = Counter(name for node in graph.nodes for name in set(node.present_inputs))
    pending.update(graph.outputs)
    for node in graph.nodes:
        results = evaluate_node(node, [values[name] for name in node.present_inputs])
        if observer is not None:
            observer(node, results)
        for name in set(node.present_inputs):
            pending[name] -= 1
            if not pending[name]:
                del values[name]
        values.update(
            (value.name, result) for value, result in zip(node.outputs, results, strict=True) if pending[value.name]
        )
    return {name: values[name] for name in graph.outputs}


def _check_inputs(graph: Graph, inputs: Mapping[str, np.ndarray]) -> None:
    names = [value.name for value in graph.inputs]
    missing = [name for name in names if name not in inputs]
    unknown = [name for name in inputs if name not in names]
    if missing or unknown:
        what = f"missing inputs: {', '.join(missing)}" if missing else f"unknown inputs: {', '.join(unknown)}"
        raise UsageError(what, where=f"graph {graph.name!r}", hint=f"the inputs are {', '.join(names)}")
    sizes: dict[str, int] = {}
    for value in graph.inputs:
        _check_input(value, np.asarray(inputs[value.name]), sizes)


def _check_input(value: Value, array: np.ndarray, sizes: dict[str, int]) -> None:
    """`sizes` collects what each symbol stands for."""
    fits = array.dtype == value.type.dtype.numpy and array.ndim == value.type.rank
    if fits:
        expected = [
            size if isinstance(size, int) else sizes.setdefault(size, given)
            for size, given in zip(value.type.shape, array.shape, strict=True)
        ]
        fits = list(array.shape) == expected
    if not fits:
        raise UsageError(f"is {array.dtype}{list(array.shape)}, not {value.type}", where=f"input {value.name}")


def _place(node: Node) -> str:
    origin = f" (from {', '.join(node.sources)})" if node.sources else ""
    return f"node %{node.name}{origin}"
