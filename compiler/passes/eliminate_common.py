"""Pass: compute the same thing once."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import GROUP, Constant, Graph, Node
from birc.compiler.passes.base import Pass, PassResult, finish_edit

_COMMUTATIVE: Final = ("add", "and", "equal", "maximum", "minimum", "mul", "or", "xor")


@dataclass(frozen=True)
class EliminateCommon(Pass):
    """Merge nodes with the same op, inputs and attributes, and constants with the same bits.

    before:
        graph "g" {
          input %x : f32[2]
          input %z : f32[2]
          %a : f32[2] = add(%x, %z) from "add_0"
          %b : f32[2] = add(%z, %x) from "add_1"
          %y : f32[2] = mul(%a, %b) from "mul_0"
          output %y
        }
    after:
        graph "g" {
          input %x : f32[2]
          input %z : f32[2]
          %a : f32[2] = add(%x, %z) from "add_0"
          %y : f32[2] = mul(%a, %a) from "mul_0"
          output %y
          fate "add_1" merged by eliminate_common into %a
        }
    """

    name: ClassVar[str] = "eliminate_common"

    def run(self, graph: Graph) -> PassResult:
        editor = GraphEditor(graph, self.name)
        constants = _merge_constants(editor, graph)
        nodes = _merge_nodes(editor, graph)
        if not constants and not nodes:
            return PassResult(graph, False)
        return PassResult(finish_edit(editor, graph), True, {"constants": constants, "nodes": nodes})


def _merge_constants(editor: GraphEditor, graph: Graph) -> int:
    first: dict[Hashable, str] = {}
    merged = 0
    for name, constant in graph.constants.items():
        kept = first.setdefault(_constant_key(constant), name)
        if kept != name and name not in graph.outputs:
            editor.replace_uses(name, kept)
            del editor.constants[name]
            merged += 1
    return merged


def _constant_key(constant: Constant) -> Hashable:
    """Equal for equal bits: the digest of what is stored, and for splats of one element."""
    stored = np.asarray(constant.data.flat[:1]) if constant.is_splat else np.ascontiguousarray(constant.data)
    digest = hashlib.blake2b(stored.reshape(-1).view(np.uint8).data, digest_size=16).digest()
    return (constant.type, constant.is_splat, digest)


def _merge_nodes(editor: GraphEditor, graph: Graph) -> int:
    first: dict[Hashable, Node] = {}
    merged = 0
    for original in graph.nodes:
        node = editor.producer(original.name)
        if node is None or node.op == GROUP:
            continue
        kept = first.setdefault(_node_key(node), node)
        if kept is node or not _mergeable(node, kept, editor):
            continue
        for old, new in zip(node.outputs, kept.outputs, strict=True):
            editor.replace_uses(old.name, new.name)
        editor.drop(node, "merged", kept.name)
        merged += 1
    return merged


def _node_key(node: Node) -> Hashable:
    inputs = tuple(sorted(node.inputs)) if node.op in _COMMUTATIVE else node.inputs
    return (node.op, inputs, tuple(node.attributes.items()), tuple(value.type for value in node.outputs))


def _mergeable(node: Node, kept: Node, editor: GraphEditor) -> bool:
    """Two outputs of the graph stay two values: each has a name that its users know."""
    pairs = zip(node.outputs, kept.outputs, strict=True)
    return not any(old.name in editor.outputs and new.name in editor.outputs for old, new in pairs)
