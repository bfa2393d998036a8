"""What the device cannot compute, found before anything is lowered: one error names every such node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from birc.compiler.ir.attributes import integer, integers
from birc.compiler.ir.graph import Constant, Graph, Node
from birc.compiler.ir.plan import Kernel
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.types import TensorType
from birc.compiler.passes.integer_sums import LARGEST_SUM, depth_costs, largest_sum
from birc.compiler.passes.lower.macros import FLOAT_ONLY
from birc.runtime.errors import UnsupportedError
from birc.runtime.program import MAX_BOX_RANK

Constants = Mapping[str, Constant]

WINDOWED = frozenset({"avg_pool2d", "max_pool2d_position"})
LONGEST_WINDOW = 8192
"""A dimension of a descriptor on every machine; other pools and convolutions are cut in pieces."""


def check_supported(graph: Graph, has_device_code: Callable[[str], bool]) -> None:
    """Raises `UnsupportedError` with every node of the graph that the device cannot compute, and why."""
    problems = [f"input {v.name}: {reason}" for v in graph.inputs if (reason := _port_problem(v.type))]
    for node in graph.nodes:
        scope, constants = node.body or graph, _constants(graph, node)
        for inner in node.body.nodes if node.body is not None else (node,):
            reason = _problem(scope, inner, has_device_code) or _product_problem(scope, inner, constants)
            if reason:
                problems.append(f"{inner.op} ({', '.join(inner.sources) or inner.name}): {reason}")
    if problems:
        raise UnsupportedError(f"no device code: {'; '.join(problems)}", where=graph.name)


def check_ranks(kernels: Iterable[Kernel]) -> None:
    """Raises `UnsupportedError` for a kernel that walks more dimensions than an instruction addresses."""
    for kernel in kernels:
        rank = max(len(access.index) for access in accesses(kernel))
        if rank > MAX_BOX_RANK:
            raise UnsupportedError(
                f"walks {rank} dimensions that cannot be merged, an instruction addresses {MAX_BOX_RANK}",
                where=f"node {', '.join(kernel.sources) or kernel.name}",
                hint="reshape or transpose in steps",
            )


def _problem(scope: Graph, node: Node, has_device_code: Callable[[str], bool]) -> str | None:
    return node_problem(node, [scope.type_of(name) for name in node.present_inputs], has_device_code)


def node_problem(node: Node, inputs: Sequence[TensorType], has_device_code: Callable[[str], bool]) -> str | None:
    """Why the device cannot compute a node with inputs of these types; None when it can."""
    if not has_device_code(node.op):
        return "the op has no lowering"
    types = [*inputs, *(value.type for value in node.outputs)]
    for type in types:
        reason = _type_problem(type)
        if reason:
            return reason
    x = types[0].dtype
    if node.op in WINDOWED and max(integers(node.attributes, "kernel")) > LONGEST_WINDOW:
        return f"a window of more than {LONGEST_WINDOW} elements"
    if node.op in FLOAT_ONLY and not x.is_float:
        return f"no vector instruction computes it on {x.name}; cast to f32 first"
    return None


def _constants(graph: Graph, node: Node) -> Constants:
    """The constants that a node, or the body of a group, reads; by the names that they have there."""
    names = [value.name for value in node.body.inputs] if node.body is not None else node.inputs
    pairs = zip(names, node.inputs, strict=True)
    return {name: graph.constants[outer] for name, outer in pairs if outer in graph.constants}


def _port_problem(type: TensorType) -> str | None:
    """An input without elements stays with the host."""
    return None if type.num_elements == 0 else _type_problem(type)


def _type_problem(type: TensorType) -> str | None:
    if 0 in type.sizes:
        return f"{type.logical} has no elements"
    if type.dtype.device is None:
        return f"no instruction loads or stores {type.dtype.name}"
    return None


def _product_problem(scope: Graph, node: Node, constants: Constants) -> str | None:
    """Why the T-core does not compute a product of integers exactly."""
    if node.op not in ("matmul", "conv2d") or _is_depthwise(scope, node):
        return None
    a, b = (scope.type_of(name) for name in node.inputs[:2])
    if a.dtype.is_float:
        return None
    if a.dtype.name != "i8" or b.dtype.name != "i8":
        return f"the T-core multiplies floats, and i8 with i8, not {a.dtype.name} with {b.dtype.name}; legalize first"
    known_a, known_b = (constants.get(name) for name in node.inputs[:2])
    largest = largest_sum(depth_costs(node, a, b, known_a, known_b))
    return f"sums up to {largest} are more than {LARGEST_SUM}, legalize first" if largest > LARGEST_SUM else None


def _is_depthwise(scope: Graph, node: Node) -> bool:
    """Whether the vector cores compute a product: a convolution whose groups have one channel each."""
    if node.op != "conv2d":
        return False
    x, w = (scope.type_of(name).sizes for name in node.inputs[:2])
    return integer(node.attributes, "group") == x[1] == w[0] > 1
