"""Putting nodes together that one kernel computes without a round trip through memory."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from birc.compiler.ir.attributes import integer
from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.passes.base import Pass, PassResult, finish_edit
from birc.compiler.passes.lower.lower import MOVEMENTS, ROW_ANCHORS, VIEWS, is_element_wise_op
from birc.compiler.passes.lower.rows import REDUCTIONS, SMALLER
from birc.compiler.passes.refusal import Reason, Refusal, listed
from birc.runtime.machine import Machine

LARGEST_GROUP = 24
"""Nodes a group; more would run out of vector registers."""

LARGEST_WIDE_GROUP = 4
"""Nodes a group where 64-bit integers are between them, which may take two registers and many steps."""

MOST_BEFORE_SOFTMAX = 6
"""Nodes of a product's group that a softmax joins: registers hold the tiles of a row, and little beside them."""

TILES_THAT_PASS = 8
"""Tiles of the other operand that an input buffer holds at least of a longer row: loads of others are in flight."""

DEPTH_UNIT, LEAST_DEPTH = 64, 128
"""Input buffers hold depths in steps of at least the second, each rounded up to the first at most."""

REGISTER_BITS = 32
"""Narrower integers wrap around only when they are stored."""

SATURATING = frozenset({"quantize"})
"""Ops whose integers are within the range of their type before they are stored."""


@dataclass(slots=True)
class _Draft:
    """A group in the making; `depth` are the kernels on the longest way to its result, this one included.

    One that `keeps` stores values between its nodes, which others read.
    """

    nodes: list[Node] = field(default_factory=list)
    anchors: list[Node] = field(default_factory=list)
    depth: int = 1
    keeps: bool = False

    @property
    def anchor(self) -> Node | None:
        return self.anchors[0] if self.anchors else None

    @property
    def kind(self) -> str:
        return "+".join(anchor.op for anchor in self.anchors) or "elementwise"


@dataclass(frozen=True, slots=True)
class Fusion:
    """What is decided for a graph: `groups` are the kernels of more than one node, in order; `refusals` say for a node
    and an operand, by their names, why the node is not in the kernel that makes the operand."""

    groups: tuple[tuple[Node, ...], ...]
    kinds: tuple[str, ...]
    refusals: Mapping[tuple[str, str], Refusal]


@dataclass(frozen=True, slots=True)
class Fuse(Pass):
    """Element-wise nodes join the kernel of their producer when nobody else reads what lies between them.

    A group has at most one anchor: a product, convolution, pool, norm, reduction or gather; a softmax over the columns
    of a product may be the second, with the logsumexp of the same. Element-wise nodes follow any anchor but a
    reduction, and precede a norm or a reduction. Statistics of rows join what makes the rows, though others read these,
    too; so do element-wise nodes and norms where all before them is element-wise and nobody waits the longer for what
    others read: it is stored between the nodes. What makes another operand of a node from one tensor, element by
    element, comes along: it reads no more than the operand. `tile_columns` are those of the T-core, `row_tiles` what
    registers hold of a row, and `operand_bytes` what an input buffer holds of the other operand (0: no softmax joins).

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

    def run(self, graph: Graph) -> PassResult:
        fusion = self.decide(graph)
        if not fusion.groups:
            return PassResult(graph, False)
        editor = GraphEditor(graph, self.name)
        for nodes, kind in zip(fusion.groups, fusion.kinds, strict=True):
            editor.group(nodes, kind)
        merged = sum(map(len, fusion.groups))
        return PassResult(finish_edit(editor, graph), True, {"groups": len(fusion.groups), "nodes in groups": merged})

    def decide(self, graph: Graph) -> Fusion:
        """Which nodes share a kernel, and why others do not."""
        drafts: dict[str, _Draft] = {}
        order: list[_Draft] = []
        depths: dict[str, int] = {}
        refusals: dict[tuple[str, str], Refusal] = {}
        for node in graph.nodes:
            found = {name: _refusal(self, graph, node, name, drafts, depths) for name in _computed(graph, node)}
            refusals.update({(node.name, name): refusal for name, refusal in found.items() if refusal is not None})
            if node.op in VIEWS or node.op in MOVEMENTS:
                depth = max((depths[name] for name in found), default=0) + (node.op in MOVEMENTS)
                depths.update((value.name, depth) for value in node.outputs)
                continue
            allowed = {name: drafts[name] for name, refusal in found.items() if refusal is None}
            kept = {name for name, one in allowed.items() if one.keeps or _refusal_of_use(graph, node, name, one)}
            draft = _joined(allowed, kept)
            if draft is None:
                draft = _Draft()
                order.append(draft)
            draft.keeps |= any(allowed[name] is draft for name in kept)
            for name, other in allowed.items():
                if other is draft:
                    continue
                refusal = _refusal_beside(graph, draft, other, is_kept=name in kept)
                if refusal is not None:
                    refusals[node.name, name] = refusal
                    continue
                order.remove(other)
                draft.nodes += other.nodes
                draft.depth = max(draft.depth, other.depth)
                drafts.update((value.name, draft) for member in other.nodes for value in member.outputs)
            draft.nodes.append(node)
            draft.depth = max([draft.depth, *(1 + depths[name] for name in found if drafts.get(name) is not draft)])
            if not is_element_wise_op(node.op):
                draft.anchors.append(node)
            for value in node.outputs:
                drafts[value.name] = draft
                depths[value.name] = draft.depth
        fused = [draft for draft in order if len(draft.nodes) > 1 and _is_read(graph, draft.nodes[-1])]
        for draft in order:
            if not _is_read(graph, draft.nodes[-1]):
                refusals.update(_unread(graph, draft))
        return Fusion(tuple(tuple(draft.nodes) for draft in fused), tuple(draft.kind for draft in fused), refusals)


def _is_read(graph: Graph, node: Node) -> bool:
    """Whether anything reads a node's results: a group needs an output."""
    return any(value.name in graph.outputs or graph.users(value.name) for value in node.outputs)


def _unread(graph: Graph, draft: _Draft) -> dict[tuple[str, str], Refusal]:
    """The refusals within a group that is none, since it has no output."""
    refusal = Refusal(Reason.UNREAD, f"nothing reads %{draft.nodes[-1].name}, and a group needs an output")
    made = {value.name for node in draft.nodes for value in node.outputs}
    return {(node.name, name): refusal for node in draft.nodes for name in _computed(graph, node) if name in made}


def _computed(graph: Graph, node: Node) -> tuple[str, ...]:
    """The operands of a node that other nodes compute, each once, by the last place where it stands."""
    names = [name for name in node.present_inputs if graph.producer(name) is not None]
    return tuple(reversed(dict.fromkeys(reversed(names))))


def _joined(allowed: Mapping[str, _Draft], kept: Container[str]) -> _Draft | None:
    """The group that a node joins, of those that it may: with an anchor if there is one, or one that does not come
    along, the deepest, for which the others need not wait, and of equally deep ones that of the latest operand."""
    anchored = [draft for name, draft in allowed.items() if draft.anchor is not None and name not in kept]
    staying = [draft for name, draft in allowed.items() if name in kept]
    return max(reversed(anchored or staying or list(allowed.values())), key=lambda draft: draft.depth, default=None)


def _refusal_beside(graph: Graph, draft: _Draft, other: _Draft, *, is_kept: bool) -> Refusal | None:
    """Why the group of another operand does not come along when a node joins `draft`."""
    if is_kept:
        return Refusal(Reason.READERS, f"others read of the group of %{other.nodes[-1].name}, and would wait")
    if other.anchor is not None:
        anchors = " and ".join(anchor.op for anchor in (*other.anchors, *draft.anchors))
        return Refusal(Reason.ANCHORS, f"{anchors} are both anchors, and a group has one")
    together = len(other.nodes) + len(draft.nodes) + 1
    if together > LARGEST_GROUP:
        return Refusal(Reason.FULL, f"the group is full: {together} nodes together, {LARGEST_GROUP} at most")
    made = {value.name for node in other.nodes for value in node.outputs}
    read = {name: None for node in other.nodes for name in node.present_inputs if name not in made}
    tensors = [name for name in read if name not in graph.constants]
    if len(tensors) > 1:
        words = f"what makes it reads {len(tensors)} tensors ({listed(tensors)}); from one it would come along"
        return Refusal(Reason.OTHER_TENSORS, words)
    return None


def _refusal(
    limits: Fuse, graph: Graph, node: Node, name: str, drafts: Mapping[str, _Draft], depths: Mapping[str, int]
) -> Refusal | None:
    """Why `node` may not join the group that makes its operand `name`; None when it may."""
    for op, what in ((node.op, f"%{node.name}"), (_producing_op(graph, name), f"%{name}")):
        if op in VIEWS:
            return Refusal(Reason.VIEW, f"{what} is a view ({op}), which no kernel computes")
        if op in MOVEMENTS:
            return Refusal(Reason.MOVEMENT, f"{what} is moved by a kernel of its own ({op})")
    if node.op == "row_moments":
        return _refusal_of_moments(limits, graph, node, drafts[name])
    if not is_element_wise_op(node.op) and node.op not in ROW_ANCHORS:
        return Refusal(Reason.OWN_ANCHOR, f"{node.op} is an anchor that reads its operands from memory")
    if node.op in ROW_ANCHORS and node.inputs[0] != name:
        return Refusal(Reason.PARAMETER, f"%{name} is a parameter of {node.op}")
    draft = drafts[name]
    if node.op == "logsumexp" and _is_beside(node, draft.nodes[-1]):
        return None
    use = _refusal_of_use(graph, node, name, draft)
    return (
        _refusal_of_kinds(node, draft)
        or (None if _may_keep(node, draft) else use)
        or _refusal_of_types(graph, node, name, draft)
        or _refusal_of_row(limits, graph, node, draft)
        or (_refusal_of_waiting(graph, node, name, drafts, depths) if use or draft.keeps else None)
    )


def _may_keep(node: Node, draft: _Draft) -> bool:
    """Whether a node may follow what others read, too: all before it is computed element by element."""
    return draft.anchor is None and (is_element_wise_op(node.op) or node.op in ROW_ANCHORS - SMALLER)


def _refusal_of_use(graph: Graph, node: Node, name: str, draft: _Draft) -> Refusal | None:
    """What keeps an operand from being the result of its group, for `node` alone. Of statistics the rows are stored."""
    return (
        _refusal_of_last(name, draft) if node.op == "row_statistics" else _refusal_of_readers(graph, node, name, draft)
    )


def _refusal_of_waiting(
    graph: Graph, node: Node, name: str, drafts: Mapping[str, _Draft], depths: Mapping[str, int]
) -> Refusal | None:
    """Whether those who read what a group stores would wait for operands of `node`, and these perhaps for them."""
    draft = drafts[name]
    later = [other for other in _computed(graph, node) if drafts.get(other) is not draft]
    if all(depths[other] < draft.depth for other in later):
        return None
    return Refusal(Reason.READERS, f"others read of the group of %{name}, and would wait for {listed(later)}")


def _is_beside(node: Node, softmax: Node) -> bool:
    """Whether the logarithms of sums are those of a softmax, which has made the sums."""
    return softmax.op == "softmax" and (node.inputs, node.attributes) == (softmax.inputs, softmax.attributes)


def _refusal_of_moments(limits: Fuse, graph: Graph, node: Node, draft: _Draft) -> Refusal | None:
    """Why the moments of rows are not made with them, which are stored all the same: others read them, too."""
    name = node.inputs[0]
    if draft.kind != "matmul":
        return Refusal(Reason.ANCHORS, f"row_moments joins a matmul, not {draft.kind}")
    refusal = _refusal_of_last(name, draft)
    if refusal is not None:
        return refusal
    width = graph.type_of(name).sizes[-1] // integer(node.attributes, "parts")
    if width > limits.tile_columns:
        words = f"moments of {width:,} columns together, a tile has {limits.tile_columns:,}"
        return Refusal(Reason.UNEVEN_TILES, words)
    return None


def _producing_op(graph: Graph, name: str) -> str:
    producer = graph.producer(name)
    return producer.op if producer is not None else ""


def _refusal_of_kinds(node: Node, draft: _Draft) -> Refusal | None:
    """What the ops and the number of nodes forbid."""
    anchor = draft.anchor
    reduction = next((a for a in draft.anchors if a.op in SMALLER), None)
    if reduction is not None and is_element_wise_op(node.op):
        return Refusal(Reason.REDUCTION, f"nothing follows a reduction ({reduction.op}) in its kernel")
    is_scores = node.op == "softmax" and draft.kind == "matmul"
    if anchor is not None and node.op in ROW_ANCHORS and not is_scores:
        return Refusal(Reason.ANCHORS, f"{draft.kind} and {node.op} are both anchors, and a group has one")
    if draft.keeps and node.op in REDUCTIONS:
        return Refusal(Reason.REDUCTION, f"a group that stores more than its result has no reduction ({node.op})")
    if len(draft.nodes) >= LARGEST_GROUP:
        return Refusal(Reason.FULL, f"the group is full: {len(draft.nodes)} nodes, {LARGEST_GROUP} at most")
    return None


def _refusal_of_readers(graph: Graph, node: Node, name: str, draft: _Draft) -> Refusal | None:
    """What others want of the operand: it has to be stored for them."""
    if name in graph.outputs:
        return Refusal(Reason.GIVEN_OUT, f"%{name} is an output of the graph")
    members = {id(member) for member in draft.nodes}
    others = [user for user in graph.users(name) if user is not node and id(user) not in members]
    if any(user.op != "logsumexp" or not _is_beside(user, node) for user in others):
        readers = graph.users(name)
        words = f"%{name} has {len(readers)} readers: {listed([user.name for user in readers])}"
        return Refusal(Reason.READERS, words)
    return _refusal_of_last(name, draft)


def _refusal_of_last(name: str, draft: _Draft) -> Refusal | None:
    """What is read in the middle of a group. Moments are left beside it: what they are of goes on."""
    *_, last = [node.name for node in draft.nodes if node.op != "row_moments"] or [draft.nodes[-1].name]
    if last == name:
        return None
    return Refusal(Reason.NOT_LAST, f"%{name} is not the result of its group, which is %{last}")


def _refusal_of_types(graph: Graph, node: Node, name: str, draft: _Draft) -> Refusal | None:
    """What element types and shapes forbid."""
    produced, own = graph.type_of(name), node.outputs[0].type
    if is_element_wise_op(node.op) and produced.sizes != own.sizes:
        return Refusal(Reason.SHAPES, f"shapes differ: {list(produced.sizes)} in, {list(own.sizes)} out")
    wraps = produced.dtype.kind == "uint" or (produced.dtype.is_integer and produced.dtype.bits < REGISTER_BITS)
    if wraps and draft.nodes[-1].op not in SATURATING:
        words = f"{produced.dtype.name} wraps around when it is stored, not in a register of {REGISTER_BITS} bits"
        return Refusal(Reason.WRAPS, words)
    if produced.dtype.is_integer and produced.dtype.bits > REGISTER_BITS and len(draft.nodes) >= LARGEST_WIDE_GROUP:
        words = f"{produced.dtype.name} takes two registers: {len(draft.nodes)} nodes, {LARGEST_WIDE_GROUP} at most"
        return Refusal(Reason.WIDE, words)
    return None


def _refusal_of_row(limits: Fuse, graph: Graph, node: Node, draft: _Draft) -> Refusal | None:
    """Why the SPC does not hold whole rows of the product whose columns a softmax runs over."""
    product = draft.anchor
    if product is None or node.op != "softmax":
        return None
    if len(draft.nodes) > MOST_BEFORE_SOFTMAX:
        words = f"{len(draft.nodes)} nodes before the softmax, {MOST_BEFORE_SOFTMAX} leave registers for its rows"
        return Refusal(Reason.BEFORE_SOFTMAX, words)
    sizes = graph.type_of(node.inputs[0]).sizes
    axis = integer(node.attributes, "axis")
    if axis != len(sizes) - 1:
        return Refusal(Reason.SOFTMAX_AXIS, f"softmax over axis {axis} of {len(sizes)}, not over the columns")
    columns = sizes[-1]
    tiles = max(1, -(-columns // limits.tile_columns))
    over = f"softmax over {columns:,} columns"
    if tiles > limits.row_tiles:
        words = f"{over}: {tiles:,} tiles in a row, the vector registers hold {limits.row_tiles:,}"
        return Refusal(Reason.REGISTERS, words)
    if columns % tiles:
        return Refusal(Reason.UNEVEN_TILES, f"{over}: {tiles:,} tiles in a row are not of one width")
    depth = graph.type_of(product.inputs[0]).sizes[-1]
    padded = depth + DEPTH_UNIT * -(-depth // LEAST_DEPTH)
    held = min(tiles, TILES_THAT_PASS)
    num_bytes = held * limits.tile_columns * padded * limits.element_bytes
    if num_bytes > limits.operand_bytes:
        words = f"{over}, products {depth:,} deep: {num_bytes:,} bytes of the other operand for {held} tiles of a row, "
        words += f"the input buffer holds {limits.operand_bytes:,}"
        return Refusal(Reason.INPUT_BUFFER, words)
    return None


def most_row_tiles(machine: Machine) -> int:
    """The tiles of a row that may wait for its maximum: half of the vector registers hold them."""
    return machine.vector_registers // 2


def fuse_for(machine: Machine, precision: str) -> Fuse:
    """The pass for a machine."""
    element_bytes = {"bf16": 2, "fp32": 12}.get(precision, 4)  # FP32 operands are three parts of four bytes
    return Fuse(machine.tcore_cols, most_row_tiles(machine), machine.gib_b_bytes, element_bytes)
