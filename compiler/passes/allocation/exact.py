"""Placements by constraint programming, with CP-SAT of OR-tools (the optional extra `exact`).

One constraint for every maximal live set says that its blocks keep apart. The solver is told the rule of
`lowest_first`: place next what can lie lowest. Room to spare makes the search harder, not easier, as a full live set
propagates and a loose one does not; so the smallest capacities come first. How long a search takes depends much on
chance, so several short ones come before longer ones; all is counted in the solver's deterministic time, never by a
clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

from birc.compiler.passes.allocation.greedy import Addresses, priorities
from birc.compiler.passes.allocation.problem import Problem
from birc.runtime.errors import UsageError

LIMITS = (0.15, 0.3, 0.6)
"""Deterministic time of each search, round after round: 0.1 are some 2 s of one core of 2024."""
MARGINS = (0.01, 0.02, 0.03)
"""Shares of the lower bound by which it is exceeded next, in one round each."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A way of searching: what is placed first of several blocks, and whether equal blocks lie in a fixed order."""

    priority: str
    is_sorted: bool


KINDS = tuple(_Kind(name, is_sorted) for is_sorted in (False, True) for name in ("lifetime", "area", "conflicts"))


def solve(problem: Problem, goal: int, height: int, capacity: int | None = None) -> Addresses | None:
    """A placement lower than `height`, if one is found; better ones than `goal` are not looked for.

    Raises `UsageError` when OR-tools is not installed.
    """
    if find_spec("ortools") is None:
        raise UsageError("exact placement needs OR-tools", hint="pip install 'birc[exact]'")
    for limit, rounds in _heights(problem, goal, height, capacity):
        for kind, time, seed in _searches(rounds):
            addresses, is_impossible = _search(problem, limit, kind, time, seed)
            if addresses is not None:
                return addresses
            if is_impossible:
                break
    return None


def _heights(problem: Problem, goal: int, height: int, capacity: int | None) -> Iterator[tuple[int, int]]:
    """Heights to ask for, with the rounds of searches at each."""
    wanted = [goal, *(int(goal * (1 + margin)) for margin in MARGINS), *([] if capacity is None else [capacity])]
    for number, limit in enumerate(sorted(set(wanted))):
        if problem.bound <= limit < height:
            yield limit, len(LIMITS) if number == 0 else 1


def _searches(rounds: int) -> Iterator[tuple[_Kind, float, int]]:
    """The kinds, times and seeds of the searches of so many rounds."""
    for seed, time in enumerate(LIMITS[:rounds]):
        yield from ((kind, time, seed) for kind in KINDS)


def _search(problem: Problem, limit: int, kind: _Kind, time: float, seed: int) -> tuple[Addresses | None, bool]:
    """A placement of at most that height if one is found, else whether there is none."""
    from ortools.sat.python import cp_model  # noqa: PLC0415 - an optional extra

    model = cp_model.CpModel()
    lows = [model.new_int_var(0, limit - size, f"low{block}") for block, size in enumerate(problem.sizes)]
    intervals = [
        model.new_fixed_size_interval_var(low, size, f"block{block}")
        for block, (low, size) in enumerate(zip(lows, problem.sizes, strict=True))
    ]
    for blocks in problem.live_sets():
        model.add_no_overlap([intervals[block] for block in blocks])
    if kind.is_sorted:
        for one, other in _equal_pairs(problem):
            model.add(lows[one] + problem.sizes[one] <= lows[other])
    priority = priorities(problem, kind.priority)
    order = sorted(range(len(lows)), key=lambda block: (-priority[block], block))
    lowest, least = cp_model.CHOOSE_LOWEST_MIN, cp_model.SELECT_MIN_VALUE
    model.add_decision_strategy([lows[block] for block in order], lowest, least)
    return _solved(cp_model, model, lows, time, seed)


def _solved(cp_model: Any, model: Any, lows: list[Any], time: float, seed: int) -> tuple[Addresses | None, bool]:
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_deterministic_time = time
    status = solver.solve(model)
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return [solver.value(low) for low in lows], False
    return None, status == cp_model.INFEASIBLE


def _equal_pairs(problem: Problem) -> Iterator[tuple[int, int]]:
    """Neighbours in the groups of blocks that are equal, and so could change places."""
    groups: dict[tuple[int, int, int], list[int]] = {}
    for block, key in enumerate(zip(problem.sizes, problem.starts, problem.ends, strict=True)):
        groups.setdefault(key, []).append(block)
    for blocks in groups.values():
        yield from pairwise(blocks)
