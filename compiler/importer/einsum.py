"""Lowering of Einsum: diagonals and sums of single operands, then one product after the other.

Labels are letters; a dimension that an ellipsis stands for is called by its number, counted from the last.
"""

from __future__ import annotations

import math
import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.shape import reshape
from birc.runtime.errors import BadModelError

_ELLIPSIS: Final = "..."


@dataclass(frozen=True, slots=True)
class _Operand:
    """A value whose dimensions have names, each once."""

    value: str
    labels: tuple[str, ...]


def _einsum(node: OnnxNode, build: GraphBuilder) -> Results:
    shapes = [build.shape(name) for name in node.inputs]
    terms, output = _parsed(node, [len(shape) for shape in shapes])
    sizes = _sizes(node, terms, shapes)
    if any(label not in sizes for label in output) or len(set(output)) != len(output):
        raise BadModelError(f"the result {''.join(output)!r} of the equation", where=node.where)
    operands = [_single(build, value, term, sizes) for value, term in zip(node.inputs, terms, strict=True)]
    result = operands[0]
    for place, operand in enumerate(operands[1:], 1):
        needed = set(output).union(*(later.labels for later in operands[place + 1 :]))
        result = _summed(build, result, needed.union(operand.labels))
        other = _summed(build, operand, needed.union(result.labels))
        result = _product(build, result, other, needed)
    return _ordered(build, _summed(build, result, output), output).value


def _parsed(node: OnnxNode, ranks: Sequence[int]) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """The labels of every operand and of the result, ellipses as labels of their own.

    Without an arrow the result has what the ellipses stand for and, in alphabetical order, every letter that stands
    once.
    """
    equation = node.string_attribute("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    texts = left.split(",")
    if len(texts) != len(ranks):
        raise BadModelError(f"equation {equation!r} for {len(ranks)} operands", where=node.where)
    terms = [_labels(node, text, rank) for text, rank in zip(texts, ranks, strict=True)]
    widest = max((sum(label.isdigit() for label in term) for term in terms), default=0)
    if arrow:
        letters = right.replace(_ELLIPSIS, "")
        return terms, _labels(node, right, len(letters) + (widest if _ELLIPSIS in right else 0))
    every = left.replace(_ELLIPSIS, "").replace(",", "")
    single = sorted(letter for letter in set(every) if every.count(letter) == 1)
    return terms, (*_open(widest), *single)


def _labels(node: OnnxNode, text: str, rank: int) -> tuple[str, ...]:
    before, dots, after = text.partition(_ELLIPSIS)
    letters = before + after
    covered = rank - len(letters)
    if covered < 0 or (covered and not dots) or not set(letters) <= set(string.ascii_letters):
        raise BadModelError(f"term {text!r} of the equation for a tensor of rank {rank}", where=node.where)
    return (*before, *_open(covered), *after)


def _open(count: int) -> tuple[str, ...]:
    """The names of `count` dimensions behind an ellipsis."""
    return tuple(str(place) for place in reversed(range(count)))


def _sizes(node: OnnxNode, terms: Sequence[Sequence[str]], shapes: Sequence[Sequence[int]]) -> dict[str, int]:
    """The extent of every label: a dimension of size 1 is broadcast."""
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for label, size in zip(term, shape, strict=True):
            if sizes.get(label, 1) == 1:
                sizes[label] = size
            elif size not in (1, sizes[label]):
                raise BadModelError(f"sizes {sizes[label]} and {size} of {label!r} in the equation", where=node.where)
    return sizes


def _single(build: GraphBuilder, value: str, term: Sequence[str], sizes: dict[str, int]) -> _Operand:
    """An operand with each label once: of a repeated one the diagonal; without dimensions that are broadcast."""
    labels = list(term)
    for label in dict.fromkeys(term):
        while labels.count(label) > 1:
            value = _diagonal(build, value, labels, label)
    kept = [place for place, size in enumerate(build.shape(value)) if size == sizes[labels[place]]]
    shape = build.shape(value)
    return _Operand(
        reshape(build, value, tuple(shape[place] for place in kept)), tuple(labels[place] for place in kept)
    )


def _diagonal(build: GraphBuilder, value: str, labels: list[str], label: str) -> str:
    """The first two dimensions called `label` as one, the last: every n + 1-th element of the two together."""
    first = labels.index(label)
    second = labels.index(label, first + 1)
    others = [place for place in range(len(labels)) if place not in (first, second)]
    moved = build.emit("transpose", (value,), {"perm": (*others, first, second)})
    shape = build.shape(moved)
    size = max(shape[-2:])
    square = build.emit("expand", (moved,), {"shape": (*shape[:-2], size, size)})
    flat = reshape(build, square, (*shape[:-2], size * size))
    starts, ends = (0,) * len(build.shape(flat)), build.shape(flat)
    labels[:] = [*(labels[place] for place in others), label]
    return build.emit("slice", (flat,), {"starts": starts, "ends": ends, "steps": (1,) * len(others) + (size + 1,)})


def _summed(build: GraphBuilder, operand: _Operand, kept: Collection[str]) -> _Operand:
    """An operand without the labels that nothing needs."""
    axes = tuple(place for place, label in enumerate(operand.labels) if label not in kept)
    if not axes:
        return operand
    value = build.emit("reduce_sum", (operand.value,), {"axes": axes, "keepdims": 0})
    return _Operand(value, tuple(label for label in operand.labels if label in kept))


def _ordered(build: GraphBuilder, operand: _Operand, labels: Sequence[str]) -> _Operand:
    """The dimensions of an operand in another order."""
    perm = tuple(operand.labels.index(label) for label in labels)
    if perm == tuple(range(len(perm))):
        return operand
    return _Operand(build.emit("transpose", (operand.value,), {"perm": perm}), tuple(labels))


def _product(build: GraphBuilder, a: _Operand, b: _Operand, needed: Collection[str]) -> _Operand:
    """The product of two operands, summed over the labels of both that nothing else needs.

    A matrix product of floats; for whole numbers, and where there is no matrix, a product of elements and a sum.
    """
    batch = [label for label in a.labels if label in b.labels and label in needed]
    summed = [label for label in a.labels if label in b.labels and label not in needed]
    rows = [label for label in a.labels if label not in b.labels]
    columns = [label for label in b.labels if label not in a.labels]
    extents = {**_extents(build, a), **_extents(build, b)}
    outer, m, n, k = (math.prod(extents[label] for label in group) for group in (batch, rows, columns, summed))
    is_float = build.type_of(a.value).dtype.is_float
    left = _ordered(build, a, (*batch, *rows, *summed)).value
    if summed and is_float and m * n > 1:
        right = _ordered(build, b, (*batch, *summed, *columns)).value
        matrices = (reshape(build, left, (outer, m, k)), reshape(build, right, (outer, k, n)))
        value = build.emit("matmul", matrices)
    else:
        right = _ordered(build, b, (*batch, *columns, *summed)).value
        factors = (reshape(build, left, (outer, m, 1, k)), reshape(build, right, (outer, 1, n, k)))
        value = build.emit("mul", factors)
        value = build.emit("reduce_sum", (value,), {"axes": (3,), "keepdims": 0}) if summed else value
    labels = (*batch, *rows, *columns)
    return _Operand(reshape(build, value, tuple(extents[label] for label in labels)), labels)


def _extents(build: GraphBuilder, operand: _Operand) -> dict[str, int]:
    return dict(zip(operand.labels, build.shape(operand.value), strict=True))


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("Einsum", _einsum),)
