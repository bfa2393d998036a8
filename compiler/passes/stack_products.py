"""Pass: the sum of two pointwise convolutions is one, of the pixels of both side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from birc.compiler.ir.attributes import AttributeValue, integers
from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.passes.base import Pass, PassResult, finish_edit
from birc.compiler.passes.lower.panels import is_pointwise


@dataclass(frozen=True, slots=True)
class StackProducts(Pass):
    """The shortcut of a residual block that is a convolution itself is added up in the accumulator.

    The weights lie one below the other along the depth. Strides become views, and nobody makes the concatenation: the
    product takes its pieces where they lie.

    before:
        graph "g" {
          input %x : f32[1,2,1,1]
          input %r : f32[1,1,3,3]
          const %v : f32[1,2,1,1] = [1.0, 2.0]
          const %w : f32[1,1,1,1] = [3.0]
          const %b : f32[1] = [4.0]
          %p : f32[1,1,1,1] = conv2d(%x, %v, %b) {stride = [1, 1], pads = [0, 0, 0, 0], dilation = [1, 1], group = 1}
          %q : f32[1,1,1,1] = conv2d(%r, %w) {stride = [3, 3], pads = [0, 0, 0, 0], dilation = [1, 1], group = 1}
          %y : f32[1,1,1,1] = add(%p, %q)
          output %y
        }
    after:
        graph "g" {
          input %x : f32[1,2,1,1]
          input %r : f32[1,1,3,3]
          const %v.stacked : f32[1,3,1,1] = [1.0, 2.0, 3.0]
          const %y.bias : f32[1] = [4.0]
          %y.stacked : f32[1,1,1,1] = slice(%r) {starts = [0, 0, 0, 0], ends = [1, 1, 1, 1], steps = [1, 1, 3, 3]}
          %y.stacked.1 : f32[1,3,1,1] = concat(%x, %y.stacked) {axis = 1}
          %y : f32[1,1,1,1] = conv2d(%y.stacked.1, %v.stacked, %y.bias) {stride = [1, 1], pads = [0, 0, 0, 0], dilation = [1, 1], group = 1}
          output %y
        }
    """  # noqa: E501 - a line a node

    name: ClassVar[str] = "stack_products"

    def run(self, graph: Graph) -> PassResult:
        sums = [(node, pair) for node in graph.nodes if (pair := _pair(graph, node)) is not None]
        if not sums:
            return PassResult(graph, False)
        editor = GraphEditor(graph, self.name)
        for node, pair in sums:
            _stack(editor, node, pair)
        editor.drop_unused()
        return PassResult(finish_edit(editor, graph), True, {"stacked": len(sums)})


def _pair(graph: Graph, node: Node) -> tuple[Node, Node] | None:
    """The convolutions whose sum a node is, and of which nobody else reads; None where it is no such sum."""
    if node.op != "add":
        return None
    first, second = (graph.producer(name) for name in node.inputs)
    if first is None or second is None or first is second:
        return None
    is_plain = first.output.type == second.output.type == node.output.type
    return (first, second) if is_plain and all(_is_pointwise(graph, one) for one in (first, second)) else None


def _is_pointwise(graph: Graph, node: Node) -> bool:
    """Whether a node that one other reads is a convolution of single pixels, all there, with constant weights."""
    if node.op != "conv2d" or graph.only_user(node) is None or not node.output.type.dtype.is_float:
        return False
    constants = node.present_inputs[1:]
    return all(name in graph.constants for name in constants) and is_pointwise(graph, node, constants[0])


def _stack(editor: GraphEditor, node: Node, pair: tuple[Node, Node]) -> None:
    sources = [source for one in (*pair, node) for source in one.sources]
    layout = node.output.type.layout

    def add(op: str, *inputs: str, **attributes: AttributeValue) -> str:
        return editor.add(op, inputs, attributes, stem=f"{node.name}.stacked", sources=sources, before=node)

    def pixels(product: Node) -> str:
        """The pixels that a convolution takes."""
        x, (y_step, x_step) = product.inputs[0], integers(product.attributes, "stride")
        if y_step == x_step == 1:
            return x
        images, channels, *_ = editor.type_of(x).sizes
        *_, rows, columns = product.output.type.sizes
        ends = (images, channels, (rows - 1) * y_step + 1, (columns - 1) * x_step + 1)
        return add("slice", x, starts=(0, 0, 0, 0), ends=ends, steps=(1, 1, y_step, x_step))

    weights = np.concatenate([editor.constants[product.inputs[1]].data for product in pair], axis=1)
    biases = [editor.constants[name].data for product in pair for name in product.present_inputs[2:]]
    constants = [editor.add_constant(weights, f"{pair[0].inputs[1]}.stacked")]
    if biases:
        constants.append(editor.add_constant(np.sum(biases, axis=0, dtype=biases[0].dtype), f"{node.name}.bias"))
    operand = editor.lay_out(add("concat", *map(pixels, pair), axis=1), layout)
    plain: dict[str, AttributeValue] = {"stride": (1, 1), "pads": (0, 0, 0, 0), "dilation": (1, 1), "group": 1}
    editor.replace(node, editor.lay_out(add("conv2d", operand, *constants, **plain), layout))
