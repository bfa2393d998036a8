"""From the fused graph to kernels over buffers: the first half of the partition phase."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np

from birc.compiler.ir.attributes import integer, integers
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.ir.plan import Buffer, Kernel, View
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.types import TensorType
from birc.compiler.passes.lower.channels import batch_norm
from birc.compiler.passes.lower.coalesce import coalesce, within_rank
from birc.compiler.passes.lower.contraction import conv2d, matmul
from birc.compiler.passes.lower.environment import Environment
from birc.compiler.passes.lower.frame import Frame
from birc.compiler.passes.lower.group import (
    Anchor,
    GroupLowering,
    close_group,
    element_wise,
    is_element_wise,
    node_name,
    open_group,
)
from birc.compiler.passes.lower.indexing import gather, gather_nd
from birc.compiler.passes.lower.load_order import loads_first
from birc.compiler.passes.lower.moments import row_moments, row_statistics, scale_by_moments
from birc.compiler.passes.lower.movement import bitcast, concat, concat_pieces, copy, materialised_reshape, pad
from birc.compiler.passes.lower.narrow import narrow_operands
from birc.compiler.passes.lower.neighbours import join_neighbours
from birc.compiler.passes.lower.pack import pack_small
from birc.compiler.passes.lower.panels import panels_of
from birc.compiler.passes.lower.ranges import graph_ranges
from birc.compiler.passes.lower.rotation import ROTATIONS, is_rotation, rotation
from birc.compiler.passes.lower.rows import (
    REDUCTIONS,
    SMALLER,
    kept_frame,
    layer_norm,
    log_softmax,
    logsumexp,
    reduced_axes,
    reduction,
    rms_norm,
    softmax,
    with_small_factors,
)
from birc.compiler.passes.lower.shared_heads import shared
from birc.compiler.passes.lower.support import check_ranks, check_supported, node_problem
from birc.compiler.passes.lower.tables import separate_tables
from birc.compiler.passes.lower.views import broadcast, narrow, reshape, transpose
from birc.compiler.passes.lower.window import avg_pool2d, depthwise_conv2d, lrn, max_pool2d, max_pool2d_position
from birc.compiler.passes.memory_order import seen_order
from birc.runtime.machine import Machine
from birc.runtime.program import MAX_BOX_RANK

ANCHORS: dict[str, Anchor] = {
    "matmul": matmul,
    "conv2d": conv2d,
    "max_pool2d": max_pool2d,
    "max_pool2d_position": max_pool2d_position,
    "avg_pool2d": avg_pool2d,
    "lrn": lrn,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "logsumexp": logsumexp,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "row_moments": row_moments,
    "row_statistics": row_statistics,
    "batch_norm": batch_norm,
    "gather": gather,
    "gather_nd": gather_nd,
}
BY_ROWS: dict[str, Anchor] = {"scale_by_moments": scale_by_moments}
"""What is computed element by element but for statistics of rows."""

ROW_ANCHORS = frozenset({"softmax", "log_softmax", "layer_norm", "rms_norm", *SMALLER})
"""Anchors that reduce whole axes; they can read an element-wise expression instead of a tensor."""

LARGEST_VECTOR_WINDOW = 25
"""Positions of a window up to which a convolution of one channel takes about as long without the T-core."""

MOVEMENTS: dict[str, Callable[[Environment, Node], list[Kernel]]] = {"bitcast": bitcast, "concat": concat, "pad": pad}
RESHAPING = frozenset({"reshape", "transpose", "expand"})
VIEWS = RESHAPING | {"slice"}
PLACED = frozenset({"matmul", "conv2d", "max_pool2d", "avg_pool2d", "concat", *ROTATIONS, *REDUCTIONS})
"""What may be written into a part of a larger tensor: walked in its own dimensions, whatever lies between them."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """Kernels in order, the buffers they use, the data of constants, and the views of the graph's boundary.

    What has no elements has no view.
    """

    precision: str
    kernels: tuple[Kernel, ...]
    buffers: tuple[Buffer, ...]
    data: dict[str, np.ndarray]
    inputs: dict[str, View]
    outputs: dict[str, View]


def is_supported(op: str) -> bool:
    """Whether the device has a lowering for a core op."""
    kinds: tuple[Container[str], ...] = (ANCHORS, MOVEMENTS, VIEWS, REDUCTIONS, ROTATIONS)
    return any(op in kind for kind in kinds) or is_element_wise_op(op)


def is_element_wise_op(op: str) -> bool:
    """Whether an op is computed element by element on the vector cores."""
    return op in BY_ROWS or is_element_wise(Node(op, (), ()))


def device_problem(node: Node, types: Sequence[TensorType]) -> str | None:
    """Why the device cannot run a node with inputs of these types; None when it can.

    What has no elements never comes to the device: EliminateEmpty and a rule on concatenations see to that.
    """
    filled = [type for type in types if type.num_elements]
    if not node.output.type.num_elements or not filled:
        return None
    return node_problem(node, filled if node.op == "concat" else types, is_supported)


def lower_graph(graph: Graph, machine: Machine, precision: str, *, joins_neighbours: bool = False) -> Lowered:
    """Kernels for a graph of groups and single nodes.

    With `joins_neighbours` convolutions of few channels take neighbours side by side where that is faster. Raises
    `UnsupportedError` listing what the device cannot do, and `DoesNotFitError` where a limit of the target is exceeded.
    """
    check_supported(graph, is_supported)
    env = _environment(graph, machine, precision)
    env.ranges, env.joining = graph_ranges(graph), machine if joins_neighbours else None
    inputs = {v.name: env.new_buffer(v.name, v.type, "input") for v in graph.inputs if v.type.num_elements}
    outputs = {name: _output_view(env, name) for name in _direct_outputs(graph)}
    _make_in_place(env)
    for node in graph.nodes:
        _lower_node(env, node)
    for name in graph.outputs:
        if name not in outputs and graph.type_of(name).num_elements:
            outputs[name] = _copied_output(env, name)
    merged = [coalesce(kernel, machine.max_dim) for kernel in env.kernels]
    whole = [
        loads_first(part, machine.vector_registers) for kernel in merged for part in within_rank(kernel, MAX_BOX_RANK)
    ]
    check_ranks(whole)
    separated, separate_buffers, separate_data = separate_tables(whole, env.buffers, env.data)
    narrowed = narrow_operands(separated, separate_buffers, separate_data)
    kernels, buffers, data = pack_small(separated, *narrowed)
    used = {access.view.buffer for kernel in kernels for access in accesses(kernel)}
    kept = tuple(b for b in buffers.values() if b.name in used or b.role in ("input", "output"))
    constants = {name: array for name, array in data.items() if name in used}
    return Lowered(precision, tuple(kernels), kept, constants, inputs, outputs)


def _environment(graph: Graph, machine: Machine, precision: str) -> Environment:
    sizes = (machine.max_dim, machine.vector_tile_elements, machine.tcore_cols)
    env = Environment(graph, precision, *sizes)
    env.panels = {n.name: panels for n in graph.nodes if (panels := panels_of(env, n, machine)) is not None}
    return env


def left_in_panels(graph: Graph, machine: Machine, precision: str) -> frozenset[str]:
    """The concatenations that nobody makes: products take their pieces where they lie."""
    return frozenset(_environment(graph, machine, precision).panels)


def _make_in_place(env: Environment) -> None:
    """Let what one concatenation reads be written into its result, and a concatenation into that of another one.

    Others may read it there, also parts of it. What a concatenation reads twice, what lies otherwise than the result,
    and what others see with other dimensions, for which it may have to be without gaps, is copied.
    """
    graph = env.graph
    for node in reversed(graph.nodes):
        if node.op != "concat" or not node.output.type.num_elements or node.name in env.panels:
            continue
        for name, piece in zip(node.inputs, concat_pieces(env, node), strict=True):
            users = [user.op for user in graph.users(name)]
            alone = users.count("concat") == 1 and node.inputs.count(name) == 1 and RESHAPING.isdisjoint(users)
            placed = _is_placed(graph.producer(name)) and name not in graph.outputs
            if alone and placed and graph.type_of(name).layout == node.output.type.layout:
                env.views[name] = piece


def _is_placed(node: Node | None) -> bool:
    """Whether what makes the value of a node may write it anywhere; all of it element by element can."""
    if node is None:
        return False
    inside = node.body.nodes if node.body is not None else (node,)
    return any(n.op in PLACED for n in inside) or all(is_element_wise_op(n.op) for n in inside)


def _direct_outputs(graph: Graph) -> list[str]:
    """Outputs that a kernel can write where the caller expects them."""
    result = []
    for name in dict.fromkeys(graph.outputs):
        producer = graph.producer(name)
        if producer is not None and producer.op not in VIEWS:
            result.append(name)
    return result


def _output_view(env: Environment, name: str) -> View:
    return env.new_buffer(name, env.graph.type_of(name), "output")


def _copied_output(env: Environment, name: str) -> View:
    """An output that is an input, a constant or a view of another value: copied into a buffer of its own."""
    source = env.view(name)
    type = env.graph.type_of(name).logical
    del env.views[name]
    target = env.new_buffer(f"{name}.output", type, "output")
    env.views[name] = source
    producer = env.graph.producer(name)
    env.kernels.append(copy(env, f"{name}.output", source, target, None, producer.sources if producer else ()))
    return target


def _lower_node(env: Environment, node: Node) -> None:
    if node.op in VIEWS:
        seen = shared(env, node)
        if seen is not None:
            env.shared[node.name] = seen
        else:
            env.views[node.name] = _view(env, node)
    elif node.name in env.panels:
        return
    elif node.op in MOVEMENTS:
        env.kernels.extend(MOVEMENTS[node.op](env, node))
    else:
        env.kernels.append(_lower_group(env, node))


def _lower_group(env: Environment, node: Node) -> Kernel:
    if is_rotation(node):
        return rotation(env, node)
    lowering = open_group(env, node)
    lowering.keeps_sums = _is_shares(env.graph, node)
    anchor = next((n for n in lowering.nodes if not is_element_wise_op(n.op)), None)
    if anchor is not None and anchor.op in ROW_ANCHORS:
        type = lowering.type_of(anchor.inputs[0])
        layout = _read_layout(lowering, anchor) if anchor.op in SMALLER else node.outputs[0].type.layout
        axes = reduced_axes(anchor, type.rank)
        lowering.frame = with_small_factors(Frame.of(type.sizes, layout), axes, env.max_dim, node_name(anchor))
    output: Frame | None = None
    for inner in lowering.nodes:
        if is_element_wise(inner):
            lowering.values[inner.name] = element_wise(lowering, inner)
        elif inner.op in REDUCTIONS:
            lowering.values[inner.name] = reduction(lowering, inner)
            output = kept_frame(lowering.frame, integers(inner.attributes, "axes"))
        elif inner.op == "conv2d" and _is_depthwise(lowering, inner):
            lowering.values[inner.name] = depthwise_conv2d(lowering, inner)
        else:
            lowering.values[inner.name] = (ANCHORS | BY_ROWS)[inner.op](lowering, inner)
    kernel = close_group(lowering, node, output)
    if env.joining is None or not lowering.neighbours:
        return kernel
    return join_neighbours(env, kernel, lowering.neighbours, env.joining)


def _read_layout(lowering: GroupLowering, anchor: Node) -> tuple[int, ...] | None:
    """The order in which a reduction walks its operand: as that lies, also where it is seen through views."""
    name = anchor.inputs[0]
    outer = lowering.outer.get(name)
    return lowering.type_of(name).layout if outer is None else seen_order(lowering.env.graph, outer)


def _is_shares(graph: Graph, node: Node) -> bool:
    """Whether a kernel makes the shares of an attention, which one product reads as its rows and nobody else.

    Then the product divides its own rows, which are shorter, by the sums of the powers. FP16 shares are divided where
    onnx's reference rounds them: their rounding shows in its results.
    """
    inside = node.body.nodes if node.body is not None else ()
    users = graph.users(node.name)
    anchors = [n for n in inside if n.op in ANCHORS]
    ops = [n.op for n in anchors if n.op != "logsumexp"]
    if ops != ["matmul", "softmax"] or inside[-1] is not anchors[-1]:
        return False
    if len(users) != 1 or node.name in graph.outputs or node.name != anchors[1].name:
        return False
    readers = [n for n in (users[0].body.nodes if users[0].body is not None else users) if node.name in n.inputs]
    reader, type = readers[0], node.output.type
    is_row = reader.op == "matmul" and reader.inputs[0] == node.name != reader.inputs[1]
    keeps_rows = reader.output.type.sizes[:-1] == type.sizes[:-1]
    return len(readers) == 1 and is_row and keeps_rows and type.dtype.is_float and type.dtype.name != "f16"


def _is_depthwise(lowering: GroupLowering, node: Node) -> bool:
    """Whether the vector cores compute a convolution: one input and one output channel a group.

    Of one channel in all, a small window is about as fast there, and in FP32 throughout.
    """
    channels = lowering.type_of(node.inputs[0]).sizes[1]
    out, _, rows, columns = lowering.type_of(node.inputs[1]).sizes
    is_small = channels > 1 or rows * columns <= LARGEST_VECTOR_WINDOW
    return integer(node.attributes, "group") == channels == out and is_small


def _view(env: Environment, node: Node) -> View:
    source = env.view(node.inputs[0])
    if node.op == "transpose":
        return transpose(source, integers(node.attributes, "perm"))
    if node.op == "expand":
        return broadcast(source, node.output.type.sizes)
    if node.op == "slice":
        starts, steps = integers(node.attributes, "starts"), integers(node.attributes, "steps")
        return narrow(source, starts, node.output.type.sizes, steps)
    return reshape(source, node.output.type.sizes) or materialised_reshape(env, node)
