"""Pass: images whose channels are innermost are reduced over one axis after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from birc.compiler.ir.attributes import integers
from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.passes.base import Pass, PassResult, finish_edit
from birc.compiler.passes.choose_layouts import CHANNELS_LAST
from birc.compiler.passes.memory_order import seen_order

PIXELS: Final = (2, 3)
"""The axes of an image that are no channels."""

MOST_PIXELS: Final = 256
"""Pixels up to which a tile of 4,096 elements has some 16 channels of all of them, side by side in memory."""

_IN_STEPS: Final = frozenset({"reduce_sum", "reduce_mean", "reduce_max", "reduce_min"})


@dataclass(frozen=True, slots=True)
class ReduceImages(Pass):
    """A reduction over the pixels of a large image that lies channels last is one over columns, then one over rows.

    A tile has all that is reduced: of many pixels it has few channels, each of them far from the next pixel's. Of a row
    of pixels it has many.

    before:
        graph "g" {
          input %x : f32[1,4,24,24]
          %p : f32[1,4,24,24]{0,2,3,1} = lrn(%x) {size = 3, alpha = 0.1, beta = 0.5, k = 1.0}
          %y : f32[1,4] = reduce_mean(%p) {axes = [2, 3], keepdims = 0}
          output %y
        }
    after:
        graph "g" {
          input %x : f32[1,4,24,24]
          %p : f32[1,4,24,24]{0,2,3,1} = lrn(%x) {size = 3, alpha = 0.1, beta = 0.5, k = 1.0}
          %y.1 : f32[1,4,24,1]{0,2,3,1} = reduce_mean(%p) {axes = [3], keepdims = 1}
          %y : f32[1,4] = reduce_mean(%y.1) {axes = [2, 3], keepdims = 0}
          output %y
        }
    """

    name: ClassVar[str] = "reduce_images"

    def run(self, graph: Graph) -> PassResult:
        found = [node for node in graph.nodes if _is_over_many_pixels(graph, node)]
        if not found:
            return PassResult(graph, False)
        editor = GraphEditor(graph, self.name)
        for node in found:
            attributes = {**node.attributes, "axes": PIXELS[1:], "keepdims": 1}
            row = editor.add(node.op, node.inputs, attributes, stem=node.name, sources=node.sources, before=node)
            editor.update(node, inputs=(editor.lay_out(row, CHANNELS_LAST),))
        return PassResult(finish_edit(editor, graph), True, {"reductions": len(found)})


def _is_over_many_pixels(graph: Graph, node: Node) -> bool:
    if node.op not in _IN_STEPS or integers(node.attributes, "axes") != PIXELS:
        return False
    type = graph.type_of(node.inputs[0])
    height, width = (type.sizes[axis] for axis in PIXELS) if type.rank == len(CHANNELS_LAST) else (1, 1)
    is_image = seen_order(graph, node.inputs[0]) == CHANNELS_LAST and type.dtype.is_float
    return is_image and min(height, width) > 1 and height * width > MOST_PIXELS
