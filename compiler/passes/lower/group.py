"""Lowering one fused group: an optional anchor op with element-wise ops before and after it, as one kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from birc.compiler.ir.graph import GROUP, Graph, Node
from birc.compiler.ir.plan import Access, Contraction, Dimension, Kernel, View
from birc.compiler.ir.table import row
from birc.compiler.ir.types import TensorType
from birc.compiler.passes.lower.environment import Environment
from birc.compiler.passes.lower.expression import Builder, Expression, Store, phases
from birc.compiler.passes.lower.frame import Frame
from birc.compiler.passes.lower.macros import FLOAT_ONLY, MACROS
from birc.compiler.passes.lower.views import reshape
from birc.runtime.errors import InternalError, UnsupportedError


@dataclass(slots=True)
class GroupLowering:
    """What is known of the kernel while its group is walked. An anchor sets frame, red dims and contraction."""

    env: Environment
    nodes: tuple[Node, ...]
    scope: Graph
    outer: dict[str, str]
    frame: Frame
    builder: Builder = field(default_factory=Builder)
    values: dict[str, Expression | float] = field(default_factory=dict)
    red_dims: tuple[Dimension, ...] = ()
    contraction: Contraction | None = None
    macs: int = 0
    reduced: Callable[[Frame], Frame] | None = None

    def type_of(self, name: str) -> TensorType:
        """The type of a value of the body."""
        return self.scope.type_of(name)

    def view(self, name: str) -> View:
        """The view of a value that comes from outside the group."""
        return self.env.view(self.outer[name])

    def operand(self, name: str) -> Expression | float:
        """A value of the body as an expression over the space."""
        if name not in self.values:
            self.values[name] = self.env.load(self.builder, self.frame, self.outer[name])
        return self.values[name]

    def expression(self, name: str) -> Expression:
        """As `operand`, but never an immediate."""
        value = self.operand(name)
        return value if isinstance(value, Expression) else self.builder.op("vmov", value)


Anchor = Callable[[GroupLowering, Node], Expression]


def open_group(env: Environment, node: Node) -> GroupLowering:
    """The walk of a group node, or of a single node as a group of one. The frame is that of its first output."""
    if node.op == GROUP and node.body is not None:
        body = node.body
        outer = dict(zip((v.name for v in body.inputs), node.inputs, strict=True))
        nodes = body.nodes
        scope: Graph = body
    else:
        outer = {name: name for name in node.present_inputs}
        nodes = (node,)
        scope = env.graph
    type = node.outputs[0].type
    return GroupLowering(env, nodes, scope, outer, Frame.of(type.sizes, type.layout))


def close_group(lowering: GroupLowering, node: Node, output: Frame | None = None) -> Kernel:
    """The kernel of a walked group; its outputs get buffers, written through the frame `output` (that of the group)."""
    env = lowering.env
    frame = output or lowering.frame
    outputs = node.body.outputs if node.body is not None else tuple(v.name for v in node.outputs)
    stores = []
    for inner, value in zip(outputs, node.outputs, strict=True):
        view = env.views.get(value.name) or env.new_buffer(value.name, value.type)
        if output is not None:
            view = _kept_axes(view, output)
        stores.append(Store(lowering.operand(inner), frame.access(view)))
    space = lowering.frame.dimensions + lowering.red_dims
    return Kernel(
        node.name,
        space,
        phases(stores, _loops(space, env.tile_elements)),
        lowering.contraction,
        lowering.macs,
        node.sources,
    )


def _kept_axes(view: View, frame: Frame) -> View:
    """The result of a reduction, seen with the reduced axes as extent 1."""
    seen = reshape(view, frame.shape)
    if seen is None:
        raise InternalError(f"{view.buffer} cannot be seen as {frame.shape}")
    return seen


def _loops(space: tuple[Dimension, ...], tile_elements: int) -> Callable[[Expression], tuple[str, ...]]:
    """Folds loop over their dimensions; reductions only over those that do not fit into one tile."""
    extents = {d.name: d.extent for d in space}

    def looped(expression: Expression) -> tuple[str, ...]:
        if expression.op.startswith("vfold"):
            return expression.dims
        if not expression.op.startswith("vred"):
            return ()
        elements = 1
        for name in expression.dims:
            elements *= extents[name]
        return expression.dims if elements > tile_elements else ()

    return looped


def element_wise(lowering: GroupLowering, node: Node) -> Expression | float:
    """The expression of an element-wise node. Raises `UnsupportedError` for what the vector cores cannot do."""
    source = lowering.type_of(node.inputs[0]).dtype
    operands = tuple(lowering.operand(name) for name in node.inputs)
    if node.op == "cast":
        return _cast(lowering, operands[0], source.kind, node.output.type.dtype.kind)
    if node.op in FLOAT_ONLY and source.kind != "float":
        raise UnsupportedError(
            f"{node.op} on {source.name} has no vector instruction",
            where=f"node {', '.join(node.sources) or node.name}",
            hint="cast to a floating-point type first",
        )
    return MACROS[node.op](lowering.builder, operands, node.attributes)


def _cast(lowering: GroupLowering, value: Expression | float, source: str, target: str) -> Expression | float:
    builder = lowering.builder
    if isinstance(value, float):
        return value
    if target == "float":
        return value if source == "float" else builder.op("vtofloat", value)
    if target == "bool":
        return builder.op("vnot", builder.op("veq", value, 0.0, is_float=False), is_float=False) if source != "bool" else value
    return builder.op("vtoint", value, is_float=False) if source == "float" else value


def is_element_wise(node: Node) -> bool:
    """Whether a node computes each element of its output from the same element of its inputs."""
    return node.op in MACROS or node.op == "cast"


def access_of(lowering: GroupLowering, name: str) -> Access:
    """The aligned access of a value from outside the group."""
    return lowering.frame.access(lowering.view(name))


def category(node: Node) -> str:
    """The category of a node's row."""
    return row(node.op).category
