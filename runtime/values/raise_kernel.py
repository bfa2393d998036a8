"""Raises kernels: finds out which loops have to be stepped, by trying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from birc.runtime.program import Descriptor, Kernel
from birc.runtime.values.index_space import CannotRaiseError
from birc.runtime.values.nest import Leaf, Node, number_nests, stepped_loops
from birc.runtime.values.trace import Trace
from birc.runtime.values.trace_instructions import trace_instruction


def raise_kernel(kernel: Kernel, descriptors: Mapping[int, Descriptor]) -> tuple[Trace, tuple[str, ...]]:
    """The trace of a kernel, and why loops had to be stepped that are not meant to be.

    Raises `CannotRaiseError` when stepping loops does not help.
    """
    nests = number_nests(kernel)
    loops = {node.number: node for nest in nests if isinstance(nest, Node) for node in nest.nodes()}
    stepped = stepped_loops(nests)
    reasons: list[str] = []
    while True:
        trace = Trace(descriptors, _with_reductions_around(stepped, nests), trace_instruction)
        try:
            trace.walk(nests)
        except CannotRaiseError as error:
            if error.loop is None or error.loop in stepped:
                raise CannotRaiseError(error.reason) from error
            if loops[error.loop].loop.kind == "par" and not error.ordinary:
                reasons.append(error.reason)
            stepped |= {error.loop}
        else:
            return trace, tuple(reasons)


def _with_reductions_around(stepped: frozenset[int], nests: Sequence[Node | Leaf]) -> frozenset[int]:
    """A reduction around an ordered loop is stepped as well: its partial sums belong to single iterations."""
    result = set(stepped)
    for nest in nests:
        if isinstance(nest, Node):
            for node in nest.nodes():
                inside = (inner for inner in node.nodes() if inner is not node)
                ordered = any(inner.number in stepped and inner.loop.kind == "seq" for inner in inside)
                if node.loop.kind == "red" and ordered:
                    result.add(node.number)
    return frozenset(result)
