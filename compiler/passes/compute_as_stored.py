"""Pass: element-wise nodes on images that are seen with channels first are computed as these lie: channels last."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import ClassVar, Final

from birc.compiler.ir.attributes import integers
from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.ir.table import row
from birc.compiler.passes.base import Pass, PassResult, finish_edit
from birc.compiler.passes.choose_layouts import CHANNELS_LAST, IMAGE_OPS

TO_LAST: Final = CHANNELS_LAST
"""The order of dimensions by which an image with channels first is seen with channels last."""
TO_FIRST: Final = (0, 3, 1, 2)
"""And back."""


@dataclass(frozen=True, slots=True)
class ComputeAsStored(Pass):
    """Element-wise nodes on transposed views of images, channels first, take what the views are of, channels last.

    So a sum joins the product that makes one of its operands, and what follows finds channels side by side. It is done
    where all readers are content with channels last: ops on images, transposes back, and other such nodes.

    before:
        graph "g" {
          input %x : f32[1,4,4,2]
          input %r : f32[1,4,4,2]
          %p : f32[1,2,4,4] = transpose(%x) {perm = [0, 3, 1, 2]}
          %q : f32[1,2,4,4] = transpose(%r) {perm = [0, 3, 1, 2]}
          %s : f32[1,2,4,4] = add(%p, %q)
          %y : f32[1,2,4,4] = lrn(%s) {size = 3, alpha = 0.1, beta = 0.5, k = 1.0}
          output %y
        }
    after:
        graph "g" {
          input %x : f32[1,4,4,2]
          input %r : f32[1,4,4,2]
          %s.1 : f32[1,4,4,2] = add(%x, %r)
          %s.2 : f32[1,2,4,4] = transpose(%s.1) {perm = [0, 3, 1, 2]}
          %y : f32[1,2,4,4] = lrn(%s.2) {size = 3, alpha = 0.1, beta = 0.5, k = 1.0}
          output %y
        }
    """

    name: ClassVar[str] = "compute_as_stored"

    def run(self, graph: Graph) -> PassResult:
        moved = _moved(graph)
        if not moved:
            return PassResult(graph, False)
        editor = GraphEditor(graph, self.name)
        stored: dict[str, str] = {}
        for node in moved:
            operands = [_as_stored(editor, node, name, stored) for name in node.inputs]
            stored[node.name] = editor.add(
                node.op, operands, node.attributes, stem=node.name, sources=node.sources, before=node
            )
        for node in reversed(moved):
            _replace(editor, node, stored[node.name])
        editor.drop_unused()
        return PassResult(finish_edit(editor, graph), True, {"nodes": len(moved)})


def _moved(graph: Graph) -> tuple[Node, ...]:
    """The nodes that are computed with channels last, in the order of the graph."""
    found = {node.name: node for node in graph.nodes if _is_elementwise_on_image(graph, node)}
    while True:
        kept = {name: node for name, node in found.items() if _can_move(graph, node, found.keys())}
        if len(kept) == len(found):
            return tuple(kept.values())
        found = kept


def _is_elementwise_on_image(graph: Graph, node: Node) -> bool:
    type = node.output.type
    is_image = type.rank == len(CHANNELS_LAST) and type.num_elements > 1
    return is_image and row(node.op).category == "elementwise" and node.name not in graph.outputs


def _can_move(graph: Graph, node: Node, moved: Set[str]) -> bool:
    """Whether operands lie channels last, one of them under a view, and all readers are content with that."""
    computed = [name for name in node.present_inputs if graph.type_of(name).num_elements > 1]
    seen = [name for name in computed if name in moved or _is_turned(graph.producer(name), TO_FIRST)]
    if not seen or len(seen) + sum(graph.type_of(name).layout == CHANNELS_LAST for name in computed) < len(computed):
        return False
    if any(graph.type_of(name).sizes != node.output.type.sizes for name in computed):
        return False
    return all(
        user.name in moved
        or user.op in IMAGE_OPS
        or user.output.type.layout == CHANNELS_LAST
        or _is_turned(user, TO_LAST)
        for user in graph.users(node.name)
    )


def _is_turned(node: Node | None, perm: tuple[int, ...]) -> bool:
    return node is not None and node.op == "transpose" and integers(node.attributes, "perm") == perm


def _as_stored(editor: GraphEditor, node: Node, name: str, stored: Mapping[str, str]) -> str:
    """The operand of a node with channels last."""
    if not name or editor.type_of(name).num_elements == 1:
        return name
    producer = editor.producer(name)
    if producer is not None and _is_turned(producer, TO_FIRST):
        return producer.inputs[0]
    return stored[name] if name in stored else editor.add("transpose", (name,), {"perm": TO_LAST}, before=node)


def _replace(editor: GraphEditor, node: Node, stored: str) -> None:
    """Let what reads the image read it as it is stored, through a view where it wants channels first."""
    for user in editor.users(node.name):
        if _is_turned(user, TO_LAST):
            editor.replace(user, stored)
    if not editor.is_used(node.name):
        editor.drop(node, "merged", stored)
        return
    seen = editor.add("transpose", (stored,), {"perm": TO_FIRST}, stem=node.name, before=node)
    editor.replace(node, seen)
