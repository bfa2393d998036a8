"""Pass: a product whose result is small beside its depth is cut along the depth, a part for each die."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.passes.base import Pass, PassResult, finish_edit

FEWEST_ROWS = 64
"""With fewer the product is over before the sum of its parts would begin."""


@dataclass(frozen=True, slots=True)
class DivideDepth(Pass):
    """A deep product with constant weights becomes a batch of products of `parts` of its depth, and their sum.

    Dies that divide the depth exchange sums of rows x columns; those that divide columns exchange the operand before,
    rows x depth. It is done where the depth is more than `parts` times the columns and no batch is there to divide;
    with `square` also where it is no less than the columns of all products that read the operand. That is as much to
    exchange, but behind heads that the dies have divided their part of the depth is there. A constant that is added to
    the result is added to the parts in shares, by kernels that wait for loads: the one that adds up the parts, for a
    norm, has more to do.

    before:
        graph "g" {
          input %x : f32[64,4]
          const %w : f32[4,1] = [1.0, 2.0, 3.0, 4.0]
          %y : f32[64,1] = matmul(%x, %w)
          output %y
        }
    after:
        graph "g" {
          input %x : f32[64,4]
          const %w.parts : f32[2,2,1] = [1.0, 2.0, 3.0, 4.0]
          %y.parts : f32[64,2,2] = reshape(%x) {shape = [64, 2, 2]}
          %y.parts.1 : f32[2,64,2] = transpose(%y.parts) {perm = [1, 0, 2]}
          %y.parts.2 : f32[2,64,1] = matmul(%y.parts.1, %w.parts)
          %y.parts.3 : f32[1,64,1] = slice(%y.parts.2) {starts = [0, 0, 0], ends = [1, 64, 1], steps = [1, 1, 1]}
          %y.parts.4 : f32[64,1] = reshape(%y.parts.3) {shape = [64, 1]}
          %y.parts.5 : f32[1,64,1] = slice(%y.parts.2) {starts = [1, 0, 0], ends = [2, 64, 1], steps = [1, 1, 1]}
          %y.parts.6 : f32[64,1] = reshape(%y.parts.5) {shape = [64, 1]}
          %y : f32[64,1] = add(%y.parts.4, %y.parts.6)
          output %y
        }
    """

    name: ClassVar[str] = "divide_depth"
    parts: int = 2
    square: bool = False

    def run(self, graph: Graph) -> PassResult:
        deep = self.deep(graph)
        if not deep:
            return PassResult(graph, False)
        editor = GraphEditor(graph, self.name)
        for node in deep:
            self._divide(editor, node)
        editor.drop_unused()
        return PassResult(finish_edit(editor, graph), True, {"divided": len(deep)})

    def deep(self, graph: Graph) -> list[Node]:
        """The products of a graph that are divided."""
        return [node for node in graph.nodes if self._divides(graph, node) and self._is_deep(graph, node)]

    def _divides(self, graph: Graph, node: Node) -> bool:
        if node.op != "matmul" or self.parts < 2:
            return False
        weights = graph.constants.get(node.inputs[1])
        if weights is None or weights.type.rank != 2 or weights.is_splat or not weights.type.dtype.is_float:
            return False
        *batch, rows, depth = graph.type_of(node.inputs[0]).sizes
        return depth % self.parts == 0 and math.prod(batch) == 1 and rows >= FEWEST_ROWS

    def _is_deep(self, graph: Graph, node: Node) -> bool:
        depth, columns = _depth_and_columns(graph, node)
        if depth > self.parts * columns:
            return True
        beside = [user for user in graph.users(node.inputs[0]) if user.op == "matmul"]
        return self.square and depth >= sum(_depth_and_columns(graph, user)[1] for user in beside)

    def _divide(self, editor: GraphEditor, node: Node) -> None:
        x, weights = node.inputs
        depth, columns = editor.constants[weights].type.sizes
        rows = editor.type_of(x).sizes[-2]

        def add(op: str, *inputs: str, **attributes: tuple[int, ...]) -> str:
            stem = f"{node.name}.parts"
            return editor.add(op, inputs, attributes, stem=stem, sources=node.sources, before=node)

        part = depth // self.parts
        data = editor.constants[weights].data.reshape(self.parts, part, columns)
        of_parts = add("transpose", add("reshape", x, shape=(rows, self.parts, part)), perm=(1, 0, 2))
        products = add("matmul", of_parts, editor.add_constant(data, f"{weights}.parts"))
        user = self._biased(editor, node)
        if user is not None:
            bias = next(name for name in user.inputs if name in editor.constants)
            data = np.asarray(editor.constants[bias].data)
            share = editor.add_constant((data / self.parts).astype(data.dtype), f"{bias}.share")
            products = add("add", products, share)
            node = user
        total = ""
        for number in range(self.parts):
            box = add("slice", products, starts=(number, 0, 0), ends=(number + 1, rows, columns), steps=(1, 1, 1))
            one = add("reshape", box, shape=node.output.type.sizes)
            total = add("add", total, one) if total else one
        editor.replace(node, total)

    def _biased(self, editor: GraphEditor, node: Node) -> Node | None:
        """The node that adds a constant for each column to the result alone, if its shares are exact."""
        users = editor.users(node.name)
        if len(users) != 1 or node.name in editor.outputs or users[0].op != "add" or self.parts.bit_count() > 1:
            return None
        (user,) = users
        constants = [editor.constants[name] for name in user.inputs if name in editor.constants]
        is_bias = len(constants) == 1 and constants[0].type.rank <= 1
        return user if is_bias and user.output.type == node.output.type else None


def _depth_and_columns(graph: Graph, product: Node) -> tuple[int, int]:
    *_, depth, columns = graph.type_of(product.inputs[1]).sizes
    return depth, columns
