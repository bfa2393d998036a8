"""The nodes of attentions again, for some of their rows and columns, and graphs in which they stand for the whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from birc.compiler.ir.attributes import AttributeValue
from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.passes.attention import WEIGHTLESS, Attention, Range
from birc.compiler.passes.base import PassResult, finish_edit

Groups = TypeVar("Groups")


@dataclass(frozen=True, slots=True)
class AttentionPieces:
    """Adds the nodes of an attention again, for some rows and columns of the scores; `masks` have been made already."""

    editor: GraphEditor
    attention: Attention
    masks: dict[Hashable, str]

    def scores(self, rows: Range, columns: Range, *, is_finite: bool = False) -> str:
        """Some scores, under the mask where it covers any of them.

        With `is_finite` the mask leaves a finite number, not minus infinity: it may cover a whole row of these.
        """
        attention = self.attention
        product, *others = attention.scores
        queries, keys = product.inputs
        value = self.again(
            product, self.cut(queries, rows, None, like=product), self.cut(keys, None, columns, like=product)
        )
        for node in others:
            term = self._finite_term(node) if is_finite and node is attention.masked else node.inputs[1]
            value = self.again(node, value, self.cut(term, rows, columns, like=node))
        choice = attention.choice
        condition = None if choice is None else self._condition(choice, rows, columns)
        if choice is None or condition is None:
            return value
        low = self._low(choice, is_finite)
        return self.again(choice, condition, *(value if self._is_scores(n) else low for n in choice.inputs[1:]))

    def _finite_term(self, node: Node) -> str:
        """A term of run time without infinities, whose maximum is 0 in each row: so logarithms of sums keep digits.

        softmax(x + t) = softmax(x + t - max(t)), and a row that is minus infinity throughout has no numbers either way.
        """
        term = node.inputs[1]
        if term not in self.masks:
            type, add = self.editor.type_of(term), partial(self.add, like=node)
            most = add("reduce_max", (term,), {"axes": (type.rank - 1,), "keepdims": 1})
            self.masks[term] = add("maximum", (add("sub", (term, most)), self._number(WEIGHTLESS)))
        return self.masks[term]

    def _condition(self, choice: Node, rows: Range, columns: Range) -> str | None:
        """Where some scores are chosen, or what stands in their place; None if all of them are."""
        name, keeps = choice.inputs[0], self.attention.keeps
        if keeps is None:
            return self.cut(name, rows, columns, like=choice)
        kept = keeps[..., slice(*rows) if keeps.shape[-2] > 1 else slice(None), slice(*columns)]
        if kept.all():
            return None
        key = name, rows, columns
        if key not in self.masks:
            is_kept = np.array_equal(keeps, self.editor.constants[name].data)
            self.masks[key] = self.editor.add_constant(np.ascontiguousarray(kept if is_kept else ~kept), name)
        return self.masks[key]

    def _low(self, choice: Node, is_finite: bool) -> str:
        """What the mask puts in the place of scores."""
        name, number = self._replacement(choice)
        return self._number(WEIGHTLESS) if is_finite and math.isinf(number) else name

    def _replacement(self, choice: Node) -> tuple[str, float]:
        """What the model puts in the place of scores, by name and as a number."""
        (name,) = (name for name in choice.inputs[1:] if not self._is_scores(name))
        return name, float(self.editor.constants[name].data)

    def unseen(self) -> str | None:
        """For each row minus infinity where a choice at run time leaves it a score; else 0, or what spoils the row.

        That is where the model has minus infinity, of which all scores of the row come to no numbers. None: there is
        no such choice.
        """
        choice = self.attention.choice
        if choice is None or choice is not self.attention.masked:
            return None
        condition, *options = choice.inputs
        _, number = self._replacement(choice)
        key = condition, number, self._is_scores(options[0])
        if key not in self.masks:
            seen, none = self._number(-math.inf), self._number(math.inf if math.isinf(number) else 0.0)
            chosen = self.again(choice, condition, *(seen if self._is_scores(name) else none for name in options))
            axis = self.editor.type_of(condition).rank - 1
            self.masks[key] = self.add("reduce_min", (chosen,), {"axes": (axis,), "keepdims": 1}, like=choice)
        return self.masks[key]

    def _number(self, number: float) -> str:
        """A number in the type of the scores, made once."""
        if number not in self.masks:
            type = self.attention.scores[0].output.type.dtype.numpy
            self.masks[number] = self.editor.add_constant(np.asarray(number, type), "low")
        return self.masks[number]

    def _is_scores(self, name: str) -> bool:
        return name == self.attention.scores[-1].name

    def product(self, shares: str, columns: Range) -> str:
        """Shares by the values that they are of, lying as the whole does."""
        context = self.attention.context
        return self.laid_out(self.again(context, shares, self.cut(context.inputs[1], columns, None, like=context)))

    def again(self, node: Node, *inputs: str) -> str:
        """A node of the attention with other operands."""
        return self.add(node.op, inputs, node.attributes, like=node)

    def add(
        self, op: str, inputs: tuple[str, ...], attributes: Mapping[str, AttributeValue] | None = None, *, like: Node
    ) -> str:
        """A node that stands for one of the attention, and its result."""
        return self.editor.add(
            op, inputs, attributes, stem=like.name, sources=like.sources, before=self.attention.context
        )

    def laid_out(self, name: str) -> str:
        """A value that lies as the result of the attention does."""
        return self.editor.lay_out(name, self.attention.context.output.type.layout)

    def cut(self, name: str, rows: Range | None, columns: Range | None, *, like: Node) -> str:
        """Some rows and columns (None: all) of an operand of a node, where it has more than one."""
        sizes = self.editor.type_of(name).sizes
        wanted = (*(None for _ in sizes), rows, columns)[-len(sizes) :] if sizes else ()
        bounds = [(0, n) if one is None or n == 1 else one for n, one in zip(sizes, wanted, strict=True)]
        if bounds == [(0, size) for size in sizes]:
            return name
        attributes: dict[str, AttributeValue] = {
            "starts": tuple(start for start, _ in bounds),
            "ends": tuple(end for _, end in bounds),
            "steps": (1,) * len(sizes),
        }
        return self.add("slice", (name,), attributes, like=like)


def in_pieces(
    graph: Graph,
    by: str,
    attentions: Sequence[tuple[Attention, Groups]],
    parts_of: Callable[[AttentionPieces, Groups], list[str]],
) -> PassResult:
    """A graph in which parts, one below the other, stand in the place of attentions whose rows are grouped."""
    if not attentions:
        return PassResult(graph, False)
    editor, wholes = GraphEditor(graph, by), []
    masks: dict[Hashable, str] = {}
    for attention, groups in attentions:
        pieces, context = AttentionPieces(editor, attention, masks), attention.context
        whole, *others = parts = parts_of(pieces, groups)
        if others:
            axis = context.output.type.rank - 2
            whole = pieces.laid_out(pieces.add("concat", tuple(parts), {"axis": axis}, like=context))
        wholes.append((context, whole))
    for context, whole in wholes:  # at last, as attentions may read each other
        editor.replace(context, whole)
    editor.drop_unused()
    return PassResult(finish_edit(editor, graph), True, {"attentions": len(attentions)})
