"""Access relations: which operand elements an output element needs, as affine text and as boxes.

A row of the operator table writes `loops = "n o y x | c r s"`: the parallel loops, one per output dimension
in order, then the reduction loops. A star makes a loop name stand for all output dimensions that the others
leave (`b* m n | k`). The extent of a reduction loop is that of the dimension it indexes alone, or is given
(`r:kernel[0]`). Per operand it writes one index expression a dimension: loops, integers, elements of
attributes, `size(loop)`, `+ - * // %`. A starred index is aligned to the right as numpy broadcasts, and a
dimension of size 1 under it is read at 0.

An index outside the operand reads nothing: that is how padding and the pieces of a concatenation are said.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from birc.compiler.ir.attributes import Attributes
from birc.compiler.ir.types import TensorType
from birc.runtime.errors import InternalError

Box = tuple[tuple[int, int], ...]
"""A half-open range per dimension."""

Interval = tuple[int, int]
"""Least and greatest value, both included."""


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop of an op's iteration space, from 0 to `extent`.

    A reduction loop accumulates into the output element.
    """

    name: str
    extent: int
    is_reduction: bool


@dataclass(frozen=True, slots=True)
class Relations:
    """The iteration space of one node and what its iterations read.

    `reads` has, per present input, the index expressions of the element; the parallel loops come first.
    """

    loops: tuple[Loop, ...]
    reads: tuple[tuple[str, ...], ...]

    @property
    def parallel(self) -> tuple[Loop, ...]:
        return tuple(loop for loop in self.loops if not loop.is_reduction)

    @property
    def reductions(self) -> tuple[Loop, ...]:
        return tuple(loop for loop in self.loops if loop.is_reduction)


AccessRule = Callable[[Sequence[TensorType], TensorType, Attributes], Relations]
"""Input types, output type, attributes -> relations: for rows whose loops depend on the rank in their own
way.
"""


def resolve(
    loops: str,
    templates: Mapping[str, str],
    operands: Sequence[str],
    types: Sequence[TensorType],
    output: TensorType,
    attributes: Attributes,
) -> Relations:
    """The relations that a row's text means for these types and attributes.

    Raises `InternalError` for text that does not fit the types: the row is wrong.
    """
    parallel_text, _, reduction_text = loops.partition("|")
    stars, extents = _parallel_extents(parallel_text.split(), output)
    indices = [
        _split_indices(templates[name], stars, type, extents) for name, type in zip(operands, types, strict=True)
    ]
    parallel = [Loop(name, extent, False) for name, extent in extents.items()]
    reductions = []
    for item in reduction_text.split():
        name, _, given = item.partition(":")
        extents[name] = _constant(given, attributes) if given else _indexed_extent(name, indices, types)
        reductions.append(Loop(name, extents[name], True))
    reads = tuple(tuple(_substitute(index, extents, attributes) for index in operand) for operand in indices)
    return Relations((*parallel, *reductions), reads)


def _parallel_extents(names: list[str], output: TensorType) -> tuple[dict[str, list[str]], dict[str, int]]:
    """The loops each star stands for, and the extents of all parallel loops in the order of dimensions."""
    sizes = iter(output.sizes)
    starred_count = output.rank - sum(not name.endswith("*") for name in names)
    stars: dict[str, list[str]] = {}
    extents: dict[str, int] = {}
    for name in names:
        stem = name.removesuffix("*")
        covered = [f"{stem}{dim}" for dim in range(starred_count)] if name.endswith("*") else [name]
        if name.endswith("*"):
            stars[stem] = covered
        extents.update((loop, next(sizes)) for loop in covered)
    return stars, extents


def _split_indices(
    template: str, stars: Mapping[str, list[str]], type: TensorType, extents: Mapping[str, int]
) -> list[str]:
    """The index texts of one operand, stars expanded to as many loops as its rank leaves."""
    items = [item.strip() for item in template.split(",")] if template.strip() else []
    starred = type.rank - sum(not item.endswith("*") for item in items)
    indices: list[str] = []
    for item in items:
        if not item.endswith("*"):
            indices.append(item)
            continue
        covered = stars[item.removesuffix("*")]
        indices.extend(covered[len(covered) - starred :])
    if len(indices) != type.rank:
        raise InternalError(f"access {template!r} does not fit an operand of type {type}")
    return [
        "0" if size == 1 and extents.get(index, 1) != 1 else index
        for index, size in zip(indices, type.sizes, strict=True)
    ]


def _indexed_extent(name: str, indices: list[list[str]], types: Sequence[TensorType]) -> int:
    for operand, type in zip(indices, types, strict=True):
        if name in operand:
            return type.sizes[operand.index(name)]
    raise InternalError(f"no operand is indexed by the loop {name} alone", hint="give its extent: name:extent")


class _Substitution(ast.NodeTransformer):
    """Puts numbers for attributes, their elements and `size(loop)`."""

    def __init__(self, extents: Mapping[str, int], attributes: Attributes) -> None:
        self.extents = extents
        self.attributes = attributes

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self.extents:
            return node
        value = self.attributes.get(node.id)
        if not isinstance(value, int):
            raise InternalError(f"{node.id} is neither a loop nor an integer attribute")
        return ast.Constant(value)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        value = self.attributes.get(node.value.id) if isinstance(node.value, ast.Name) else None
        place = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if not isinstance(value, tuple) or not isinstance(place, int):
            raise InternalError(f"{ast.unparse(node)} is not an element of an attribute")
        return ast.Constant(value[place])

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if ast.unparse(node.func) != "size" or len(node.args) != 1:
            raise InternalError(f"{ast.unparse(node)} is not size(loop)")
        return ast.Constant(self.extents[ast.unparse(node.args[0])])

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """Also put the number for what has one value over all loops, and leave out `+ 0` and `1 *`."""
        left, right = self.visit(node.left), self.visit(node.right)
        combined = ast.BinOp(left, node.op, right)
        low, high = _interval(combined, {name: (0, extent - 1) for name, extent in self.extents.items()})
        if low == high:
            return ast.Constant(low)
        if isinstance(node.op, ast.Add | ast.Sub) and _is_number(right, 0):
            return left
        if isinstance(node.op, ast.Add | ast.Mult) and _is_number(left, int(isinstance(node.op, ast.Mult))):
            return right
        return combined


def _is_number(node: ast.expr, value: int) -> bool:
    return isinstance(node, ast.Constant) and node.value == value


def _substitute(index: str, extents: Mapping[str, int], attributes: Attributes) -> str:
    tree = ast.parse(index, mode="eval").body
    return ast.unparse(ast.fix_missing_locations(_Substitution(extents, attributes).visit(tree)))


def _constant(text: str, attributes: Attributes) -> int:
    return int(_substitute(text, {}, attributes))


@lru_cache(maxsize=4096)
def _parsed(index: str) -> ast.expr:
    return ast.parse(index, mode="eval").body


def index_range(index: str, ranges: Mapping[str, Interval]) -> Interval:
    """The least and greatest value of an index expression when each loop runs in its range (ends included).

    Exact when every loop occurs once and no `%` wraps; otherwise it may be wider, never narrower.
    """
    return _interval(_parsed(index), ranges)


def _interval(node: ast.expr, ranges: Mapping[str, Interval]) -> Interval:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value, node.value
    if isinstance(node, ast.Name):
        return ranges[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        low, high = _interval(node.operand, ranges)
        return -high, -low
    if isinstance(node, ast.BinOp):
        combine = _INTERVAL_RULES.get(type(node.op))
        if combine is not None:
            return combine(_interval(node.left, ranges), _interval(node.right, ranges))
    raise InternalError(f"{ast.unparse(node)} is not an affine index")


def _add(a: Interval, b: Interval) -> Interval:
    return a[0] + b[0], a[1] + b[1]


def _subtract(a: Interval, b: Interval) -> Interval:
    return a[0] - b[1], a[1] - b[0]


def _multiply(a: Interval, b: Interval) -> Interval:
    products = (a[0] * b[0], a[0] * b[1], a[1] * b[0], a[1] * b[1])
    return min(products), max(products)


def _floor_divide(a: Interval, b: Interval) -> Interval:
    divisor = _positive(b)
    return a[0] // divisor, a[1] // divisor


def _modulo(a: Interval, b: Interval) -> Interval:
    divisor = _positive(b)
    if a[0] // divisor == a[1] // divisor:
        return a[0] % divisor, a[1] % divisor
    return 0, divisor - 1


def _positive(b: Interval) -> int:
    if b[0] != b[1] or b[0] <= 0:
        raise InternalError(f"an affine index divides by a positive number, not by {b}")
    return b[0]


_INTERVAL_RULES: Final[dict[type[ast.operator], Callable[[Interval, Interval], Interval]]] = {
    ast.Add: _add,
    ast.Sub: _subtract,
    ast.Mult: _multiply,
    ast.FloorDiv: _floor_divide,
    ast.Mod: _modulo,
}


def footprint(relations: Relations, box: Box, types: Sequence[TensorType]) -> tuple[Box | None, ...]:
    """The box of each operand that the output elements in `box` need; None where they need nothing of it.

    `types` are the types of the present inputs; indices outside an operand are clipped away.
    """
    ranges = {loop.name: (0, loop.extent - 1) for loop in relations.reductions}
    for loop, (start, stop) in zip(relations.parallel, box, strict=True):
        ranges[loop.name] = (start, stop - 1)
    if any(low > high for low, high in ranges.values()):
        return tuple(None for _ in types)
    return tuple(
        _clipped([index_range(index, ranges) for index in read], type)
        for read, type in zip(relations.reads, types, strict=True)
    )


def _clipped(ranges: list[Interval], type: TensorType) -> Box | None:
    box = tuple((max(low, 0), min(high + 1, size)) for (low, high), size in zip(ranges, type.sizes, strict=True))
    return None if any(start >= stop for start, stop in box) else box
