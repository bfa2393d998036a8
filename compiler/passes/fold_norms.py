"""Pass: norms between products become statistics that the first one leaves, and scales that the next one applies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import ClassVar

import ml_dtypes
import numpy as np

from birc.compiler.ir.attributes import AttributeValue, integer, integers, number
from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.passes.base import Pass, PassResult, finish_edit
from birc.compiler.passes.fuse import LARGEST_GROUP
from birc.compiler.passes.lower.lower import is_element_wise_op
from birc.compiler.passes.lower.moments import pieces_of

MOST_PIECES = 4
"""Pieces in which a product loads the moments of its rows at most: each takes registers."""


@dataclass(frozen=True, slots=True)
class _Norm:
    """A norm that can go: the products that read it, their weights, and what it scales and shifts columns by.

    `of_product` tells whether a product makes its rows, `scales_rows` whether these are scaled as they are made, and
    not the weights.
    """

    node: Node
    products: tuple[Node, ...]
    weights: tuple[np.ndarray, ...]
    of_product: bool
    scales_rows: bool
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

    Of weights that are a view no scaled copy is made: logits come of the transposed table of words, which may be as
    large as all other weights, and which the embeddings read, too. Instead, if nobody
    else reads the rows, they are scaled as they are made, (x scale) W for x S.

    If element-wise nodes make x, their kernel has whole rows and leaves D and D mean. A product leaves statistics of
    parts of rows, as it stores its tiles, and the products that read the rows add them up. `part` are the columns of a
    tile. Without `scales_rows` norms of which it would be the rows that are scaled stay.

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
          %y.matmul : f32[2,1] = matmul(%x, %w.scaled)
          %y : f32[2,1] = scale_by_moments(%y.matmul, %n.rows, %w.sums, %y.bias) {count = 4, epsilon = 1e-05}
          output %y
        }
    """

    name: ClassVar[str] = "fold_norms"
    part: int = 64
    scales_rows: bool = True

    def applies(self, graph: Graph) -> bool:
        """Whether there is such a norm."""
        return any(self._norm(graph, node) is not None for node in graph.nodes)

    def ways(self, graph: Graph) -> tuple[FoldNorms, ...]:
        """The pass and, where it scales some rows and some weights, the one for the latter alone; none for no norm."""
        kinds = {norm.scales_rows for norm in self._norms(graph)}
        return (self, replace(self, scales_rows=False))[: len(kinds)]

    def _norms(self, graph: Graph) -> list[_Norm]:
        return [norm for node in graph.nodes if (norm := self._norm(graph, node)) is not None]

    def run(self, graph: Graph) -> PassResult:
        found = self._norms(graph)
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
        weights = [found for user in users if (found := _weights(graph, node, user)) is not None]
        if not users or len(weights) < len(users):
            return None
        scale, bias, *_ = (*(np.broadcast_to(c.data, columns) for c in constants if c), np.zeros(columns, np.float32))
        of_product = _is_made(graph, node.inputs[0])
        if of_product and pieces_of(max(1, columns // self.part), self.part) > MOST_PIECES:
            return None
        scales_rows = any(user.inputs[1] not in graph.constants for user in users)
        if scales_rows and not (self.scales_rows and of_product and _is_read_alone(graph, node)):
            return None
        if not _are_finite(scale, bias, *weights):
            return None
        return _Norm(node, users, tuple(weights), of_product, scales_rows, scale, bias)

    def _fold(self, editor: GraphEditor, norm: _Norm) -> None:
        node = editor.producer(norm.node.name) or norm.node  # Its rows may be what another one's product became.
        x = node.inputs[0]
        rows, centred = _Chain(editor, node, "rows"), int(norm.is_centred)
        epsilon = number(node.attributes, "epsilon")
        if norm.of_product:
            count = node.output.type.sizes[-1]
            moments = rows.add("row_moments", x, parts=max(1, count // self.part), centred=centred)
            if norm.scales_rows:
                x = _Chain(editor, node, "scaled").add("mul", x, rows.constant(norm.scale, "scale"))
            for own in _unscaled(editor, norm, x):
                _scale_by_moments(own, norm, moments, {"count": count, "epsilon": epsilon})
            return
        both = rows.add("row_statistics", x, centred=centred, epsilon=epsilon)
        shape = (*node.output.type.sizes[:-1], 1)
        factors = []
        for which in range(1 + norm.is_centred):
            starts, ends = (which, *(0 for _ in shape)), (which + 1, *shape)
            one = rows.add("slice", both, starts=starts, ends=ends, steps=tuple(1 for _ in ends))
            factors.append(rows.add("reshape", one, shape=shape))
        for own in _unscaled(editor, norm, x):
            _scale_by_factors(own, norm, factors)


@dataclass(frozen=True, slots=True)
class _Chain:
    """Adds nodes that come in the place of one; their names begin with its own."""

    editor: GraphEditor
    place: Node
    stem: str = ""

    def add(self, op: str, *inputs: str, **attributes: AttributeValue) -> str:
        """A node."""
        stem = f"{self.place.name}.{self.stem or op}"
        return self.editor.add(op, inputs, attributes, stem=stem, sources=self.place.sources, before=self.place)

    def added(self, value: str, more: Sequence[str]) -> str:
        """The value with others added, one after the other."""
        return reduce(lambda one, other: self.add("add", one, other), more, value)

    def constant(self, array: np.ndarray, what: str) -> str:
        """A constant of the chain."""
        return self.editor.add_constant(np.ascontiguousarray(array, np.float32), f"{self.place.name}.{what}")


@dataclass(frozen=True, slots=True)
class _Unscaled:
    """A product with rows that are not normalised yet, by its `value`; the `sums` of its columns are a constant.

    What is scaled and gets the `shift` comes in the place of `last`: of the product, or of what adds a bias to it.
    """

    chain: _Chain
    value: str
    sums: str
    last: Node
    shift: np.ndarray

    @property
    def shifts(self) -> list[str]:
        """What is added to its columns; nothing where these are zeros."""
        return [self.chain.constant(self.shift, "bias")] if self.shift.any() else []

    def become(self, value: str) -> None:
        """Let a value stand for what came of the product."""
        self.chain.editor.replace(self.last, value)


def _unscaled(editor: GraphEditor, norm: _Norm, rows: str) -> Iterator[_Unscaled]:
    """The products of a norm on what stands for its rows; the weights are scaled where the rows are not."""
    for product, weights in zip(norm.products, norm.weights, strict=True):
        stem, chain = product.inputs[1], _Chain(editor, product)
        if norm.scales_rows:
            name, totals = stem, norm.scale.astype(np.float64) @ _rounded(weights)
        else:
            scaled = _rounded(norm.scale[:, None] * weights)
            name, totals = editor.add_constant(scaled, f"{stem}.scaled"), scaled.sum(0, dtype=np.float64)
        value, sums = chain.add("matmul", rows, name), editor.add_constant(totals.astype(np.float32), f"{stem}.sums")
        yield _Unscaled(chain, value, sums, *_with_bias(editor, product, norm.bias.astype(np.float64) @ weights))


def _rounded(weights: np.ndarray) -> np.ndarray:
    """As the T-core reads them."""
    return weights.astype(ml_dtypes.bfloat16).astype(np.float32)


def _scale_by_moments(own: _Unscaled, norm: _Norm, moments: str, attributes: Mapping[str, AttributeValue]) -> None:
    """A product's result scaled by the moments of its rows."""
    if norm.is_centred:
        inputs = (own.value, moments, own.sums, own.chain.constant(own.shift, "bias"))
        own.become(own.chain.add("scale_by_moments", *inputs, **attributes))
        return
    scaled = own.chain.add("scale_by_moments", own.value, moments, **attributes)
    own.become(own.chain.added(scaled, own.shifts))


def _scale_by_factors(own: _Unscaled, norm: _Norm, factors: Sequence[str]) -> None:
    """The same by the inverse deviations of rows, and minus their means times these."""
    value = own.chain.add("mul", own.value, factors[0])
    if norm.is_centred:
        means = own.chain.add("mul", factors[1], own.sums)
        own.become(own.chain.add("add", value, own.chain.added(means, own.shifts)))
    else:
        own.become(own.chain.added(value, own.shifts))


def _with_bias(editor: GraphEditor, product: Node, shift: np.ndarray) -> tuple[Node, np.ndarray]:
    """What adds a bias to a product that nobody else reads, and both shifts together; or the product and its shift."""
    users = editor.users(product.name)
    if len(users) != 1 or users[0].op != "add" or product.name in editor.outputs:
        return product, shift
    biases = [editor.constants[name].data for name in users[0].inputs if name in editor.constants]
    if len(biases) != 1 or biases[0].shape != shift.shape or users[0].output.type != product.output.type:
        return product, shift
    return users[0], shift + biases[0]


def _weights(graph: Graph, norm: Node, product: Node) -> np.ndarray | None:
    """The weights of a product that reads a norm as its rows: a constant, or a transposed one."""
    if product.op != "matmul" or product.inputs[0] != norm.name:
        return None
    view = graph.producer(product.inputs[1])
    constant = graph.constants.get(product.inputs[1] if view is None else view.inputs[0])
    if constant is None or constant.type.rank != 2 or constant.type.dtype.name != "f32":
        return None
    if view is None:
        return constant.data
    return constant.data.transpose(integers(view.attributes, "perm")) if view.op == "transpose" else None


def _is_read_alone(graph: Graph, norm: Node) -> bool:
    """Whether nobody else reads the rows of a norm."""
    made = graph.producer(norm.inputs[0])
    return made is not None and graph.only_user(made) is norm


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
