"""Loops that were unrolled: pieces of a tensor behind each other, products of every round."""

from __future__ import annotations

from collections.abc import Callable

from graph_maker import GraphMaker

Body = Callable[[GraphMaker], str]


def pieces(make: GraphMaker, starts: tuple[int, ...], shape: tuple[int, ...] | None, axis: int) -> str:
    """Rows of a matrix from here and there, two at a time, behind each other along an axis of another shape."""
    x = make.input(1, 10, 4)
    cut = [make("slice", x, starts=(0, s, 1), ends=(1, s + 2, 4), steps=(1, 1, 1)) for s in starts]
    return make("concat", *(make("reshape", one, shape=shape) if shape else one for one in cut), axis=axis)


def unrolled(count: int = 3, axis: int = 2, *, views: bool = False, weights: bool = False) -> Body:
    """A recurrence, each of whose rounds gives a product with a piece of one tensor."""

    def body(make: GraphMaker) -> str:
        columns, state, given = make.input(1, count, 4), make.input(1, 5, 4), []
        for number in range(count):
            state = make("mul", make("tanh", state), make.input(1, 5, 4))
            bounds = {"starts": (0, number, 0), "ends": (1, number + 1, 4), "steps": (1, 1, 1)}
            piece = (
                make.random(1, 4, 1) if weights else make("reshape", make("slice", columns, **bounds), shape=(1, 4, 1))
            )
            seen = make("reshape", state, shape=(1, 5, 4)) if views else state
            given.append(make("matmul", seen, piece))
        return make("concat", *given, axis=axis)

    return body
