"""Rules on loops that were unrolled: what each round does alike, and no other round waits for, is done at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from birc.compiler.ir.attributes import integer, integers
from birc.compiler.ir.graph import Node
from birc.compiler.ir.table import row
from birc.compiler.passes.rules import Rewriter, Rule

LEAST_ROUNDS: Final = 3
"""Products that are worth one of all of them."""


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Boxes of one tensor behind each other along `axis`: that of all, and the slices and reshapes that make them."""

    source: str
    axis: int
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    nodes: tuple[Node, ...]
    reshaped: bool

    @property
    def attributes(self) -> dict[str, tuple[int, ...]]:
        """Those of the slice of all of them."""
        return {"starts": self.starts, "ends": self.ends, "steps": (1,) * len(self.starts)}


def concat_of_pieces(rewriter: Rewriter, node: Node) -> str | None:
    """concat(slice(x), slice(x), ...) = slice(x), where the pieces follow each other in x, reshaped alike or not"""
    axis = integer(node.attributes, "axis")
    pieces = _pieces(rewriter, node.inputs, axis)
    if pieces is None:
        return None
    whole = rewriter.emit("slice", (pieces.source,), pieces.attributes, replaces=(node, *pieces.nodes))
    if not pieces.reshaped:
        return whole
    return rewriter.emit("reshape", (whole,), {"shape": node.output.type.sizes}, replaces=(node,))


def products_of_rounds(rewriter: Rewriter, node: Node) -> str | None:
    """concat(a0 @ b0, a1 @ b1, ...) = concat(a0, a1, ...) @ concat(b0, b1, ...), seen in the order of the result

    Where each round makes its rows element by element, in place, and the columns are pieces of one tensor.
    """
    products = [rewriter.producer(name, "matmul") for name in node.inputs]
    found = [one for one in products if one is not None and rewriter.has_one_use(one.name)]
    if len(found) < max(len(node.inputs), LEAST_ROUNDS) or len({_types(rewriter, one) for one in found}) > 1:
        return None
    sizes, axis = found[0].output.type.sizes, integer(node.attributes, "axis")
    rows, columns = ([one.inputs[place] for one in found] for place in (0, 1))
    if any(rewriter.type_of(names[0]).rank != len(sizes) or len(sizes) < 3 for names in (rows, columns)):
        return None
    if rewriter.sizes(rows[0])[0] != rewriter.sizes(columns[0])[0] or _pieces(rewriter, columns, 0) is None:
        return None
    if len(set(rows)) < len(rows) or not all(_is_made_in_place(rewriter, name) for name in rows):
        return None
    stacked = [rewriter.emit("concat", names, {"axis": 0}, replaces=(node,)) for names in (rows, columns)]
    product = rewriter.emit("matmul", stacked, replaces=(node, *found))
    apart = rewriter.emit("reshape", (product,), {"shape": (len(found), *sizes)}, replaces=(node,))
    perm = (*range(1, axis + 1), 0, *range(axis + 1, len(sizes) + 1))
    moved = rewriter.emit("transpose", (apart,), {"perm": perm}, replaces=(node,))
    return rewriter.emit("reshape", (moved,), {"shape": node.output.type.sizes}, replaces=(node,))


def _types(rewriter: Rewriter, product: Node) -> tuple[object, ...]:
    return (*(rewriter.type_of(name).logical for name in product.inputs), product.output.type.logical)


def _is_made_in_place(rewriter: Rewriter, name: str) -> bool:
    """Whether a value is computed element by element, and where it is put matters to nobody."""
    producer = rewriter.editor.producer(name)
    readers = [user.op for user in rewriter.editor.users(name)]
    is_free = not rewriter.is_output(name) and all(row(op).category not in ("movement", "view") for op in readers)
    return producer is not None and row(producer.op).category == "elementwise" and is_free


def _pieces(rewriter: Rewriter, names: Sequence[str], axis: int) -> _Pieces | None:
    """What several values are pieces of that follow each other, so that behind each other along `axis` they are one."""
    reshapes = [rewriter.producer(name, "reshape") for name in names]
    slices = [
        rewriter.producer(name if one is None else one.inputs[0], "slice")
        for name, one in zip(names, reshapes, strict=True)
    ]
    cuts = [one for one in slices if one is not None]
    if len(cuts) < len(names) or len(names) < 2 or len({(one.inputs, one.output.type.sizes) for one in cuts}) > 1:
        return None
    if any(step != 1 for one in cuts for step in integers(one.attributes, "steps")):
        return None
    sizes = cuts[0].output.type.sizes
    starts = [integers(one.attributes, "starts") for one in cuts]
    moving = [place for place in range(len(sizes)) if starts[0][place] != starts[1][place]]
    reshaped = any(one is not None for one in reshapes)
    if len(moving) != 1 or (not reshaped and moving != [axis]):
        return None
    (along,) = moving
    step = [sizes[along] if place == along else 0 for place in range(len(sizes))]
    follow = all(
        start == tuple(first + number * s for first, s in zip(starts[0], step, strict=True))
        for number, start in enumerate(starts)
    )
    shapes = {rewriter.sizes(name) for name in names}
    is_outermost = prod(sizes[:along]) == 1 == prod(rewriter.sizes(names[0])[:axis])
    if not follow or len(shapes) > 1 or (reshaped and not is_outermost):
        return None
    rounds = [len(cuts) if place == along else 1 for place in range(len(sizes))]
    ends = tuple(start + size * n for start, size, n in zip(starts[0], sizes, rounds, strict=True))
    nodes = tuple(dict.fromkeys((*(one for one in reshapes if one is not None), *cuts)))
    return _Pieces(cuts[0].inputs[0], along, starts[0], ends, nodes, reshaped)


RULES: Final[tuple[Rule, ...]] = (
    Rule("concat-of-pieces", "concat", concat_of_pieces),
    Rule("products-of-rounds", "concat", products_of_rounds),
)
