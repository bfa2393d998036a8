"""Pass: products of one tensor with several weights, whose results are split into heads, become one product."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from birc.compiler.ir.attributes import AttributeValue, integers
from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.passes.base import Pass, PassResult, finish_edit


@dataclass(frozen=True, slots=True)
class _Branch:
    """x @ weights (+ bias), seen as [..., heads, features]: the nodes, and the names of the constants."""

    product: Node
    sum: Node | None
    split: Node
    weights: str
    bias: str

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the result, split into heads."""
        return self.split.output.type.sizes


@dataclass(frozen=True, slots=True)
class MergeProducts(Pass):
    """Query, key and value of an attention, and their like, come from one product.

    The columns of the weights are put together head by head: a part of the heads, as a die has it, needs a run of
    columns. The results are views of the one product.

    before:
        graph "g" {
          input %x : f32[2,1]
          const %a : f32[1,4] = [1.0, 2.0, 3.0, 4.0]
          const %b : f32[1,4] = [5.0, 6.0, 7.0, 8.0]
          %p : f32[2,4] = matmul(%x, %a) from "p"
          %q : f32[2,4] = matmul(%x, %b) from "q"
          %y : f32[2,2,2] = reshape(%p) {shape = [2, 2, 2]} from "y"
          %z : f32[2,2,2] = reshape(%q) {shape = [2, 2, 2]} from "z"
          output %y
          output %z
        }
    after:
        graph "g" {
          input %x : f32[2,1]
          const %a.merged : f32[1,8] = [1.0, 2.0, 5.0, 6.0, 3.0, 4.0, 7.0, 8.0]
          %p.merged : f32[2,8] = matmul(%x, %a.merged) from "p" "q"
          %p.merged.1 : f32[2,2,4] = reshape(%p.merged) {shape = [2, 2, 4]} from "y" "z"
          %y : f32[2,2,2] = slice(%p.merged.1) {starts = [0, 0, 0], ends = [2, 2, 2], steps = [1, 1, 1]} from "y"
          %z : f32[2,2,2] = slice(%p.merged.1) {starts = [0, 0, 2], ends = [2, 2, 4], steps = [1, 1, 1]} from "z"
          output %y
          output %z
        }
    """

    name: ClassVar[str] = "merge_products"

    def run(self, graph: Graph) -> PassResult:
        found: defaultdict[tuple[object, ...], list[_Branch]] = defaultdict(list)
        for node in graph.nodes:
            branch = _branch(graph, node) if node.op == "matmul" else None
            if branch is not None:
                found[node.inputs[0], branch.sizes[:-1], bool(branch.bias)].append(branch)
        mergeable = [branches for branches in found.values() if len(branches) > 1]
        if not mergeable:
            return PassResult(graph, False)
        editor = GraphEditor(graph, self.name)
        for branches in mergeable:
            _merge(editor, branches)
        editor.drop_unused()
        return PassResult(finish_edit(editor, graph), True, {"merged": sum(map(len, mergeable))})


def _branch(graph: Graph, product: Node) -> _Branch | None:
    """The branch that begins with a product; None when it is not of this form, or something else reads of it."""
    weights = product.inputs[1]
    constant = graph.constants.get(weights)
    if constant is None or constant.type.rank != 2 or constant.is_splat or not constant.type.dtype.is_float:
        return None
    user = graph.only_user(product)
    total, bias = None, ""
    if user is not None and user.op == "add":
        total = user
        bias = next(name for name in (*user.inputs, "") if name != product.name)
        given = graph.constants.get(bias)
        if given is None or given.type.sizes != constant.type.sizes[1:] or user.output.type != product.output.type:
            return None
        user = graph.only_user(total)
    if user is None or user.op != "reshape":
        return None
    shape, sizes = integers(user.attributes, "shape"), product.output.type.sizes
    is_split = len(shape) == len(sizes) + 1 and shape[: len(sizes) - 1] == sizes[:-1]
    return _Branch(product, total, user, weights, bias) if is_split else None


def _merge(editor: GraphEditor, branches: list[_Branch]) -> None:
    """Put the merged product before the first of the branches, and views of it in the place of their results."""
    first = branches[0]
    *outer, heads, _ = first.sizes
    x = first.product.inputs[0]
    depth = editor.type_of(x).sizes[-1]
    features = [branch.sizes[-1] for branch in branches]

    def together(names: list[str], shape: tuple[int, ...], stem: str) -> str:
        parts = [editor.constants[name].data.reshape(*shape, heads, -1) for name in names]
        return editor.add_constant(np.concatenate(parts, axis=-1).reshape(*shape, -1), stem)

    weights = together([b.weights for b in branches], (depth,), f"{first.weights}.merged")

    def add(op: str, inputs: tuple[str, ...], of: Sequence[Node], **attributes: AttributeValue) -> str:
        sources = [source for node in of for source in node.sources]
        stem = f"{first.product.name}.merged"
        return editor.add(op, inputs, attributes, stem=stem, sources=sources, before=first.product)

    value = add("matmul", (x, weights), [b.product for b in branches])
    if first.bias:
        bias = together([b.bias for b in branches], (), f"{first.bias}.merged")
        value = add("add", (value, bias), [b.sum for b in branches if b.sum is not None])
    value = add("reshape", (value,), [b.split for b in branches], shape=(*outer, heads, sum(features)))
    start = 0
    for branch, count in zip(branches, features, strict=True):
        starts = (*(0 for _ in branch.sizes[:-1]), start)
        ends = (*branch.sizes[:-1], start + count)
        editor.replace(
            branch.split, add("slice", (value,), [branch.split], starts=starts, ends=ends, steps=(1,) * len(ends))
        )
        start += count
