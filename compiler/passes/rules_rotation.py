"""Rules that find rotary position embeddings in what exporters spell out: halves or neighbours that trade places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from birc.compiler.ir.attributes import integer, integers
from birc.compiler.ir.graph import Node
from birc.compiler.passes.rules import Rewriter, Rule


@dataclass(frozen=True, slots=True)
class _Run:
    """The elements of `base` from `starts` on, `sizes` of them, of the last axis every `step`-th."""

    base: str
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    step: int = 1

    @property
    def last(self) -> int:
        """Where it begins on the last axis."""
        return self.starts[-1]


@dataclass(frozen=True, slots=True)
class _Joined:
    """A value whose pairs consist of an element of `first` and the one of `second`."""

    first: str
    second: str
    is_interleaved: bool


def turned_copy(rewriter: Rewriter, node: Node) -> str | None:
    """x * cosine + (-second, first) * sine = rotate(x, cosine, sine), for the halves, or the neighbours, of x"""
    if not node.output.type.dtype.is_float:
        return None
    for left, right in (node.inputs, node.inputs[::-1]):
        for turned, sine in _factors(rewriter, right):
            joined = _joined(rewriter, turned)
            second = _negated(rewriter, joined.first) if joined is not None else None
            if joined is None or second is None:
                continue
            found = _pairs(rewriter, joined.second, second, joined.is_interleaved)
            for x, cosine in _factors(rewriter, left) if found is not None else ():
                if found is not None and _run(rewriter, x) == found and node.output.type.sizes == found.sizes:
                    return _rotate(rewriter, node, x, (cosine, sine), joined.is_interleaved, found.base)
    return None


def turned_pairs(rewriter: Rewriter, node: Node) -> str | None:
    """(a * cosine - b * sine, b * cosine + a * sine) = rotate(x, cosine, sine), for the halves, or the neighbours, a
    and b of x
    """
    joined = _joined(rewriter, node.name)
    less = rewriter.producer(joined.first, "sub") if joined is not None else None
    more = rewriter.producer(joined.second, "add") if joined is not None else None
    if joined is None or less is None or more is None or not node.output.type.dtype.is_float:
        return None
    for a, cosine in _factors(rewriter, less.inputs[0]):
        for b, sine in _factors(rewriter, less.inputs[1]):
            if not _is_sum_of(rewriter, more, (b, cosine), (a, sine)):
                continue
            found = _pairs(rewriter, a, b, joined.is_interleaved)
            if found is not None and found.sizes == node.output.type.sizes:
                x = _whole(rewriter, node, found)
                return _rotate(rewriter, node, x, (cosine, sine), joined.is_interleaved, found.base)
    return None


def _is_sum_of(rewriter: Rewriter, node: Node, one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether an `add` has these two products, in any order."""
    left, right = (set(_factors(rewriter, name)) for name in node.inputs)
    return (one in left and other in right) or (other in left and one in right)


def one_angle_a_pair(rewriter: Rewriter, node: Node) -> str | None:
    """rotate(x, (c, c), (s, s)) = rotate(x, c, s), where tables are constants that are alike for both of a pair"""
    pairs, is_interleaved = node.output.type.sizes[-1] // 2, integer(node.attributes, "interleaved")
    tables = []
    for name in node.inputs[1:]:
        constant = rewriter.constant(name)
        if constant is None or constant.data.ndim == 0 or constant.data.shape[-1] != 2 * pairs:
            return None
        data = np.asarray(constant.data)
        first, second = (data[..., ::2], data[..., 1::2]) if is_interleaved else (data[..., :pairs], data[..., pairs:])
        if not np.array_equal(first, second):
            return None
        tables.append(first)
    names = [rewriter.add_constant(np.ascontiguousarray(table), f"{node.name}.angles") for table in tables]
    return rewriter.emit("rotate", (node.inputs[0], *names), node.attributes, replaces=(node,))


def _factors(rewriter: Rewriter, value: str) -> Iterator[tuple[str, str]]:
    """What is multiplied to give a value, in both orders."""
    product = rewriter.producer(value, "mul")
    if product is not None:
        yield product.inputs[0], product.inputs[1]
        yield product.inputs[1], product.inputs[0]


def _negated(rewriter: Rewriter, value: str) -> str | None:
    """What has the other sign than a value, where a node changes the sign."""
    node = rewriter.producer(value, "neg", "mul")
    if node is None or node.op == "neg":
        return node.inputs[0] if node is not None else None
    return next((x for x, sign in _factors(rewriter, value) if rewriter.number(sign) == -1.0), None)


def _joined(rewriter: Rewriter, value: str) -> _Joined | None:
    """The two values that are put together to one: behind each other, or element by element."""
    sizes = rewriter.sizes(value)
    apart = rewriter.producer(value, "reshape")
    whole = rewriter.producer(apart.inputs[0] if apart is not None else value, "concat")
    if whole is None or len(whole.inputs) != 2 or not sizes:
        return None
    first, second = whole.inputs
    shape = whole.output.type.sizes
    if integer(whole.attributes, "axis") != len(shape) - 1 or rewriter.sizes(first) != rewriter.sizes(second):
        return None
    if apart is None:
        return _Joined(first, second, False)
    if shape != (*sizes[:-1], sizes[-1] // 2, 2):
        return None
    return _Joined(_without_unit(rewriter, first), _without_unit(rewriter, second), True)


def _without_unit(rewriter: Rewriter, value: str) -> str:
    """The value before it got a last axis of one element."""
    seen = rewriter.producer(value, "reshape")
    is_unit = seen is not None and rewriter.sizes(seen.inputs[0]) == rewriter.sizes(value)[:-1]
    return seen.inputs[0] if seen is not None and is_unit else value


def _run(rewriter: Rewriter, value: str) -> _Run:
    """A value as a run of that of which it is a slice, or as all of itself."""
    node, sizes = rewriter.producer(value, "slice"), rewriter.sizes(value)
    if node is not None and sizes and set(integers(node.attributes, "steps")[:-1]) <= {1}:
        return _Run(node.inputs[0], integers(node.attributes, "starts"), sizes, integers(node.attributes, "steps")[-1])
    return _Run(value, (0,) * len(sizes), sizes)


def _pairs(rewriter: Rewriter, first: str, second: str, is_interleaved: bool) -> _Run | None:
    """The run whose pairs are the elements of two values, in this order; None when they are no such parts of one."""
    one, other, step = _run(rewriter, first), _run(rewriter, second), 2 if is_interleaved else 1
    if not one.starts or one.base != other.base or one.sizes != other.sizes or one.step != step or other.step != step:
        return _elements(rewriter, first, second) if is_interleaved else None
    distance = 1 if is_interleaved else one.sizes[-1]
    if other.starts != (*one.starts[:-1], one.last + distance):
        return None
    return _Run(one.base, one.starts, (*one.sizes[:-1], 2 * one.sizes[-1]))


def _elements(rewriter: Rewriter, first: str, second: str) -> _Run | None:
    """As `_pairs`, of values that are the two places of a last axis, taken one by one."""
    places = []
    for value in (first, second):
        seen = rewriter.producer(value, "reshape")
        run = _run(rewriter, seen.inputs[0]) if seen is not None else None
        if run is None or run.sizes != (*rewriter.sizes(value), 1):
            return None
        places.append(run)
    one, other = places
    whole = (*one.sizes[:-1], 2)
    if one.base != other.base or rewriter.sizes(one.base) != whole or (one.last, other.last) != (0, 1):
        return None
    sizes = (*whole[:-2], 2 * whole[-2])
    split = rewriter.producer(one.base, "reshape")
    if split is not None and rewriter.sizes(split.inputs[0]) == sizes:
        return _run(rewriter, split.inputs[0])
    return _Run(one.base, (0,) * len(sizes), sizes)


def _whole(rewriter: Rewriter, node: Node, run: _Run) -> str:
    """The value of a run, made for the root of a rule."""
    there = rewriter.sizes(run.base)
    if there == run.sizes:
        return run.base
    if len(there) != len(run.sizes):
        return rewriter.emit("reshape", (run.base,), {"shape": run.sizes}, replaces=(node,))
    ends = tuple(start + size for start, size in zip(run.starts, run.sizes, strict=True))
    attributes = {"starts": run.starts, "ends": ends, "steps": (1,) * len(ends)}
    return rewriter.emit("slice", (run.base,), attributes, replaces=(node,))


def _rotate(
    rewriter: Rewriter, node: Node, x: str, tables: tuple[str, str], is_interleaved: bool, base: str = ""
) -> str:
    """The rotation that stands for `node` and all that computes it from x, or from `base`, and the tables."""
    replaced: dict[str, Node] = {}
    pending = [node]
    while pending:
        current = pending.pop()
        replaced[current.name] = current
        inner = [rewriter.editor.producer(name) for name in current.inputs if name not in (x, base, *tables)]
        pending += [found for found in inner if found is not None]
    attributes = {"interleaved": int(is_interleaved)}
    return rewriter.emit("rotate", (x, *tables), attributes, replaces=tuple(replaced.values()))


RULES: Final[tuple[Rule, ...]] = (
    Rule("rotate-by-turned-copy", "add", turned_copy),
    Rule("rotate-by-halves", "concat", turned_pairs),
    Rule("rotate-by-neighbours", "reshape", turned_pairs),
    Rule("one-angle-a-pair", "rotate", one_angle_a_pair),
)
