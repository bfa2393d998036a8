"""Putting nodes together that one kernel computes without a round trip through memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from birc.compiler.ir.attributes import integer
from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.passes.base import Pass, PassResult, finish_edit
from birc.compiler.passes.lower.lower import MOVEMENTS, ROW_ANCHORS, VIEWS, is_element_wise_op
from birc.compiler.passes.lower.rows import REDUCTIONS
from birc.runtime.machine import Machine

LARGEST_GROUP = 24
"""Nodes a group; more would run out of vector registers."""

LARGEST_WIDE_GROUP = 4
"""Nodes a group where 64-bit integers are between them, which may take two registers and many steps."""

MOST_BEFORE_SOFTMAX = 6
"""Nodes of a product's group that a softmax joins: registers hold the tiles of a row, and little beside them."""

DEPTH_UNIT, LEAST_DEPTH = 64, 128
"""Input buffers hold depths in steps of at least the second, each rounded up to the first at most."""

REGISTER_BITS = 32
"""Narrower integers wrap around only when they are stored."""

SATURATING = frozenset({"quantize"})
"""Ops whose integers are within the range of their type before they are stored."""


@dataclass(slots=True)
class _Draft:
    """A group in the making."""

    nodes: list[Node] = field(default_factory=list)
    anchors: list[Node] = field(default_factory=list)

    @property
    def anchor(self) -> Node | None:
        return self.anchors[0] if self.anchors else None

    @property
    def kind(self) -> str:
        return "+".join(anchor.op for anchor in self.anchors) or "elementwise"


@dataclass(frozen=True, slots=True)
class Fuse(Pass):
    """Element-wise nodes join the kernel of their producer when nobody else reads what lies between them.

    A group has at most one anchor: a product, convolution, pool, norm, reduction or gather; a softmax over the columns
    of a product may be the second. Element-wise nodes follow any anchor but a reduction, and precede a norm or a
    reduction. What makes another operand of a node from one tensor, element by element, comes along: it reads no more
    than the operand. `tile_columns` are those of the T-core, `row_tiles` are what registers hold of a row, and
    `operand_bytes` what an input buffer holds of the other operand (0: no softmax joins).

    before:
        graph "g" {
          input %a : f32[4,8]
          input %b : f32[8,4]
          %c : f32[4,4] = matmul(%a, %b)
          %y : f32[4,4] = relu(%c)
          output %y
        }
    after:
        graph "g" {
          input %a : f32[4,8]
          input %b : f32[8,4]
          %y : f32[4,4] = group(%a, %b) {kind = "matmul"} {
            input %a : f32[4,8]
            input %b : f32[8,4]
            %c : f32[4,4] = matmul(%a, %b)
            %y : f32[4,4] = relu(%c)
            output %y
          }
          output %y
        }
    """

    name: ClassVar[str] = "fuse"
    tile_columns: int = 64
    row_tiles: int = 0
    operand_bytes: int = 0
    element_bytes: int = 4

    def holds_rows_of(self, graph: Graph, product: Node, node: Node) -> bool:
        """Whether a softmax runs over the columns of a product, in tiles of which the SPC holds a whole row."""
        sizes = graph.type_of(node.inputs[0]).sizes
        tiles = max(1, -(-sizes[-1] // self.tile_columns))
        is_last = integer(node.attributes, "axis") == len(sizes) - 1
        depth = graph.type_of(product.inputs[0]).sizes[-1]
        padded = depth + DEPTH_UNIT * -(-depth // LEAST_DEPTH)
        num_bytes = tiles * self.tile_columns * padded * self.element_bytes
        return is_last and sizes[-1] % tiles == 0 and tiles <= self.row_tiles and num_bytes <= self.operand_bytes

    def run(self, graph: Graph) -> PassResult:
        drafts: dict[str, _Draft] = {}
        order: list[_Draft] = []
        for node in graph.nodes:
            if node.op in VIEWS or node.op in MOVEMENTS:
                continue
            draft = _joinable(self, graph, node, drafts)
            if draft is None:
                draft = _Draft()
                order.append(draft)
            for other in _absorbed(self, graph, node, draft, drafts):
                order.remove(other)
                draft.nodes += other.nodes
                drafts.update((value.name, draft) for member in other.nodes for value in member.outputs)
            draft.nodes.append(node)
            if not is_element_wise_op(node.op):
                draft.anchors.append(node)
            for value in node.outputs:
                drafts[value.name] = draft
        fused = [draft for draft in order if len(draft.nodes) > 1 and _is_read(graph, draft.nodes[-1])]
        if not fused:
            return PassResult(graph, False)
        editor = GraphEditor(graph, self.name)
        for draft in fused:
            editor.group(draft.nodes, draft.kind)
        merged = sum(len(draft.nodes) for draft in fused)
        return PassResult(finish_edit(editor, graph), True, {"groups": len(fused), "nodes in groups": merged})


def _is_read(graph: Graph, node: Node) -> bool:
    """Whether anything reads a node's results: a group needs an output."""
    return any(value.name in graph.outputs or graph.users(value.name) for value in node.outputs)


def _joinable(limits: Fuse, graph: Graph, node: Node, drafts: dict[str, _Draft]) -> _Draft | None:
    """The group that `node` can join: that of the latest operand which allows it."""
    element_wise = is_element_wise_op(node.op)
    if not element_wise and node.op not in ROW_ANCHORS:
        return None
    candidates = [
        drafts[name]
        for name in node.present_inputs
        if name in drafts and _allows(limits, graph, node, name, drafts[name], element_wise)
    ]
    anchored = [draft for draft in candidates if draft.anchor is not None]
    best = anchored or candidates
    return best[-1] if best else None


def _absorbed(limits: Fuse, graph: Graph, node: Node, draft: _Draft, drafts: dict[str, _Draft]) -> list[_Draft]:
    """The groups of other operands that come along when `node` joins a group."""
    if not draft.nodes or not is_element_wise_op(node.op):
        return []
    found: list[_Draft] = []
    room = LARGEST_GROUP - 1 - len(draft.nodes)
    for name in node.present_inputs:
        other = drafts.get(name)
        if other is None or other is draft or other.anchor is not None or other in found or len(other.nodes) > room:
            continue
        if _allows(limits, graph, node, name, other, element_wise=True) and _reads_one(graph, other):
            found.append(other)
            room -= len(other.nodes)
    return found


def _reads_one(graph: Graph, draft: _Draft) -> bool:
    """Whether a group reads one tensor, and else constants."""
    made = {value.name for node in draft.nodes for value in node.outputs}
    return len({name for node in draft.nodes for name in node.present_inputs} - made - graph.constants.keys()) <= 1


def _allows(limits: Fuse, graph: Graph, node: Node, name: str, draft: _Draft, element_wise: bool) -> bool:
    """Whether `node` may join the group that makes its operand `name`."""
    if len(draft.nodes) >= LARGEST_GROUP or name in graph.outputs:
        return False
    members = {id(member) for member in draft.nodes}
    if any(user is not node and id(user) not in members for user in graph.users(name)):
        return False
    if draft.nodes[-1].name != name:
        return False
    produced, own = graph.type_of(name), node.outputs[0].type
    wraps = produced.dtype.kind == "uint" or (produced.dtype.is_integer and produced.dtype.bits < REGISTER_BITS)
    if wraps and draft.nodes[-1].op not in SATURATING:
        return False
    if produced.dtype.is_integer and produced.dtype.bits > REGISTER_BITS and len(draft.nodes) >= LARGEST_WIDE_GROUP:
        return False
    if element_wise:
        is_reduction = draft.anchor is not None and draft.anchor.op in REDUCTIONS
        return produced.sizes == own.sizes and not is_reduction
    if draft.anchor is not None:
        is_scores = draft.kind == "matmul" and len(draft.nodes) <= MOST_BEFORE_SOFTMAX
        return is_scores and node.op == "softmax" and limits.holds_rows_of(graph, draft.anchor, node)
    return node.inputs[0] == name


def fuse_for(machine: Machine, precision: str) -> Fuse:
    """The pass for a machine: half of the vector registers may hold the tiles of a row."""
    element_bytes = {"bf16": 2, "fp32": 12}.get(precision, 4)  # FP32 operands are three parts of four bytes
    return Fuse(machine.tcore_cols, machine.vector_registers // 2, machine.gib_b_bytes, element_bytes)
