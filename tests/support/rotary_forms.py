"""Rotary position embeddings as exporters spell them out, and forms beside them that are none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from graph_maker import GraphMaker

HEADS, TOKENS, SIZE = 3, 5, 8
PAIRS = SIZE // 2
SHAPE = (HEADS, TOKENS, SIZE)

Body = Callable[[GraphMaker], str]


def part(make: GraphMaker, x: str, sizes: tuple[int, ...], start: int, end: int, step: int = 1) -> str:
    """Of the last axis of x, which has these sizes, every `step`-th element."""
    rank = len(sizes)
    starts, ends, steps = [0] * rank, list(sizes), [1] * rank
    starts[-1], ends[-1], steps[-1] = start, end, step
    return make("slice", x, starts=tuple(starts), ends=tuple(ends), steps=tuple(steps))


def tables(make: GraphMaker, pairs: int = PAIRS, *, twice: bool = True, neighbours: bool = False) -> tuple[str, str]:
    """Cosines and sines by token, of each pair once or twice."""
    angles = np.arange(TOKENS)[:, None] * 10.0 ** -np.linspace(0, 1, pairs)
    if twice:
        angles = np.repeat(angles, 2, -1) if neighbours else np.concatenate([angles, angles], -1)
    return make.constant(np.cos(angles)), make.constant(np.sin(angles))


def halves(make: GraphMaker, x: str) -> tuple[str, str]:
    return part(make, x, SHAPE, 0, PAIRS), part(make, x, SHAPE, PAIRS, SIZE)


def strided(make: GraphMaker, x: str) -> tuple[str, str]:
    return part(make, x, SHAPE, 0, SIZE, 2), part(make, x, SHAPE, 1, SIZE, 2)


def taken(make: GraphMaker, x: str) -> tuple[str, str]:
    """The two places of a last axis of pairs, as two gathers take them."""
    seen = (HEADS, TOKENS, PAIRS, 2)
    pairs = make("reshape", x, shape=seen)
    first, second = (part(make, pairs, seen, place, place + 1) for place in (0, 1))
    return make("reshape", first, shape=seen[:-1]), make("reshape", second, shape=seen[:-1])


def stacked(make: GraphMaker, first: str, second: str) -> str:
    """The two element by element: as torch.stack and flatten are exported."""
    columns = [make("reshape", value, shape=(HEADS, TOKENS, PAIRS, 1)) for value in (first, second)]
    return make("reshape", make("concat", *columns, axis=3), shape=SHAPE)


def joined(make: GraphMaker, first: str, second: str) -> str:
    return make("concat", first, second, axis=2)


def turned_copy(make: GraphMaker, *, neighbours: bool = False, order: int = 0) -> str:
    """x * cosine + (-second, first) * sine, as Llama and (with neighbours) GPT-J have it."""
    x = make.input(*SHAPE)
    cosine, sine = tables(make, neighbours=neighbours)
    first, second = strided(make, x) if neighbours else halves(make, x)
    negative = make("mul", second, make.constant(-1.0)) if order else make("neg", second)
    turned = (stacked if neighbours else joined)(make, negative, first)
    if order:
        return make("add", make("mul", sine, turned), make("mul", cosine, x))
    return make("add", make("mul", x, cosine), make("mul", turned, sine))


def turned_copy_of_a_part(make: GraphMaker) -> str:
    """The same where x is a slice, of which its halves are slices as well."""
    shape = (HEADS, TOKENS, 3 * SIZE)
    whole = make.input(*shape)
    x = part(make, whole, shape, SIZE, 2 * SIZE)
    first, second = (part(make, whole, shape, start, start + PAIRS) for start in (SIZE, SIZE + PAIRS))
    cosine, sine = tables(make)
    turned = joined(make, make("neg", second), first)
    return make("add", make("mul", x, cosine), make("mul", turned, sine))


def turned_integers(make: GraphMaker) -> str:
    """The formula on integers, which no angle turns."""
    x, numbers = make.input(*SHAPE, element="i32"), make.constant(np.arange(SIZE), "i32")
    first, second = halves(make, x)
    turned = joined(make, make("neg", second), first)
    return make("add", make("mul", x, numbers), make("mul", turned, numbers))


def turned_pairs(make: GraphMaker, *, form: str = "halves", order: int = 0) -> str:
    """(a * cosine - b * sine, b * cosine + a * sine): the definition of RotaryEmbedding and complex numbers."""
    x = make.input(*SHAPE)
    cosine, sine = tables(make, twice=False)
    a, b = {"halves": halves, "strided": strided, "taken": taken}[form](make, x)
    if order:
        less = make("sub", make("mul", cosine, a), make("mul", sine, b))
        more = make("add", make("mul", sine, a), make("mul", cosine, b))
    else:
        less = make("sub", make("mul", a, cosine), make("mul", b, sine))
        more = make("add", make("mul", b, cosine), make("mul", a, sine))
    return (joined if form == "halves" else stacked)(make, less, more)


def turned_first_half(make: GraphMaker) -> str:
    """The first half of each head turned as pairs of halves, the rest as it is."""
    x = make.input(*SHAPE)
    a, b = part(make, x, SHAPE, 0, 2), part(make, x, SHAPE, 2, 4)
    cosine, sine = tables(make, 2, twice=False)
    less = make("sub", make("mul", a, cosine), make("mul", b, sine))
    more = make("add", make("mul", b, cosine), make("mul", a, sine))
    return joined(make, joined(make, less, more), part(make, x, SHAPE, 4, SIZE))


def rotate(make: GraphMaker, *, neighbours: bool, twice: bool = True) -> str:
    cosine, sine = tables(make, twice=twice, neighbours=neighbours)
    return make("rotate", make.input(*SHAPE), cosine, sine, interleaved=int(neighbours))


def _near_copy(make: GraphMaker, kind: str) -> str:
    """The rotation by a turned copy, but for one thing."""
    x, other = make.input(*SHAPE), make.input(*SHAPE)
    first, second = halves(make, other if kind == "other tensor" else x)
    if kind == "no sign":
        parts = (second, first)
    elif kind == "sign of the other half":
        parts = (second, make("neg", first))
    elif kind == "not turned":
        parts = (make("neg", first), second)
    else:
        parts = (make("neg", second), first)
    turned = joined(make, *parts)
    cosine, sine = tables(make)
    return make("add", make("mul", x, cosine), make("mul", turned, sine))


def _near_pairs(make: GraphMaker, kind: str) -> str:
    """The rotation of pairs, but for one thing."""
    x = make.input(*SHAPE)
    a, b = strided(make, x) if kind == "neighbours put behind each other" else halves(make, x)
    cosine, sine = tables(make, twice=False)
    less, more = ("add", "sub") if kind == "other way round" else ("sub", "add")
    across = cosine if kind == "other angle" else sine
    first = make(less, make("mul", a, cosine), make("mul", b, sine))
    second = make(more, make("mul", b, cosine), make("mul", a, across))
    return joined(make, second, first) if kind == "second before first" else joined(make, first, second)


NEAR_COPIES: dict[str, Body] = {
    kind: lambda make, kind=kind: _near_copy(make, kind)  # type: ignore[misc]
    for kind in ("other tensor", "no sign", "sign of the other half", "not turned")
}
NEAR_PAIRS: dict[str, Body] = {
    kind: lambda make, kind=kind: _near_pairs(make, kind)  # type: ignore[misc]
    for kind in ("other way round", "other angle", "second before first", "neighbours put behind each other")
}
