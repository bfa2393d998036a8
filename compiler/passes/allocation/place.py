"""The portfolio: greedy placements, then hill climbing, then constraint programming, as far as each is needed.

Every search ends as soon as the lower bound is reached; the limits of all are counts, never clocks: equal blocks get
equal addresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from birc.compiler.passes.allocation.blocks import Block, Placement, aligned
from birc.compiler.passes.allocation.climb import climb
from birc.compiler.passes.allocation.exact import solve
from birc.compiler.passes.allocation.greedy import ORDERS, PRIORITIES, RULES, Addresses, attempts
from birc.compiler.passes.allocation.problem import Problem, problem_of
from birc.compiler.passes.allocation.sections import sections, shape


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is tried when the lower bound is not reached.

    At most `climbs` placements by hill climbing. Only as many placements as handle `pairs` pairs of blocks that live
    together; a few are made in any case. `exact` asks OR-tools then.
    """

    climbs: int = 300
    pairs: int = 500_000
    exact: bool = False


DEFAULT_EFFORT = Effort()
LEAST_TRIES = len(PRIORITIES)
TRIES = len(PRIORITIES) + len(RULES) * len(ORDERS)
"""Greedy placements that there are; hill climbing comes after them."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Addresses in units, their height, and how they were found."""

    addresses: Addresses
    height: int
    method: str


def place(
    blocks: Sequence[Block],
    capacity_bytes: int | None = None,
    alignment_bytes: int = 512,
    effort: Effort = DEFAULT_EFFORT,
    known: Sequence[int] | None = None,
) -> Placement:
    """Addresses for all blocks, multiples of the alignment, in the lowest placement that is found.

    It may be higher than `capacity_bytes`, at which only the exact search looks. `known` are addresses at which the
    blocks can lie; the result is not higher.
    """
    rounded = [Block(aligned(block.num_bytes, alignment_bytes), block.start, block.end) for block in blocks]
    filled = [number for number, block in enumerate(rounded) if block.num_bytes]
    parts = [[filled[number] for number in part] for part in sections([rounded[number] for number in filled])]
    shapes = [shape([rounded[number] for number in part]) for part in parts]
    problems = {key: problem_of(key) for key in dict.fromkeys(shapes)}
    bound = max((p.bound * p.unit_bytes for p in problems.values()), default=0)
    found = {key: _solved(problem, bound, capacity_bytes, effort) for key, problem in problems.items()}
    addresses = [0] * len(rounded)
    highest, method = 0, "nothing to place"
    for part, key in zip(parts, shapes, strict=True):
        unit = problems[key].unit_bytes
        for number, low in zip(part, found[key].addresses, strict=True):
            addresses[number] = low * unit
        if found[key].height * unit > highest:
            highest, method = found[key].height * unit, found[key].method
    if known is not None:
        height = max((low + block.num_bytes for low, block in zip(known, rounded, strict=True)), default=0)
        if height < highest:
            return Placement(tuple(known), height, bound, "as known")
    return Placement(tuple(addresses), highest, bound, method)


def _solved(problem: Problem, bound_bytes: int, capacity_bytes: int | None, effort: Effort) -> _Found:
    """The lowest placement of a section; there is no use in one that is lower than `bound_bytes`."""
    goal = bound_bytes // problem.unit_bytes
    best: _Found | None = None
    for method, addresses in _tries(problem, goal, effort):
        height = problem.height(addresses)
        if best is None or height < best.height:
            best = _Found(addresses, height, method)
        if best.height <= goal:
            return best
    best = best or _Found([], 0, "nothing to place")
    if effort.exact:
        capacity = None if capacity_bytes is None else capacity_bytes // problem.unit_bytes
        exact = solve(problem, goal, best.height, capacity)
        if exact is not None:
            return _Found(exact, problem.height(exact), "exact")
    return best


def _tries(problem: Problem, goal: int, effort: Effort) -> Iterator[tuple[str, Addresses]]:
    """Placements with their names, as many as the effort allows."""
    most = effort.pairs // max(1, problem.pairs)
    yield from islice(attempts(problem), max(LEAST_TRIES, most))
    climbs = min(effort.climbs, most - TRIES)
    if climbs > 0:
        yield climb(problem, goal, climbs)
