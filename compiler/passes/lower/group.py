"""Lowering one fused group: an optional anchor op with element-wise ops before and after it, as one kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from birc.compiler.ir.graph import GROUP, Graph, Node
from birc.compiler.ir.plan import Access, Contraction, Dimension, Index, Kernel, View
from birc.compiler.ir.types import TensorType
from birc.compiler.passes.lower.casts import EXACT, cast, rounded, wide_cast
from birc.compiler.passes.lower.environment import Environment
from birc.compiler.passes.lower.expression import Builder, Expression, Store, moving, phases
from birc.compiler.passes.lower.frame import Frame, unit, word_of
from birc.compiler.passes.lower.integers import INTEGER_MACROS, is_word, select
from birc.compiler.passes.lower.macros import MACROS
from birc.compiler.passes.lower.masks import late_mask
from birc.compiler.passes.lower.ranges import Ranges, body_inputs, graph_ranges
from birc.compiler.passes.lower.views import reshape
from birc.compiler.passes.lower.wide import WIDE_MACROS, Wide, choose, extended
from birc.runtime.dtypes import DType
from birc.runtime.errors import InternalError

NEUTRAL = {"vredsum": 0.0, "vredprod": 1.0, "vredmax": -math.inf, "vredmin": math.inf}
CASTS = ("cast", "convert")
INTEGER_NEUTRAL = NEUTRAL | {"vredmax": float(-(1 << 31))}


@dataclass(slots=True)
class GroupLowering:
    """What is known of the kernel while its group is walked. An anchor sets frame, red dims and contraction.

    `whole_dims` are those that statistics of rows have beside the frame's. `loads` are the operands from outside,
    `values` what the group computes. With `keeps_sums` a softmax at the end of the group leaves `row_sums`, by which
    whoever reads its rows divides. `neighbours` are dimensions of a convolution along which neighbours belong to one
    sample. `stores` are those of results that do not have the shape of the frame.
    """

    env: Environment
    nodes: tuple[Node, ...]
    scope: Graph
    outer: dict[str, str]
    frame: Frame
    ranges: Ranges
    builder: Builder = field(default_factory=Builder)
    loads: dict[str, Expression | float] = field(default_factory=dict)
    values: dict[str, Expression | float | Wide] = field(default_factory=dict)
    red_dims: tuple[Dimension, ...] = ()
    whole_dims: tuple[Dimension, ...] = ()
    contraction: Contraction | None = None
    macs: int = 0
    keeps_sums: bool = False
    row_sums: Expression | None = None
    neighbours: tuple[str, ...] = ()
    stores: dict[str, list[Store]] = field(default_factory=dict)

    def type_of(self, name: str) -> TensorType:
        """The type of a value of the body."""
        return self.scope.type_of(name)

    def view(self, name: str) -> View:
        """The view of a value that comes from outside the group."""
        return self.env.view(self.outer[name])

    def operand(self, name: str) -> Expression | float:
        """A value of the body as an expression over the space, with the digits that its type has.

        What is computed on the way within one ONNX node keeps all digits.
        """
        if name not in self.values:
            if name not in self.loads:
                self.loads[name] = self.env.load(self.builder, self.frame, self.outer[name])
            return self.loads[name]
        value, type, producer = self.values[name], self.type_of(name), self.scope.producer(name)
        if isinstance(value, Wide):
            raise InternalError(f"{name} does not fit a lane", where=self.scope.name)
        if isinstance(value, float) or producer is None or self.env.storage(type) != type.dtype.name:
            return value
        is_inner = all(user.sources == producer.sources for user in self.scope.users(name))
        if producer.op in EXACT or (is_inner and producer.op not in CASTS):
            return value
        return rounded(self.builder, value, type.dtype)

    def is_wide(self, name: str) -> bool:
        """Whether a value has integers of 64 bits that may not fit a lane."""
        return self.env.is_wide(name, self.ranges, self.type_of(name))

    def wide(self, name: str) -> Wide:
        """An integer value of the body as two words."""
        if name not in self.values and self.is_wide(name):
            return self.env.load_words(self.builder, self.frame, self.outer[name])
        value = self.values.get(name)
        return value if isinstance(value, Wide) else extended(self.builder, self.operand(name), self.is_word(name))

    def is_word(self, name: str) -> bool:
        """Whether lanes hold a value as unsigned words."""
        return is_word(self.type_of(name).dtype)

    def expression(self, name: str) -> Expression:
        """As `operand`, but never an immediate."""
        value = self.operand(name)
        return value if isinstance(value, Expression) else self.builder.op("vmov", value)

    def reduce(self, mnemonic: str, value: Expression, dims: tuple[str, ...]) -> Expression:
        """A reduction over dimensions of the space, whether or not they fit into one tile.

        A value that does not move along one of them is repeated first. Elements that the last tile of a loop has
        beyond the end are replaced by the neutral element.
        """
        if self.contraction is not None:
            return self._reduce_tiles(mnemonic, value, dims)
        repeated = tuple(name for name in dims if name not in moving(value))
        if repeated:
            zero = self._everywhere(0.0, value.is_float, repeated)
            value = self.builder.op("vadd", value, zero, is_float=value.is_float)
        extents = {d.name: d.extent for d in self.frame.dimensions}
        if math.prod(extents[name] for name in dims) <= self.env.tile_elements:
            return self.builder.reduce(mnemonic, value, dims)
        if mnemonic == "vredmin" and not value.is_float:
            # -1 - x mirrors the integers: the greatest has no FP32 immediate, the least has.
            mirrored = self.builder.op("vsub", -1.0, value, is_float=False)
            return self.builder.op("vsub", -1.0, self.reduce("vredmax", mirrored, dims), is_float=False)
        inside = self._everywhere(1.0, False, dims)
        neutral = NEUTRAL[mnemonic] if value.is_float else INTEGER_NEUTRAL[mnemonic]
        masked = self.builder.op("vsel", inside, value, neutral, is_float=value.is_float)
        return self.builder.reduce(mnemonic, masked, dims)

    def _reduce_tiles(self, mnemonic: str, value: Expression, dims: tuple[str, ...]) -> Expression:
        """A reduction over the columns of a product: the tiles of a row are folded into one, and that is reduced."""
        columns = math.prod(d.extent for d in self.frame.dimensions if d.name in dims)
        if columns <= self.env.tile_columns:
            return self.builder.reduce(mnemonic, value, dims)
        folded = self.builder.fold(mnemonic.replace("vred", "vfold"), value, dims)
        return self.builder.reduce(mnemonic, folded, dims)

    def _everywhere(self, number: float, is_float: bool, dims: tuple[str, ...]) -> Expression:
        """One number at every point of some dimensions; beyond their ends it reads as 0."""
        element = "f32" if is_float else "i32"
        shape = tuple(d.extent if d.name in dims else 1 for d in self.frame.dimensions)
        index = tuple(unit(d.name) if d.name in dims else Index() for d in self.frame.dimensions)
        return self.builder.load(Access(self.env.splat(number, element, shape), index), is_float)


Anchor = Callable[[GroupLowering, Node], "Expression | Wide"]


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
    ranges = env.ranges if node.body is None else graph_ranges(node.body, body_inputs(node, env.ranges))
    return GroupLowering(env, nodes, scope, outer, Frame.of(type.sizes, type.layout), ranges)


def close_group(lowering: GroupLowering, node: Node, output: Frame | None = None) -> Kernel:
    """The kernel of a walked group; its outputs get buffers, written through the frame `output` (that of the group)."""
    frame = output or lowering.frame
    stores = group_stores(lowering, node, output)
    if lowering.row_sums is not None:
        reduced = set(lowering.row_sums.dims)
        shape = tuple(1 if set(frame.names_of_axis(axis)) <= reduced else n for axis, n in enumerate(frame.shape))
        stores.append(Store(lowering.row_sums, frame.access(lowering.env.new_row_sums(node.name, shape))))
    return group_kernel(lowering, node, stores)


def group_stores(lowering: GroupLowering, node: Node, output: Frame | None = None) -> list[Store]:
    """The stores of the results of a walked group, through the frame `output` (that of the group)."""
    frame = output or lowering.frame
    outputs = node.body.outputs if node.body is not None else tuple(v.name for v in node.outputs)
    stores = []
    for inner, value in zip(outputs, node.outputs, strict=True):
        if inner in lowering.stores:
            stores += lowering.stores[inner]
            continue
        view = lowering.env.target(value.name, value.type)
        if output is not None:
            view = _kept_axes(view, output)
        stored, access = lowering.values[inner], frame.access(view)
        if isinstance(stored, Wide):
            stores += [Store(stored.words[part], word_of(access, part)) for part in (1, 0)]
        else:
            stores.append(Store(stored, access))
    return stores


def group_kernel(lowering: GroupLowering, node: Node, stores: Sequence[Store]) -> Kernel:
    """The kernel of a walked group that ends in these stores."""
    space = lowering.frame.dimensions + lowering.red_dims + lowering.whole_dims
    return Kernel(
        node.name,
        space,
        phases(stores, _loops(space, lowering.env.tile_elements), keep_tiles=lowering.contraction is not None),
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


def element_wise(lowering: GroupLowering, node: Node) -> Expression | float | Wide:
    """The expression of an element-wise node."""
    source = lowering.type_of(node.inputs[0]).dtype
    if any(lowering.is_wide(name) for name in (*node.inputs, node.name)):
        result = _of_words(lowering, node, source)
        return result.low if isinstance(result, Wide) and not lowering.is_wide(node.name) else result
    operands = tuple(lowering.operand(name) for name in node.inputs)
    if node.op == "where" and lowering.contraction is not None:
        operands = (_condition(lowering, node.inputs[0], *operands), *operands[1:])
    if node.op in CASTS:
        return cast(lowering.builder, lowering.expression(node.inputs[0]), source, node)
    if node.op == "where" and not node.output.type.dtype.is_float:
        return select(lowering.builder, *operands)
    if source.is_integer and node.op in INTEGER_MACROS:
        return INTEGER_MACROS[node.op](lowering.builder, operands, node.attributes, source)
    return MACROS[node.op](lowering.builder, operands, node.attributes)


def _condition(lowering: GroupLowering, name: str, *operands: Expression | float) -> Expression | float:
    """The condition of a choice between the products and a number; of a constant one the columns that matter."""
    load, *choices = operands
    constant = lowering.env.graph.constants.get(lowering.outer.get(name, ""))
    choosing = [isinstance(choice, Expression) for choice in choices]
    columns = lowering.frame.shape[-1]
    if constant is None or name in lowering.values or choosing.count(True) != 1 or not isinstance(load, Expression):
        return load
    if constant.data.shape[-1:] != (columns,) or columns <= lowering.env.tile_columns:
        return load
    (column,) = lowering.frame.names_of_axis(len(lowering.frame.shape) - 1)
    step = lowering.env.tile_columns
    return late_mask(lowering.builder, constant.data, load, column, step, keeps_first=choosing[0])


def _of_words(lowering: GroupLowering, node: Node, source: DType) -> Expression | Wide:
    """An element-wise node with operands or a result that no lane holds."""
    b = lowering.builder
    if node.op in CASTS:
        name = node.inputs[0]
        value = lowering.expression(name) if source.is_float else lowering.wide(name)
        return wide_cast(b, value, source, node)
    if node.op == "where":
        condition, *choices = node.inputs
        return choose(b, lowering.operand(condition), *(lowering.wide(name) for name in choices))
    return WIDE_MACROS[node.op](b, tuple(lowering.wide(name) for name in node.inputs), node.attributes, source)


def node_name(node: Node) -> str:
    """A node as errors name it: by the ONNX nodes that it stands for."""
    return f"node {', '.join(node.sources) or node.name}"


def is_element_wise(node: Node) -> bool:
    """Whether a node computes each element of its output from the same element of its inputs."""
    return node.op in MACROS or node.op in INTEGER_MACROS or node.op in CASTS
