"""Pass: norms between products become statistics that the first one leaves, and scales that the next one applies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import ml_dtypes
import numpy as np

from birc.compiler.ir.attributes import AttributeValue, integer, number
from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.passes.base import Pass, PassResult, finish_edit
from birc.compiler.passes.fuse import LARGEST_GROUP
from birc.compiler.passes.lower.lower import is_element_wise_op


@dataclass(frozen=True, slots=True)
class _Norm:
    """A norm that can go: the products that read it, and what it scales and shifts columns by.

    `of_product` tells whether a product makes its rows.
    """

    node: Node
    products: tuple[Node, ...]
    of_product: bool
    scale: np.ndarray
    bias: np.ndarray

    @property
    def is_centred(self) -> bool:
        """Whether it subtracts means."""
        return self.node.op == "layer_norm"


@dataclass(frozen=True, slots=True)
class FoldNorms(Pass):
    """A norm of rows that products alone read is computed by these, and by the kernel that makes the rows.

    norm(x) W = D (x - mean) S + bias W, with S = scale W and D the inverse deviations of the rows: the products read x,
    and scale their rows, D x S - D mean sums(S) + bias W. S is rounded to BF16, as W would be, and then summed: so what
    the mean contributes goes again, whatever the rounding.

    If element-wise nodes make x, their kernel has whole rows and leaves D and D mean. A product leaves statistics of
    parts of rows, as it stores its tiles, and a small kernel adds them up. `part` are the columns of a tile.

    before:
        graph "g" {
          input %a : f32[2,1]
          const %v : f32[1,4] = [1.0, 2.0, 4.0, 7.0]
          const %s : f32[4] = [1.0, 2.0, 1.0, 2.0]
          const %b : f32[4] = [0.5, 0.0, 0.0, 0.0]
          const %w : f32[4,1] = [1.0, 2.0, 3.0, 4.0]
          %x : f32[2,4] = matmul(%a, %v)
          %n : f32[2,4] = layer_norm(%x, %s, %b) {axis = 1, epsilon = 1e-05}
          %y : f32[2,1] = matmul(%n, %w)
          output %y
        }
    after:
        graph "g" {
          input %a : f32[2,1]
          const %v : f32[1,4] = [1.0, 2.0, 4.0, 7.0]
          const %w.scaled : f32[4,1] = [1.0, 4.0, 3.0, 8.0]
          const %w.sums : f32[1] = [16.0]
          const %y.bias : f32[1] = [0.5]
          %x : f32[2,4] = matmul(%a, %v)
          %n.rows : f32[2,2,1] = row_moments(%x) {parts = 1, centred = 1}
          %n.rows.1 : f32[2,2,1] = row_factors(%n.rows) {count = 4, epsilon = 1e-05}
          %n.rows.2 : f32[1,2,1] = slice(%n.rows.1) {starts = [0, 0, 0], ends = [1, 2, 1], steps = [1, 1, 1]}
          %n.rows.3 : f32[2,1] = reshape(%n.rows.2) {shape = [2, 1]}
          %n.rows.4 : f32[1,2,1] = slice(%n.rows.1) {starts = [1, 0, 0], ends = [2, 2, 1], steps = [1, 1, 1]}
          %n.rows.5 : f32[2,1] = reshape(%n.rows.4) {shape = [2, 1]}
          %y.matmul : f32[2,1] = matmul(%x, %w.scaled)
          %y.mul : f32[2,1] = mul(%y.matmul, %n.rows.3)
          %y.mul.1 : f32[2,1] = mul(%n.rows.5, %w.sums)
          %y.add : f32[2,1] = add(%y.mul.1, %y.bias)
          %y : f32[2,1] = add(%y.mul, %y.add)
          output %y
        }
    """

    name: ClassVar[str] = "fold_norms"
    part: int = 64

    def applies(self, graph: Graph) -> bool:
        """Whether there is such a norm."""
        return any(self._norm(graph, node) is not None for node in graph.nodes)

    def run(self, graph: Graph) -> PassResult:
        found = [norm for node in graph.nodes if (norm := self._norm(graph, node)) is not None]
        if not found:
            return PassResult(graph, False)
        editor = GraphEditor(graph, self.name)
        for norm in found:
            self._fold(editor, norm)
        editor.drop_unused()
        return PassResult(finish_edit(editor, graph), True, {"folded": len(found)})

    def _norm(self, graph: Graph, node: Node) -> _Norm | None:
        """The norm of a node; None when it is none that can go."""
        if node.op not in ("layer_norm", "rms_norm") or node.name in graph.outputs:
            return None
        type = node.output.type
        columns, users = type.sizes[-1], graph.users(node.name)
        constants = [graph.constants.get(name) for name in node.inputs[1:]]
        if integer(node.attributes, "axis") != type.rank - 1 or type.dtype.name != "f32" or None in constants:
            return None
        if columns % min(self.part, columns) or not _is_computed(graph, node.inputs[0]):
            return None
        if not users or not all(self._is_scaled(graph, node, user) for user in users):
            return None
        scale, bias, *_ = (*(np.broadcast_to(c.data, columns) for c in constants if c), np.zeros(columns, np.float32))
        of_product = _is_made(graph, node.inputs[0])
        return _Norm(node, users, of_product, scale, bias) if _are_finite(scale, bias) else None

    def _is_scaled(self, graph: Graph, norm: Node, product: Node) -> bool:
        """Whether a product reads a norm as its rows, and has constant weights."""
        if product.op != "matmul" or product.inputs[0] != norm.name:
            return False
        weights = graph.constants.get(product.inputs[1])
        if weights is None or weights.type.rank != 2 or weights.type.dtype.name != "f32":
            return False
        return _are_finite(weights.data)

    def _fold(self, editor: GraphEditor, norm: _Norm) -> None:
        node, x = norm.node, norm.node.inputs[0]
        *rows, columns = node.output.type.sizes

        def add(op: str, name: str, **attributes: AttributeValue) -> str:
            return editor.add(op, (name,), attributes, stem=f"{node.name}.rows", sources=node.sources, before=node)

        centred, epsilon = int(norm.is_centred), number(node.attributes, "epsilon")
        if norm.of_product:
            moments = add("row_moments", x, parts=max(1, columns // self.part), centred=centred)
            both = add("row_factors", moments, count=columns, epsilon=epsilon)
        else:
            both = add("row_statistics", x, centred=centred, epsilon=epsilon)
        factors = []
        for which in range(1 + norm.is_centred):
            starts, ends = (which, *(0 for _ in rows), 0), (which + 1, *rows, 1)
            one = add("slice", both, starts=starts, ends=ends, steps=tuple(1 for _ in ends))
            factors.append(add("reshape", one, shape=(*rows, 1)))
        for product in norm.products:
            _fold_product(editor, norm, product, factors)


@dataclass(frozen=True, slots=True)
class _Chain:
    """Adds nodes that come in the place of one."""

    editor: GraphEditor
    place: Node

    def add(self, op: str, *inputs: str) -> str:
        """A node of two operands."""
        stem = f"{self.place.name}.{op}"
        return self.editor.add(op, inputs, stem=stem, sources=self.place.sources, before=self.place)

    def shifted(self, value: str, shift: np.ndarray) -> str:
        """A value with a number for each column added; as it is where these are zeros."""
        if not shift.any():
            return value
        constant = np.ascontiguousarray(shift, np.float32)
        return self.add("add", value, self.editor.add_constant(constant, f"{self.place.name}.bias"))


def _fold_product(editor: GraphEditor, norm: _Norm, product: Node, factors: Sequence[str]) -> None:
    """The product with rows that are not normalised yet, and its result scaled; a sum behind it takes the shift."""
    name, chain = product.inputs[1], _Chain(editor, product)
    weights = editor.constants[name].data
    folded = (norm.scale[:, None] * weights).astype(ml_dtypes.bfloat16).astype(np.float32)
    weight = editor.add_constant(folded, f"{name}.scaled")
    value = chain.add("mul", chain.add("matmul", norm.node.inputs[0], weight), factors[0])
    last, shift = _with_bias(editor, product, norm.bias.astype(np.float64) @ weights)
    if norm.is_centred:
        sums = np.broadcast_to(folded.sum(0, dtype=np.float64), shift.shape)
        means = chain.add("mul", factors[1], editor.add_constant(sums.astype(np.float32), f"{name}.sums"))
        editor.replace(last, chain.add("add", value, chain.shifted(means, shift)))
    else:
        editor.replace(last, chain.shifted(value, shift))


def _with_bias(editor: GraphEditor, product: Node, shift: np.ndarray) -> tuple[Node, np.ndarray]:
    """What adds a bias to a product that nobody else reads, and both shifts together; or the product and its shift."""
    users = editor.users(product.name)
    if len(users) != 1 or users[0].op != "add" or product.name in editor.outputs:
        return product, shift
    biases = [editor.constants[name].data for name in users[0].inputs if name in editor.constants]
    if len(biases) != 1 or biases[0].shape != shift.shape or users[0].output.type != product.output.type:
        return product, shift
    return users[0], shift + biases[0]


def _is_computed(graph: Graph, name: str) -> bool:
    """Whether a value is that of a product, or of element-wise nodes."""
    node = graph.producer(name)
    return node is not None and (node.op == "matmul" or is_element_wise_op(node.op))


def _is_made(graph: Graph, name: str, steps: int = LARGEST_GROUP) -> bool:
    """Whether a value comes of a product of matrices, by so few element-wise nodes that read nobody else's operands."""
    node = graph.producer(name)
    if node is None or node.op == "matmul":
        return node is not None
    if not is_element_wise_op(node.op) or not steps:
        return False
    inner = (graph.producer(operand) for operand in node.present_inputs)
    alone = (one for one in inner if one is not None and graph.only_user(one) is node)
    return any(one.output.type == node.output.type and _is_made(graph, one.name, steps - 1) for one in alone)


def _are_finite(*arrays: np.ndarray) -> bool:
    return all(bool(np.isfinite(array).all()) for array in arrays)
