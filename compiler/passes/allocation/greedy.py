"""Placing blocks one after the other: at the first gap, in the tightest gap, or always where it is lowest.

First fit and best fit in several orders are what TFLite, TVM and XLA do. The third rule takes next whichever block can
lie lowest, so that gaps are filled before anything is put over them; it is best fit for strip packing (Burke, Kendall
and Whitwell, "A New Placement Heuristic for the Orthogonal Stock-Cutting Problem", 2004) with fixed columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heapreplace
from typing import Final

import numpy as np

from birc.compiler.passes.allocation.problem import Problem

Addresses = list[int]
Rule = Callable[[Problem, Sequence[int]], Addresses]
Key = Callable[[Problem, int], tuple[int, ...]]

MANY: Final = 64
"""Arrays are faster than a heap where each block lives with so many others, and with one of so many of all."""


def _lifetime(problem: Problem, block: int) -> int:
    return problem.ends[block] - problem.starts[block]


def _area(problem: Problem, block: int) -> int:
    return problem.sizes[block] * _lifetime(problem, block)


def _busiest(problem: Problem, block: int) -> int:
    return max(problem.live[problem.starts[block] : problem.ends[block]])


def _neighbouring(problem: Problem, block: int) -> int:
    return sum(problem.sizes[other] for other in problem.neighbours[block])


ORDERS: dict[str, Key] = {
    "size": lambda p, b: (-p.sizes[b], -_lifetime(p, b)),
    "lifetime": lambda p, b: (-_lifetime(p, b), -p.sizes[b]),
    "area": lambda p, b: (-_area(p, b), -p.sizes[b]),
    "start": lambda p, b: (p.starts[b], -p.sizes[b]),
    "end": lambda p, b: (-p.ends[b], -p.sizes[b]),
    "conflicts": lambda p, b: (-p.conflicts[b], -p.sizes[b]),
    "bytes of conflicts": lambda p, b: (-_neighbouring(p, b) - p.sizes[b], -p.sizes[b]),
    "busiest step": lambda p, b: (-_busiest(p, b), -_area(p, b)),
    "size and area": lambda p, b: (-p.sizes[b] * _area(p, b),),
}
"""Orders in which blocks are placed: the least key first, then by number."""

PRIORITIES: dict[str, Callable[[Problem, int], int]] = {
    "lifetime": _lifetime,
    "area": _area,
    "conflicts": lambda p, b: p.conflicts[b],
    "size": lambda p, b: p.sizes[b],
}
"""Which of several blocks that can lie equally low is taken first: the greatest, then the largest."""


def ordered(problem: Problem, key: Key) -> list[int]:
    """The blocks in an order."""
    return sorted(range(len(problem.sizes)), key=lambda block: (*key(problem, block), block))


def first_fit(problem: Problem, order: Sequence[int]) -> Addresses:
    """Every block at the lowest address that is free throughout its life."""
    sizes, neighbours = problem.sizes, problem.neighbours
    addresses = [-1] * len(sizes)
    for block in order:
        size, address = sizes[block], 0
        for low, other in sorted((addresses[o], sizes[o]) for o in neighbours[block] if addresses[o] >= 0):
            if low - address >= size:
                break
            address = max(address, low + other)
        addresses[block] = address
    return addresses


def best_fit(problem: Problem, order: Sequence[int]) -> Addresses:
    """Every block in the smallest gap that holds it, above all others when none does."""
    sizes, neighbours = problem.sizes, problem.neighbours
    addresses = [-1] * len(sizes)
    for block in order:
        size, address = sizes[block], 0
        best, least_gap = -1, -1
        for low, other in sorted((addresses[o], sizes[o]) for o in neighbours[block] if addresses[o] >= 0):
            gap = low - address
            if gap >= size and (best < 0 or gap < least_gap):
                best, least_gap = address, gap
            address = max(address, low + other)
        addresses[block] = address if best < 0 else best
    return addresses


RULES: dict[str, Rule] = {"first fit": first_fit, "best fit": best_fit}


def priorities(problem: Problem, name: str) -> list[float]:
    """The priority of every block; the size, as part of the largest one, decides between equals."""
    measure = PRIORITIES[name]
    largest = 2 * max(problem.sizes, default=1)
    return [measure(problem, block) + size / largest for block, size in enumerate(problem.sizes)]


def lowest_first(problem: Problem, priority: Sequence[float], limit: int | None = None) -> Addresses | None:
    """Always the block that can lie lowest, among several the one of the highest priority.

    None as soon as a block ends above `limit`.
    """
    count = len(problem.sizes)
    is_dense = problem.pairs >= count * (MANY + count // MANY) > 0
    return (_lowest_of_all if is_dense else _lowest_in_turn)(problem, priority, limit)


def _lowest_in_turn(problem: Problem, priority: Sequence[float], limit: int | None) -> Addresses | None:
    """The blocks in a heap: for those of which few live with each other."""
    sizes, neighbours = problem.sizes, problem.neighbours
    addresses = [0] * len(sizes)
    lowest = [0] * len(sizes)  # what lies already is beyond reach
    beyond = sum(sizes) + 1
    # An entry may be lower than its block can lie by now: then it goes back.
    waiting = [(0, -first, block) for block, first in enumerate(priority)]
    heapify(waiting)
    while waiting:
        address, first, block = waiting[0]
        if address != lowest[block]:
            heapreplace(waiting, (lowest[block], first, block))
            continue
        heappop(waiting)
        end = address + sizes[block]
        if limit is not None and end > limit:
            return None
        addresses[block], lowest[block] = address, beyond
        for other in neighbours[block]:
            if lowest[other] < end:  # noqa: PLR1730 - a call would take three times as long
                lowest[other] = end
    return addresses


def _lowest_of_all(problem: Problem, priority: Sequence[float], limit: int | None) -> Addresses | None:
    """The same by looking at all blocks each time: where most live with each other, each one raises most of them."""
    rank = sorted(range(len(priority)), key=lambda block: (-priority[block], block))
    sizes, starts, ends = (np.array(of)[rank] for of in (problem.sizes, problem.starts, problem.ends))
    lowest = np.zeros(len(rank), np.int64)
    beyond = sum(problem.sizes) + 1
    addresses = [0] * len(rank)
    for _ in rank:
        place = int(lowest.argmin())
        address = int(lowest[place])
        end = address + int(sizes[place])
        if limit is not None and end > limit:
            return None
        addresses[rank[place]] = address
        neighbours = (starts < ends[place]) & (ends > starts[place])
        np.maximum(lowest, end, out=lowest, where=neighbours)
        lowest[place] = beyond
    return addresses


def attempts(problem: Problem) -> Iterator[tuple[str, Addresses]]:
    """Every greedy placement with its name."""
    for name in PRIORITIES:
        addresses = lowest_first(problem, priorities(problem, name))
        if addresses is not None:
            yield f"lowest first, by {name}", addresses
    for rule, place in RULES.items():
        for name, key in ORDERS.items():
            yield f"{rule} by {name}", place(problem, ordered(problem, key))
